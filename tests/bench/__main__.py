"""`make bench`: how fast, as ratios within one run; nothing is asserted.

Copying 20 tags that share 6 of their 8 layers from one docker-registry to another: the copier's way (the first of a
repository, then its siblings at once, one blob-info cache), against what an operator would write with skopeo, and
against crane and regctl where they are on PATH. On loopback, without latency: what a real network adds is not in it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from ecr_relay.copy import PARALLEL
from ecr_relay.skopeo import Skopeo
from local import images
from tests.integration.conftest import DockerRegistry, allow_plain_http

TAGS: Final = 20
LAYER: Final = 600_000
PLAIN: Final = ("--src-tls-verify=false", "--dest-tls-verify=false")


def main() -> int:
    missing = [name for name in ("skopeo", "docker-registry") if shutil.which(name) is None]
    if missing:
        print(f"bench: {' and '.join(missing)} not on PATH; `make test` installs them, or says how", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["HOME"] = folder
        source = DockerRegistry(home / "source")
        source.start()
        try:
            digests = push(source, home)
            results = {name: timed(home, source, way, digests) for name, way in ways(source, digests, home).items()}
        finally:
            source.stop()
    ours = results["the copier"]
    print(f"{TAGS} tags, 6 of 8 layers shared, {LAYER:,} bytes each; load {os.getloadavg()[0]:.1f}\n")
    for name, seconds in sorted(results.items(), key=lambda entry: entry[1]):
        print(f"{name:<28} {seconds:7.2f} s  {seconds / ours:5.2f} x the copier's")
    return 0


def push(source: DockerRegistry, home: Path) -> list[str]:
    """Images into the source; their digests, in the order of their tags 0, 1, …"""
    allow_plain_http(home, [source.host])
    digests = []
    for number in range(TAGS):
        shared = tuple(f"shared/{layer}" for layer in range(6))
        made = images.single(home / f"image{number}", f"image{number}", (LAYER,) * 8, shared)
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", made.source, f"docker://{source.host}/app:{number}")
        digests.append(made.digest)
    return digests


Way = Callable[[str], None]
"""Copies all tags to the registry at this host."""


def ways(source: DockerRegistry, digests: list[str], home: Path) -> dict[str, Way]:
    here = source.host

    def copier(host: str) -> None:
        skopeo = Skopeo(home / f"work-{host.rpartition(':')[2]}")

        def one(digest: str) -> None:
            skopeo.copy(f"{here}/app", digest, f"{host}/app")

        with ThreadPoolExecutor(PARALLEL) as pool:
            wait([pool.submit(one, digests[0])])
            for future in [pool.submit(one, digest) for digest in digests[1:]]:
                future.result()

    def sequential(host: str) -> None:
        for number in range(TAGS):
            run(
                "skopeo",
                "copy",
                "-q",
                "--all",
                *PLAIN,
                f"docker://{here}/app:{number}",
                f"docker://{host}/app:{number}",
            )

    def sync(host: str) -> None:
        run("skopeo", "sync", "--all", "--src", "docker", "--dest", "docker", *PLAIN, f"{here}/app", host)

    found: dict[str, Way] = {"the copier": copier, "skopeo copy, one by one": sequential, "skopeo sync": sync}
    if shutil.which("crane"):
        found["crane copy -a"] = lambda host: run("crane", "copy", "--insecure", "-a", f"{here}/app", f"{host}/app")
    return found


def timed(home: Path, source: DockerRegistry, way: Way, digests: list[str]) -> float:
    """Into an empty registry; all digests are there afterwards, or the figure would be of something else."""
    destination = DockerRegistry(home / f"destination{time.monotonic_ns()}")
    destination.start()
    try:
        allow_plain_http(home, [source.host, destination.host])
        began = time.monotonic()
        way(destination.host)
        took = time.monotonic() - began
        for digest in digests:
            answer = destination.pool.request(
                "HEAD", f"http://{destination.host}/v2/app/manifests/{digest}", headers={"Accept": images.OCI_MANIFEST}
            )
            if answer.status != 200:
                raise SystemExit(f"bench: {digest} did not arrive: {answer.status}")
        return took
    finally:
        destination.stop()


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
