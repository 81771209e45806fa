"""Pushing the plan's images and moving its tags, at the source itself and past the proxy."""

import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import urllib3
from botocore.exceptions import ClientError

from local import images
from tests.chaos.plan import Image, Move, Plan, Push

WORKERS: Final = 3
LONG_BYTES: Final = 1_500_000
_SKOPEO: Final = ("skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false")


class LoadError(Exception):
    """The source itself did not take what was pushed; the run says nothing about the relay."""


@dataclass(frozen=True, slots=True)
class Told:
    """`tag` was given to `digest` at the source; `at` in seconds since the epoch."""

    at: float
    repository: str
    tag: str
    digest: str
    move: bool


def build(plan: Plan, folder: Path) -> dict[int, images.Made]:
    """The plan's images, by number; those of one repository share two layers."""
    made = {}
    for image in plan.images:
        seed = f"chaos {plan.seed} {image.number}"
        there = folder / str(image.number)
        shared = (f"chaos {plan.seed} {image.repository} 0", f"chaos {plan.seed} {image.repository} 1")
        match image.kind:
            case "single":
                made[image.number] = images.single(there, seed, (20_000, 8_000, 3_000), shared)
            case "long":
                made[image.number] = images.single(there, seed, (20_000, 8_000, LONG_BYTES), shared)
            case "index":
                made[image.number] = images.index(there, seed)
            case "schema2":
                made[image.number] = images.schema2(there, seed)
            case "artifact":
                made[image.number] = images.artifact(there, seed)
    return made


class Load:
    """Threads that do the plan's actions when they are due; those of one repository in their order."""

    def __init__(
        self, plan: Plan, made: dict[int, images.Made], registry: str, ecr: Any, say: Callable[[str, str], None]
    ) -> None:
        self.told: list[Told] = []
        self.unmoved = 0
        """Moves that gave a tag what it had, which is no event."""
        self._plan = plan
        self._made = made
        self._registry = registry
        self._ecr = ecr
        self._say = say
        self._http = urllib3.PoolManager(retries=False, timeout=30, maxsize=WORKERS)
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        began = time.time()
        for number in range(WORKERS):
            mine = [action for action in self._plan.actions if _worker(action.image) == number]
            thread = threading.Thread(target=self._run, args=(mine, began), name=f"load-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def going_on(self) -> bool:
        """Raises LoadError if the source refused something."""
        if self._failed:
            raise LoadError(str(self._failed[0])) from self._failed[0]
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._http.clear()

    def _run(self, actions: Iterable[Push | Move], began: float) -> None:
        try:
            for action in actions:
                if self._over.wait(max(0.0, began + action.at - time.time())):
                    return
                if isinstance(action, Push):
                    self._push(action.image)
                else:
                    self._move(action)
        except (LoadError, ClientError, OSError, subprocess.SubprocessError, urllib3.exceptions.HTTPError) as error:
            self._failed.append(error)

    def _push(self, image: Image) -> None:
        made = self._made[image.number]
        target = f"docker://{self._registry}/{image.repository}:{image.tag}"
        done = subprocess.run([*_SKOPEO, made.source, target], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise LoadError(f"skopeo could not push {image.repository}:{image.tag}: {done.stderr.strip()}")
        if image.broken:
            url = f"http://{self._registry}/v2/{image.repository}/blobs/{made.layers[-1]}"
            answer = self._http.request("DELETE", url)
            if answer.status != 202:
                raise LoadError(f"the source would not lose a layer: {answer.status}")
        self.told.append(Told(time.time(), image.repository, image.tag, made.digest, move=False))
        what = f" ({image.kind})" if image.kind != "single" else " (and a layer of it deleted)" if image.broken else ""
        self._say("push", f"{image.repository}:{image.tag}{what}")

    def _move(self, move: Move) -> None:
        made = self._made[move.image.number]
        at = time.time()
        try:
            self._ecr.put_image(
                repositoryName=move.image.repository,
                imageManifest=made.manifest.decode(),
                imageManifestMediaType=made.media_type,
                imageTag=move.tag,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ImageAlreadyExistsException":
                raise
            self.unmoved += 1
            return
        self.told.append(Told(at, move.image.repository, move.tag, made.digest, move=True))
        self._say("move", f"{move.image.repository}:{move.tag} to {move.image.tag}")


def _worker(image: Image) -> int:
    return zlib.crc32(image.repository.encode()) % WORKERS


def slow_blobs(plan: Plan, made: dict[int, images.Made]) -> dict[str, int]:
    """Digest and size of the layers of `long` images."""
    return {made[image.number].layers[-1]: LONG_BYTES for image in plan.images if image.kind == "long"}


def history(told: Sequence[Told]) -> dict[tuple[str, str], list[Told]]:
    """By repository and tag, in the order of time."""
    found: dict[tuple[str, str], list[Told]] = {}
    for one in sorted(told, key=lambda one: one.at):
        found.setdefault((one.repository, one.tag), []).append(one)
    return found
