"""The synthesized template into MiniStack: synthesize, publish assets, create the stack, put back what was dropped.

Nothing about the stack is written here a second time: names, properties and outputs come from the cloud assembly.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from ecr_relay.config import parse
from ecr_relay.config.authorities import ca_bundle
from local.spec import WARM_PATH

ROOT: Final = Path(__file__).parents[1]

ASSEMBLIES: Final = 4
"""Syntheses that are kept: as many configurations can be tried in turn without waiting for one."""

DEPLOY_SECONDS: Final = 60
"""A stack takes MiniStack a second or two."""


class DeployError(Exception):
    """The stack could not be synthesized or created. `str()` is for the operator."""


@dataclass(frozen=True, slots=True)
class Clients:
    """boto3 clients of one account and region of the local cloud."""

    endpoint: str
    account: str
    region: str

    def __call__(self, service: Any, region: str | None = None) -> Any:
        return _client(self.endpoint, self.account, region or self.region, service)

    def fill(self, text: str) -> str:
        """`text` with CDK's placeholders filled in."""
        return text.replace("${AWS::AccountId}", self.account).replace("${AWS::Region}", self.region)


@functools.cache
def _client(endpoint: str, account: str, region: str, service: Any) -> Any:
    session = boto3.Session(
        aws_access_key_id=account,  # MiniStack takes twelve digits for the account
        aws_secret_access_key="local",  # noqa: S106 - and anything for the secret
        region_name=region,
    )
    # What only this machine answers needs no retry, and no wait for one.
    configuration = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=120)
    return session.client(service, endpoint_url=endpoint, config=configuration)


