"""Chaos on the local cloud: `make chaos`, or `python -m tests.chaos`. See `__main__.py`."""
