"""The synthesized template on one machine: for trying it and for its tests. Nothing of this is ever in an asset.

up.py        starts, watches and ends it all; prints the endpoints
cloud.py     MiniStack and one port per registry, in MiniStack's own virtual environment
corrections/ what MiniStack 1.5.33 does otherwise than AWS, put right
engine.py    a Docker Engine API for MiniStack's ECS; containers.py runs a task as host processes
deploy.py    assets and template into MiniStack, and what its CloudFormation drops put back
images.py    real images on the spot, as OCI layouts
"""
