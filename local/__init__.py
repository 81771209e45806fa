"""The synthesized template on one machine: for trying it and for its tests. Nothing of this is ever in an asset.

up.py        locks a state folder, starts it all, deploys, watches and ends it; prints the endpoints
servers.py   the two processes that make it up, by processes.py; spec.py is what they are told
cloud.py     MiniStack and one port per registry, in MiniStack's own virtual environment
corrections/ what MiniStack 1.5.33 does otherwise than AWS, put right
engine.py    a Docker Engine API for MiniStack's ECS; containers.py and init.py run a task as host processes
deploy.py    assets and template into MiniStack, and what its CloudFormation drops put back
images.py    real images on the spot, as OCI layouts
"""
