"""The other clients: what they are called with, each in a home of its own so that none knows what another learned."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.bench.figures import BenchError
from tests.integration.conftest import allow_plain_http

OTHER_SKOPEO: Final = "ECR_RELAY_BENCH_SKOPEO"
"""Names another skopeo, a newer one say, that is measured, too."""

_COPY: Final = ("copy", "--quiet", "--all", "--preserve-digests")
_LIMIT_S: Final = 170


def skopeos() -> dict[str, str]:
    """name -> executable. Raises BenchError when there is none."""
    found = {"": shutil.which("skopeo") or ""}
    if other := os.environ.get(OTHER_SKOPEO):
        found["other "] = shutil.which(other) or ""
    for name, path in found.items():
        if not path:
            what = f"{OTHER_SKOPEO} names no program" if name else "skopeo is not on PATH; `make bench` installs it"
            raise BenchError(what)
    return {f"{name}skopeo {_version(path)}": path for name, path in found.items()}


def _version(path: str) -> str:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    return answer.split()[2] if len(answer.split()) > 2 else "of an unknown version"


def home(folder: Path, hosts: Iterable[str], auths: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment whose HOME is new, speaks plain HTTP to `hosts`, and has no blob-info cache yet.

    `auths`: host -> base64 of user:password.
    """
    folder.mkdir(parents=True)
    allow_plain_http(folder, list(hosts))
    docker = folder / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text(
        json.dumps({"auths": {host: {"auth": it} for host, it in (auths or {}).items()}})
    )
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "REGISTRY_AUTH_FILE": str(docker / "config.json"),
        # As `ecr_relay.skopeo` does: the cache is the user's, also where that is root.
        "XDG_DATA_HOME": str(folder),
        "_CONTAINERS_ROOTLESS_UID": "65534",
    }


def run(command: list[str], environment: Mapping[str, str]) -> str:
    """Its output. Raises BenchError with what it said when it fails."""
    name = " ".join([Path(command[0]).name, *command[1:2]])
    try:
        ran = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} did not end within {_LIMIT_S} s") from None
    if ran.returncode:
        raise BenchError(f"{name} ended with exit status {ran.returncode}: {ran.stderr.strip()[-600:]}")
    return ran.stdout


def skopeo_sync(skopeo: str, source: str, destination: str, environment: Mapping[str, str]) -> None:
    """`host/path/name` to `host/path`, where `name` is made: all tags."""
    options = ["--all", "--preserve-digests", "--src", "docker", "--dest", "docker"]
    run([skopeo, "sync", *options, source, destination], environment)


def skopeo_copy(skopeo: str, source: str, destination: str, environment: Mapping[str, str]) -> None:
    run([skopeo, *_COPY, f"docker://{source}", f"docker://{destination}"], environment)


def crane_copy(crane: str, source: str, destination: str, environment: Mapping[str, str]) -> None:
    """All tags, four at once."""
    run([crane, "copy", "--all-tags", "--jobs", "4", source, destination], environment)


def regctl_copy(regctl: str, source: str, destination: str, environment: Mapping[str, str]) -> None:
    plain = [f"--host=reg={host},tls=disabled" for host in {source.partition("/")[0], destination.partition("/")[0]}]
    run([regctl, *plain, "image", "copy", source, destination], environment)


def regsync_once(regsync: str, source: str, destination: str, environment: Mapping[str, str]) -> None:
    """All tags, four at once. It reads logins from docker's configuration, too."""
    hosts = [source.partition("/")[0], destination.partition("/")[0]]
    configuration = {
        "version": 1,
        "creds": [{"registry": host, "tls": "disabled"} for host in hosts],
        "defaults": {"parallel": 4},
        "sync": [{"source": source, "target": destination, "type": "repository"}],
    }
    path = Path(environment["HOME"]) / "regsync.yml"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    run([regsync, "once", "--config", str(path)], environment)
