"""`ecr-relay local up` as an operator has it: a process of its own, found by its ready line."""

import base64
import contextlib
import json
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ecr_relay.config import parse
from ecr_relay.registries import Login
from local.deploy import ROOT, Clients
from local.up import DEFAULT_CONFIG, Endpoints
from tests.bench.figures import BenchError
from tests.bench.registry import Client

DESTINATION_REGION: Final = "eu-west-1"
_READY_S: Final = 120.0
_END_S: Final = 30.0


class Cloud:
    """A running one. `source` takes anybody's pushes; `there` is logged in at the destination with a token of ECR's."""

    def __init__(self, endpoints: Endpoints, ready_s: float) -> None:
        self.endpoints = endpoints
        self.ready_s = ready_s
        """From the command to its ready line."""
        self.config = parse(DEFAULT_CONFIG)
        self.clients = Clients(endpoints.aws_endpoint_url, endpoints.account_id, endpoints.region)
        self.ecr_there: Any = self.clients("ecr", DESTINATION_REGION)
        answer = self.ecr_there.get_authorization_token()["authorizationData"][0]
        token: str = answer["authorizationToken"]
        user, _, password = base64.b64decode(token).decode().partition(":")
        (host,) = endpoints.destination_registries.values()
        self.source = Client(endpoints.source_registry)
        self.there = Client(host, Login(user, password))
        self.auths = {host: token}

    def logged(self, message: str, repository: str) -> list[dict[str, Any]]:
        """The consumer's lines of that kind about a repository."""
        log = Path(self.endpoints.log_dir) / f"lambda-{self.endpoints.consumer_function}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        found = [json.loads(line) for line in lines if f'"{repository}"' in line and line.endswith("}")]
        return [line for line in found if line["message"] == message]

    def tasks(self, status: str) -> set[str]:
        """ARNs of the tasks that ECS lists as RUNNING (pending ones included) or STOPPED."""
        pages = self.clients("ecs").get_paginator("list_tasks")
        listed = pages.paginate(cluster=self.endpoints.cluster, desiredStatus=status)
        return {arn for page in listed for arn in page["taskArns"]}


def until(holds: Callable[[], Any], what: str, limit_s: float = 90.0, period_s: float = 0.02) -> None:
    """Raises BenchError when it does not come true in time."""
    ends = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > ends:
            raise BenchError(f"after {limit_s:.0f} s it is not so that {what}")
        time.sleep(period_s)


def config(folder: Path) -> Path:
    """The default configuration with a comment that no other run has: its template was never synthesized."""
    path = folder / "relay.toml"
    path.write_text(f"{DEFAULT_CONFIG}# {time.time_ns()}\n", encoding="utf-8")
    return path


@contextlib.contextmanager
def up(state: Path, config: Path) -> Iterator[Cloud]:
    """Raises BenchError with what it said when it does not get ready."""
    command = [str(Path(sys.executable).parent / "ecr-relay"), "local", "up", "--state", str(state)]
    if setpriv := shutil.which("setpriv"):  # util-linux: it ends, in order, even if we are killed
        command = [setpriv, "--pdeathsig", "TERM", "--", *command]
    said = state.with_suffix(".stderr")
    began = time.monotonic()
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--config", str(config)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        stdout = process.stdout
        line = stdout.readline() if stdout and select.select([stdout], [], [], _READY_S)[0] else ""
        if not line:
            raise BenchError(f"`ecr-relay local up` did not get ready: {said.read_text().strip()[-600:]}")
        yield Cloud(Endpoints(**json.loads(line)), time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its servers end with it
            process.communicate()