def synthesize(config: str, log: Path, *, file: Path | None = None, forwarder: bool = False) -> Path:
    """The cloud assembly for the text of a configuration, with Lambda assets for this machine's interpreter; or that of
    its forwarder. `file` is where the text is from: what it names lies beside that.

    It is made once for the same configuration and sources, below `build/local`. Raises DeployError, and
    ConfigError for a file that the configuration names.
    """
    kind = "forwarder" if forwarder else "assembly"
    beside = ca_bundle(parse(config).deployment, file) if file else None
    folder = ROOT / "build" / "local" / f"{kind}-{_fingerprint(config, beside)}"
    if folder.is_dir():
        os.utime(folder)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        text, out = Path(scratch) / "relay.toml", Path(scratch) / "cdk.out"
        text.write_text(config, encoding="utf-8")
        command = [sys.executable, "-m", "stack.app", "--config", str(text), "--out", str(out), "--bundle-for", "local"]
        command += ["--beside", str(file.absolute())] if file else []
        command += ["--forwarder"] if forwarder else []
        with log.open("ab") as output:
            run = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        if run.returncode:
            raise DeployError(f"the template could not be synthesized (exit status {run.returncode}); {log} says why")
        with contextlib.suppress(OSError):  # another process was first, with the same
            out.rename(folder)
    kept = sorted(folder.parent.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in kept[ASSEMBLIES:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _fingerprint(config: str, beside: str | None = None) -> str:
    """Of all that a synthesis reads: the configuration, what it names, the sources, the locks, the interpreter."""
    digest = hashlib.sha256(f"{sys.version} {config} {beside}".encode())
    sources = [ROOT / "pyproject.toml", ROOT / "README.md", *(ROOT / "requirements").iterdir()]
    for package in ("copier_image", "ecr_relay", "handlers", "stack"):
        sources += (path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix != ".pyc")
    for path in sorted(sources):
        digest.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Assembly:
    """A cloud assembly with one stack in it, as `cdk synth` writes it."""

    folder: Path
    stack_name: str
    template: str
    template_object: str | None
    """`s3://bucket/key`, where CloudFormation reads it: what is passed inline may not be longer than 51,200 bytes. None
    for a stack that uploads nothing, which is passed inline."""
    assets: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Assembly":
        """Raises DeployError when there is not exactly one stack."""
        artifacts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["artifacts"]
        stacks = {
            name: artifact for name, artifact in artifacts.items() if artifact["type"] == "aws:cloudformation:stack"
        }
        if len(stacks) != 1:
            raise DeployError(f"{folder} holds {len(stacks)} stacks; exactly one can be deployed here")
        name, stack = next(iter(stacks.items()))
        assets: dict[str, Any] = {}
        for artifact in artifacts.values():
            if artifact["type"] == "cdk:asset-manifest":
                manifest = json.loads((folder / artifact["properties"]["file"]).read_text(encoding="utf-8"))
                assets |= manifest.get("files", {})
        template = (folder / stack["properties"]["templateFile"]).read_text(encoding="utf-8")
        properties = stack["properties"]
        return cls(
            folder, properties.get("stackName", name), template, properties.get("stackTemplateAssetObjectUrl"), assets
        )

    def resources(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(logical id, type, properties) of all that the template declares."""
        for name, resource in json.loads(self.template)["Resources"].items():
            yield name, resource["Type"], resource.get("Properties", {})


def deploy(assembly: Assembly, clients: Clients) -> dict[str, str]:
    """Create the stack and return its outputs. Raises DeployError with CloudFormation's own reason."""
    _publish(assembly, clients)
    cloudformation = clients("cloudformation")
    template = {"TemplateBody": assembly.template}
    if assembly.template_object:
        path = clients.fill(assembly.template_object).removeprefix("s3://")
        template = {"TemplateURL": f"{clients.endpoint}/{path}"}
    try:
        cloudformation.create_stack(
            **template,
            StackName=assembly.stack_name,
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
            OnFailure="DO_NOTHING",
        )
    except ClientError as error:
        raise DeployError(f"CloudFormation refuses the template: {error}") from None
    try:
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName=assembly.stack_name, WaiterConfig={"Delay": 0.1, "MaxAttempts": DEPLOY_SECONDS * 10}
        )
    except WaiterError:
        raise DeployError(_why(cloudformation, assembly.stack_name)) from None
    physical = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for resource in cloudformation.describe_stack_resources(StackName=assembly.stack_name)["StackResources"]
    }
    for name, kind, properties in assembly.resources():
        if kind in PUT_BACK:
            PUT_BACK[kind](clients, physical[name], properties)
    stack = cloudformation.describe_stacks(StackName=assembly.stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def warm(clients: Clients, function: str) -> None:
    """Start a function without invoking it, so that the first push meets no cold start.

    Raises DeployError with the reason when it cannot be imported.
    """
    url = clients.endpoint + WARM_PATH + function
    answer = urllib3.request("POST", url, retries=False, timeout=DEPLOY_SECONDS)
    if answer.status != 200:
        raise DeployError(f"the function {function} cannot start: {answer.data.decode()}")


def _why(cloudformation: Any, stack: str) -> str:
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
    reasons = "; ".join(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '?')}" for event in failed)
    return f"CloudFormation could not create the stack {stack}: {reasons or 'it gives no reason'}"


def _publish(assembly: Assembly, clients: Clients) -> None:
    """File assets to the bucket that the template reads them from. Image assets need nothing: tasks run the sources."""
    s3 = clients("s3")
    made: set[str] = set()
    for asset in assembly.assets.values():
        source = assembly.folder / asset["source"]["path"]
        content = _zipped(source) if asset["source"].get("packaging") == "zip" else source.read_bytes()
        for destination in asset["destinations"].values():
            bucket, key = (clients.fill(destination[part]) for part in ("bucketName", "objectKey"))
            if bucket not in made:
                location = {} if clients.region == "us-east-1" else {"LocationConstraint": clients.region}
                s3.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": location} if location else {}))
                made.add(bucket)
            s3.put_object(Bucket=bucket, Key=key, Body=content)


def _zipped(source: Path) -> bytes:
    """Not compressed: it goes from this machine to this machine."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(source))
    return packed.getvalue()


# What MiniStack's CloudFormation drops, from the template, by the services' own APIs, which MiniStack does have. Not
# here, because nothing on one machine depends on it: a task's runtime platform, a rule target's dead-letter queue.


def _put_back_function(clients: Clients, name: str, properties: dict[str, Any]) -> None:
    aws_lambda = clients("lambda")
    if "ReservedConcurrentExecutions" in properties:
        aws_lambda.put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=properties["ReservedConcurrentExecutions"]
        )
    if "RecursiveLoop" in properties:
        aws_lambda.put_function_recursion_config(FunctionName=name, RecursiveLoop=properties["RecursiveLoop"])


def _put_back_table(clients: Clients, name: str, properties: dict[str, Any]) -> None:
    dynamodb = clients("dynamodb")
    if "TimeToLiveSpecification" in properties:
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"])
    if "PointInTimeRecoverySpecification" in properties:
        dynamodb.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification=properties["PointInTimeRecoverySpecification"]
        )


PUT_BACK: Final[dict[str, Callable[[Clients, str, dict[str, Any]], None]]] = {
    "AWS::DynamoDB::Table": _put_back_table,
    "AWS::Lambda::Function": _put_back_function,
}
