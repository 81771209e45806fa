"""The copier's own scheduling and skopeo, against the other ways to copy tags that share layers over a network."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ecr_relay.config import parse
from ecr_relay.copy import PARALLEL, Copier, copy_all
from ecr_relay.ledger import Job, Ledger, Target, WantedTag, now_ms
from ecr_relay.registries.oci import Oci
from ecr_relay.relay import Relay
from ecr_relay.skopeo import Skopeo
from local.images import layer
from tests.bench import tools
from tests.bench.figures import BenchError, Figures, Row, median, seconds, spread, times
from tests.bench.latency import Network
from tests.bench.registry import Client, OciDestination
from tests.fakes.table import FakeTable
from tests.integration.conftest import DockerRegistry

TAGS: Final = 20
SHARED: Final = (4_600_000,) * 6
OWN: Final = (1_200_000,) * 2
"""Sizes of an image's layers: 75.6 MB in all."""
ROUND_TRIP_S: Final = 0.020
UNLIMITED: Final = 1000.0
"""PutImage calls a second that the copier allows itself: docker-registry has no quota, and the others know of none."""
DEFAULT_PUTS: Final = 8.0

RUNS: Final = 3
SHORT_S: Final = 6.0
"""What takes longer than this is measured once."""

_CONFIG: Final = """\
[source]
account = "000000000000"
region = "us-east-1"
[[destinations]]
name = "west"
account = "000000000000"
region = "eu-west-1"
prefix = "{prefix}"
put_image_per_second = {puts}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """`source` and `destination` are hosts behind the network; `there` is the destination, past it."""

    folder: Path
    network: Network
    there: Client
    source: str
    destination: str
    digests: dict[str, str]
    """tag -> digest of the source's repository `app`."""

    @property
    def hosts(self) -> list[str]:
        return [self.source, self.destination]


Contender = Callable[[Scene, str], None]
"""Copies all tags of `app` to `PREFIX/app`."""


def measure(figures: Figures, folder: Path) -> None:
    size = (sum(SHARED) + TAGS * sum(OWN)) / 1e6
    title = (
        f"copier: {TAGS} tags that share {len(SHARED)} of {len(SHARED) + len(OWN)} layers, {size:.1f} MB, "
        f"{ROUND_TRIP_S * 1000:.0f} ms round trip to each registry; MB read and written"
    )
    with figures.section(title) as rows, _scene(folder) as scene:
        first = 0.0
        for name, contender in _contenders():
            took, moved = _timed(scene, f"p{len(rows)}", contender)
            first = first or median(took)
            bytes_ = f"{moved[0] / 1e6:.1f} / {moved[1] / 1e6:.1f}"
            rows.append(Row(name, seconds(median(took)), times(median(took), first), f"{bytes_:>13}  {spread(took)}"))


def _contenders() -> Iterator[tuple[str, Contender]]:
    skopeos = tools.skopeos()
    for name, path in skopeos.items():
        yield f"ecr-relay, {name}", partial(_relay, path, copy_all, UNLIMITED)
    path = next(iter(skopeos.values()))
    yield f"the same at {DEFAULT_PUTS:g} PutImage a second", partial(_relay, path, copy_all, DEFAULT_PUTS)
    yield f"the same, {PARALLEL} at once from the first on", partial(_relay, path, _all_at_once, UNLIMITED)
    for name, path in skopeos.items():
        yield f"{name} sync", partial(_sync, path)
        yield f"{name} copy, one after another", partial(_each, tools.skopeo_copy, path)
    if crane := shutil.which("crane"):
        yield "crane copy -a -j 4", partial(_whole, tools.crane_copy, crane)
    if regsync := shutil.which("regsync"):
        yield "regsync once, 4 at once", partial(_whole, tools.regsync_once, regsync)
    if regctl := shutil.which("regctl"):
        yield "regctl image copy, one after another", partial(_each, tools.regctl_copy, regctl)


