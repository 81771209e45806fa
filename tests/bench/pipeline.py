"""The whole relay on the local cloud: from a push to the image's arrival, and what nothing having changed costs."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from local import deploy
from local.images import OCI_CONFIG, layer
from local.servers import MINISTACK
from tests.bench import tools
from tests.bench.cloud import Cloud, config, until, up
from tests.bench.figures import BenchError, Figures, Row, median, seconds, spread, times
from tests.bench.registry import Client, manifest

RUNS: Final = 7
AT_ONCE: Final = 60
PER_REPOSITORY: Final = 5
EQUAL: Final = 1000
FEW: Final = 20
"""Tags that skopeo sync is measured on, where the reconcile has EQUAL."""
LAYERS: Final = (20_000, 50_000)


def measure(figures: Figures, folder: Path) -> None:
    if not MINISTACK.exists():
        raise BenchError(f"{MINISTACK} is missing; `make bench` sets it up")
    file = config(folder)
    try:
        with figures.section("ecr-relay local up, from the command to its ready line") as rows:
            with up(folder / "cold", file) as cloud:
                cold = cloud.ready_s
            with up(folder / "warm", file) as cloud:
                warm = cloud.ready_s
                rows.append(Row("template synthesized before", seconds(warm), "x 1.00", "1 run"))
                rows.append(Row("template never synthesized", seconds(cold), times(cold, warm), "1 run"))
                with figures.section("pipeline: from the answer to the push until the other side has it") as more:
                    _pushes(more, cloud, folder)
                with figures.section("unchanged: nothing differs between the two sides") as more:
                    _unchanged(more, cloud, folder)
    finally:
        text = file.read_text(encoding="utf-8")
        shutil.rmtree(deploy.ROOT / "build" / "local" / f"assembly-{deploy._fingerprint(text)}", ignore_errors=True)


def _image(client: Client, repository: str, name: str) -> bytes:
    """Its blobs are uploaded; its manifest is the caller's to put."""
    layers = [
        client.layer(repository, layer(f"{repository} {name} {number}", size)) for number, size in enumerate(LAYERS)
    ]
    return client.image(repository, name, layers)


def _arrival(cloud: Cloud, repository: str, tag: str, content: bytes) -> float:
    """Push, wait, and say how long after the push's answer it was there."""
    digest = cloud.source.put(repository, tag, content)
    began = time.monotonic()
    until(lambda: cloud.there.digest(repository, tag) == digest, f"{repository}:{tag} is at the destination")
    return time.monotonic() - began


def _pushes(rows: list[Row], cloud: Cloud, folder: Path) -> None:
    contents = {f"single/app{number}": _image(cloud.source, f"single/app{number}", "1") for number in range(RUNS)}
    single = [_arrival(cloud, repository, "1", content) for repository, content in contents.items()]
    base = median(single)
    rows.append(Row("a new image, p50", seconds(base), "x 1.00", spread(single)))
    by_hand = [_by_hand(cloud, folder, repository) for repository in contents]
    took = median(by_hand)
    rows.append(Row("the same by `skopeo copy`, p50", seconds(took), times(took, base), spread(by_hand)))
    before = cloud.tasks("RUNNING") | cloud.tasks("STOPPED")
    retags = [_arrival(cloud, repository, "2", content) for repository, content in contents.items()]
    rows.append(Row("a new tag on it, p50", seconds(median(retags)), times(median(retags), base), spread(retags)))
    skips = [_skip(cloud, repository, content) for repository, content in contents.items()]
    rows.append(
        Row("the same push again, skipped, p50", seconds(median(skips)), times(median(skips), base), spread(skips))
    )
    started = len((cloud.tasks("RUNNING") | cloud.tasks("STOPPED")) - before)
    rows.append(Row("tasks for all retags and skips", str(started)))
    _at_once(rows, cloud, base, took)


def _by_hand(cloud: Cloud, folder: Path, repository: str) -> float:
    """What an operator who knew of the push would do: one skopeo, from one registry to the other."""
    name = f"by-hand/{repository}"
    cloud.ecr_there.create_repository(repositoryName=name)
    hosts = [cloud.source.host, cloud.there.host]
    environment = tools.home(folder / name, hosts, cloud.auths)
    skopeo = next(iter(tools.skopeos().values()))
    began = time.monotonic()
    tools.skopeo_copy(skopeo, f"{hosts[0]}/{repository}:1", f"{hosts[1]}/{name}:1", environment)
    return time.monotonic() - began


def _skip(cloud: Cloud, repository: str, content: bytes) -> float:
    """Until the consumer says so, by the time in its log."""
    before = len(cloud.logged("skipped", repository))
    cloud.source.put(repository, "1", content)
    began = time.time()
    until(lambda: len(cloud.logged("skipped", repository)) > before, f"a push of {repository} is skipped")
    said = str(cloud.logged("skipped", repository)[-1]["timestamp"])
    return datetime.fromisoformat(said.replace(",", ".")).timestamp() - began


