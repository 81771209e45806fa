"""A handler's cold start, as far as it is ours: importing it, clients included, by a fresh interpreter.

Imported from the very asset that is deployed here. Lambda cannot write bytecode beside it, so without the asset's own
each cold start compiles every module.
"""

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from local.deploy import Assembly, DeployError, synthesize
from local.up import DEFAULT_CONFIG
from tests.bench.figures import BenchError, Figures, Row, median, seconds, spread, times

RUNS: Final = 5
MODULES: Final = ("boto3", "handlers.consumer", "handlers.reconcile")

_PROGRAM: Final = """\
import sys, time
sys.path.insert(0, sys.argv[1])
began = time.perf_counter()
__import__(sys.argv[2])
print(time.perf_counter() - began)
"""
# What the handlers read when they are imported. Nothing is called.
_ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "ECR_RELAY_LEDGER_TABLE": "ledger",
    "ECR_RELAY_CONFIG_PARAMETER": "/ecr-relay",
    "ECR_RELAY_QUEUE_URL": "http://127.0.0.1/queue",
    "ECR_RELAY_CLUSTER": "arn:aws:ecs:us-east-1:000000000000:cluster/ecr-relay",
    "ECR_RELAY_TASK_DEFINITION": "arn:aws:ecs:us-east-1:000000000000:task-definition/ecr-relay:1",
    "ECR_RELAY_SUBNETS": "subnet-1",
    "ECR_RELAY_SECURITY_GROUPS": "sg-1",
    "ECR_RELAY_ASSIGN_PUBLIC_IP": "true",
}


def measure(figures: Figures, folder: Path) -> None:
    with figures.section("imports of the Lambda asset, by this machine's Python, which is not Lambda's") as rows:
        asset = folder / "asset"
        shutil.copytree(_asset(folder), asset, ignore=shutil.ignore_patterns("__pycache__"))
        base = 0.0
        for how in ("compiled before", "compiled at each start"):
            if how == "compiled before":
                compileall.compile_dir(asset, quiet=2)
            else:
                for cache in asset.rglob("__pycache__"):
                    shutil.rmtree(cache)
            for module in MODULES:
                took = [_once(asset, module) for _ in range(RUNS)]
                base = base or median(took)
                rows.append(Row(f"{module}, {how}", seconds(median(took)), times(median(took), base), spread(took)))


def _asset(folder: Path) -> Path:
    try:
        assembly = Assembly.read(synthesize(DEFAULT_CONFIG, folder / "synth.log"))
    except DeployError as error:
        raise BenchError(str(error)) from None
    for asset in assembly.assets.values():
        path = assembly.folder / str(asset["source"]["path"])
        if (path / "handlers").is_dir():
            return path
    raise BenchError(f"no asset of {assembly.folder} holds the handlers")


def _once(asset: Path, module: str) -> float:
    """Seconds; the interpreter's own start is not in it."""
    with tempfile.TemporaryDirectory() as empty:  # no ~/.aws
        environment = {**_ENVIRONMENT, "PATH": os.environ.get("PATH", os.defpath), "HOME": empty}
        command = [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, str(asset), module]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    if ran.returncode:
        raise BenchError(f"{module} cannot be imported from the asset: {ran.stderr.strip()[-600:]}")
    return float(ran.stdout)