def _timed(scene: Scene, prefix: str, contender: Contender) -> tuple[list[float], tuple[int, int]]:
    """How long each run took, and the bytes that the last one read from the source and wrote to the destination."""
    took: list[float] = []
    while not took or (len(took) < RUNS and took[0] < SHORT_S):
        where = f"{prefix}-{len(took)}"
        before = scene.network.moved()
        began = time.monotonic()
        contender(scene, where)
        took.append(time.monotonic() - began)
        after = scene.network.moved()
        wrong = [tag for tag, digest in scene.digests.items() if scene.there.digest(f"{where}/app", tag) != digest]
        if wrong:
            raise BenchError(f"not copied with their digests: {', '.join(wrong)}")
    return took, (after[0][1] - before[0][1], after[1][0] - before[1][0])


@contextlib.contextmanager
def _scene(folder: Path) -> Iterator[Scene]:
    if shutil.which("docker-registry") is None:
        raise BenchError("docker-registry is not on PATH: apt-get install docker-registry")
    with contextlib.ExitStack() as stack:
        registries = []
        for name in ("source", "destination"):
            registry = DockerRegistry(folder / name)
            stack.callback(registry.stop)
            registry.start()
            registries.append(registry)
        here, there = (Client(registry.host) for registry in registries)
        digests = _fill(here)
        ports = [int(registry.host.rpartition(":")[2]) for registry in registries]
        network = stack.enter_context(Network(ports, ROUND_TRIP_S, folder / "network.log"))
        source, destination = (f"127.0.0.1:{port}" for port in network.ports)
        yield Scene(folder, network, there, source, destination, digests)


def _fill(client: Client) -> dict[str, str]:
    shared = [client.layer("app", layer(f"shared {number}", size)) for number, size in enumerate(SHARED)]
    digests = {}
    for tag in (f"1.{number}" for number in range(TAGS)):
        own = [client.layer("app", layer(f"{tag} {number}", size)) for number, size in enumerate(OWN)]
        digests[tag] = client.put("app", tag, client.image("app", tag, [*shared, *own]))
    return digests


# The contenders ---------------------------------------------------------------------------------------------------


def _relay(
    skopeo: str, schedule: Callable[[Copier, tuple[Job, ...]], None], puts: float, scene: Scene, at: str
) -> None:
    """What a task does between `begin` and `end`; its ledger is in memory, where DynamoDB answers in milliseconds."""
    config = parse(_CONFIG.format(prefix=at, puts=puts))
    ledger = Ledger(FakeTable())  # type: ignore[arg-type] # as strict as DynamoDB, says its test
    relay = Relay(config, ledger)
    relay.source = Oci(scene.source, scheme="http")
    (destination,) = config.destinations
    relay._destinations[destination.name] = OciDestination(scene.destination)
    jobs = [
        Job(repository="app", digest=digest, tags=(WantedTag(name=tag, seen_at=now_ms()),))
        for tag, digest in scene.digests.items()
    ]
    run = ledger.runs.put("run", config.source.id, destination.name, "push", jobs)
    for job in jobs:
        target = Target(config.source.id, destination.name, job.repository)
        ledger.digests.claim(ledger.digests.get(target, job.digest), run.id, now_ms())
    with _home(tools.home(scene.folder / at, scene.hosts)):
        copier = Copier(relay, run, destination, Skopeo(scene.folder / at / "task", executable=skopeo))
        schedule(copier, run.jobs)


def _all_at_once(copier: Copier, jobs: tuple[Job, ...]) -> None:
    """What `copy_all` would be if no image waited for the first of its repository."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(copier.copy, jobs))


@contextlib.contextmanager
def _home(environment: dict[str, str]) -> Iterator[None]:
    before = os.environ.get("HOME")
    os.environ["HOME"] = environment["HOME"]
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before


def _sync(skopeo: str, scene: Scene, at: str) -> None:
    environment = tools.home(scene.folder / at, scene.hosts)
    tools.skopeo_sync(skopeo, f"{scene.source}/app", f"{scene.destination}/{at}", environment)


def _whole(copy: Callable[[str, str, str, dict[str, str]], None], program: str, scene: Scene, at: str) -> None:
    environment = tools.home(scene.folder / at, scene.hosts)
    copy(program, f"{scene.source}/app", f"{scene.destination}/{at}/app", environment)


def _each(copy: Callable[[str, str, str, dict[str, str]], None], program: str, scene: Scene, at: str) -> None:
    environment = tools.home(scene.folder / at, scene.hosts)
    for tag in scene.digests:
        copy(program, f"{scene.source}/app:{tag}", f"{scene.destination}/{at}/app:{tag}", environment)