def _at_once(rows: list[Row], cloud: Cloud, single: float, by_hand: float) -> None:
    images = [(f"many/app{number // PER_REPOSITORY}", f"1.{number % PER_REPOSITORY}") for number in range(AT_ONCE)]
    contents = {image: _image(cloud.source, *image) for image in images}

    def push(image: tuple[str, str]) -> str:
        repository, tag = image
        return cloud.source.put(repository, tag, contents[image])

    before = cloud.tasks("STOPPED") | cloud.tasks("RUNNING")
    counter = _Counter(cloud)
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(8) as pool:
            digests = list(pool.map(push, images))
        pushed = time.monotonic() - began
        for image, digest in zip(images, digests, strict=True):
            until(lambda image=image, digest=digest: cloud.there.digest(*image) == digest, f"{image} has arrived")  # type: ignore[misc]
        took = time.monotonic() - began
    finally:
        counter.stop()
    tasks = len((cloud.tasks("STOPPED") | cloud.tasks("RUNNING")) - before)
    note = f"pushed within {seconds(pushed)}; {tasks} tasks, {counter.most} at once at the most; 1 run"
    # By digest, and then its tag: two calls of PutImage each, of which the copiers keep to so many a second.
    puts = cloud.config.destinations[0].put_image_per_second
    note += f"; {puts:g} PutImage a second alone take {seconds((2 * AT_ONCE - puts) / puts)}"
    rows.append(Row(f"{AT_ONCE} new images at once, all there", seconds(took), times(took, single), note))
    rows.append(
        Row(
            f"{AT_ONCE} `skopeo copy` one after another",
            seconds(AT_ONCE * by_hand),
            times(AT_ONCE * by_hand, single),
            "extrapolated from the one above",
        )
    )


class _Counter:
    """How many tasks ECS lists as running, looked at ten times a second."""

    def __init__(self, cloud: Cloud) -> None:
        self.most = 0
        self._cloud = cloud
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="counter", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, len(self._cloud.tasks("RUNNING")))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def _unchanged(rows: list[Row], cloud: Cloud, folder: Path) -> None:
    events = cloud.clients("events")
    for rule in events.list_rules()["Rules"]:  # no event of what follows: both sides are filled by us
        if "aws.ecr" in rule.get("EventPattern", ""):
            events.disable_rule(Name=rule["Name"])
    for repository, count in (("equal/thousand", EQUAL), ("equal/few", FEW)):
        cloud.ecr_there.create_repository(repositoryName=repository)
        with ThreadPoolExecutor(4) as pool:
            for client in (cloud.source, cloud.there):
                _fill(client, repository, count, pool)
    cold = _reconcile(cloud, "equal/thousand", EQUAL)
    runs = [_reconcile(cloud, "equal/thousand", EQUAL) for _ in range(3)]
    base = median(runs)
    rows.append(Row(f"reconcile of {EQUAL} tags", seconds(base), "x 1.00", spread(runs)))
    rows.append(Row("the first, with the function's cold start", seconds(cold), times(cold, base), "1 run"))
    hosts = [cloud.source.host, cloud.there.host]
    for number, (name, path) in enumerate(tools.skopeos().items()):
        environment = tools.home(folder / f"sync{number}", hosts, cloud.auths)
        began = time.monotonic()
        tools.skopeo_sync(path, f"{hosts[0]}/equal/few", f"{hosts[1]}/equal", environment)
        took = (time.monotonic() - began) * EQUAL / FEW
        rows.append(Row(f"{name} sync of as many", seconds(took), times(took, base), f"extrapolated from {FEW} tags"))
    if regsync := shutil.which("regsync"):
        environment = tools.home(folder / "regsync", hosts, cloud.auths)
        began = time.monotonic()
        tools.regsync_once(regsync, f"{hosts[0]}/equal/thousand", f"{hosts[1]}/equal/thousand", environment)
        took = time.monotonic() - began
        rows.append(Row("regsync once of as many, 4 at once", seconds(took), times(took, base), "1 run"))


def _fill(client: Client, repository: str, count: int, pool: ThreadPoolExecutor) -> None:
    """So many images with a tag each, that differ in an annotation."""
    layers = [client.layer(repository, layer(repository, 2000))]
    about = client.blob(repository, json.dumps({"architecture": "amd64", "os": "linux"}).encode(), OCI_CONFIG)

    def put(number: int) -> None:
        client.put(repository, f"1.{number}", manifest(about, layers, number=str(number)))

    list(pool.map(put, range(count)))


def _reconcile(cloud: Cloud, repository: str, images: int) -> float:
    """Seconds of one invocation that compares this repository. Raises BenchError if it found anything to do."""
    payload = json.dumps({"action": "start", "repositories": [repository]})
    began = time.monotonic()
    answer = cloud.clients("lambda").invoke(FunctionName=cloud.endpoints.reconcile_function, Payload=payload)
    content: dict[str, Any] = json.loads(answer["Payload"].read())
    took = time.monotonic() - began
    counts = content.get("counts", {})
    if content.get("status") != "done" or (counts.get("images"), counts.get("enqueued")) != (images, 0):
        raise BenchError(f"the reconcile of {repository} did not find {images} equal images: {content}")
    return took
