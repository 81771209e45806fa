"""`make demo`: the whole relay on this machine, on real images, shown as it happens.

Exit status 0 only if every image is at the destination with its digest, and everything else went as it should.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3

from local import images
from local.deploy import ROOT, DeployError
from local.servers import LocalError
from local.up import LocalCloud, local_cloud
from local.watch import Watch, short

ARRIVAL_S: Final = 90.0
GIVING_UP_S: Final = 180.0
"""Three attempts with their backoffs take about 45 s; a busy machine may take longer."""
WIDTH: Final = 100


class Unexpected(Exception):
    """Something did not go as it should; the message says what."""


@dataclass(slots=True)
class Row:
    """One line of the closing table."""

    image: str
    source: str
    destination: str = ""
    seconds: float | None = None
    note: str = ""


class Demo:
    def __init__(self, cloud: LocalCloud, watch: Watch, folder: Path, state: Path) -> None:
        self.cloud = cloud
        self.watch = watch
        self.folder = folder
        self.state = state
        self.source = cloud.endpoints.source_registry
        (self.destination,) = cloud.endpoints.destination_registries.values()
        self.rows: list[Row] = []
        self.began = time.monotonic()
        self._http = urllib3.PoolManager(retries=False)

    def say(self, kind: str, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {kind:<9} {text}"[:WIDTH], flush=True)

    def step(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def run(self) -> None:
        """Raises Unexpected."""
        broken = self.break_one()
        self.arrive()
        self.push_again()
        self.retag()
        self.heal()
        self.dead_letter(broken)

    def arrive(self) -> None:
        self.step("Pushing a single image, three tags that share layers, an index with attestations, a Docker schema 2")
        print("image and a Helm chart. Nothing else is called: the pushes' events do it all.", flush=True)
        base = ("base/0", "base/1")
        made = {
            "shop/web:1.0": images.single(self.folder / "web", "web"),
            "shop/api:1.0": images.single(self.folder / "api1", "api1", (400_000, 200_000, 3000), base),
            "shop/api:1.1": images.single(self.folder / "api2", "api2", (400_000, 200_000, 3000), base),
            "shop/api:1.2": images.single(self.folder / "api3", "api3", (400_000, 200_000, 3000), base),
            "shop/multi:1.0": images.index(self.folder / "multi", "multi"),
            "shop/legacy:1.0": images.schema2(self.folder / "legacy", "legacy"),
            "charts/shop:0.1.0": images.artifact(self.folder / "chart", "chart"),
        }
        pushed = {}
        for image, one in made.items():
            self.push(one.source, image)
            pushed[image] = time.monotonic()
        for image, one in made.items():
            self.await_arrival(image, one.digest, pushed[image])

    def push_again(self) -> None:
        self.step("Pushing shop/web:1.0 again: it is there, so nothing is started.")
        tasks, skipped = self.watch.counts["task"], self.watch.counts["skipped"]
        self.push(f"oci:{self.folder / 'web'}:it", "shop/web:1.0")
        self.until("the second push is skipped", lambda: self.watch.counts["skipped"] > skipped)
        self.expect(self.watch.counts["task"] == tasks, "a task was started for an image that was there")

    def retag(self) -> None:
        self.step("Tagging shop/web:1.0 as stable: the digest is there, so a few API calls do it, and no task.")
        tasks = self.watch.counts["task"]
        digest = self.digest(self.source, "shop/web", "1.0")
        self.push(f"docker://{self.source}/shop/web:1.0", "shop/web:stable")
        self.await_arrival("shop/web:stable", digest, time.monotonic(), "retag, no task")
        self.expect(self.watch.counts["task"] == tasks, "a task was started for a tag on a digest that was there")

    def break_one(self) -> images.Made:
        self.step(
            "Pushing shop/broken:1.0 and taking a layer away from the source: three attempts, then a dead letter."
        )
        made = images.single(self.folder / "broken", "broken")
        self.push(made.source, "shop/broken:1.0")
        answer = self._http.request("DELETE", f"http://{self.source}/v2/shop/broken/blobs/{made.layers[0]}")
        self.expect(answer.status == 202, f"the source would not lose the layer: {answer.status}")
        return made

    def dead_letter(self, broken: images.Made) -> None:
        self.step("The broken image is in the dead-letter queue by now, or soon. `ecr-relay dlq list` says why:")
        sqs = self.cloud.clients("sqs")
        name = "ApproximateNumberOfMessages"

        def dead() -> bool:
            answer = sqs.get_queue_attributes(QueueUrl=self.cloud.endpoints.dlq_url, AttributeNames=[name])
            return int(answer["Attributes"][name]) == 1

        self.until("the broken image is a dead letter", dead, GIVING_UP_S)
        listing = self.relay("dlq", "list")
        print(listing, flush=True)
        self.expect("shop/broken" in listing, "`ecr-relay dlq list` does not name shop/broken")
        self.expect(self.digest(self.destination, "shop/broken", "1.0") == "", "the broken image arrived")
        self.rows.append(Row("shop/broken:1.0", broken.digest, note="dead letter, as it should be"))

    def heal(self) -> None:
        self.step("Deleting charts/shop at the destination; `ecr-relay sync` finds and heals it.")
        digest = self.digest(self.source, "charts/shop", "0.1.0")
        (destination,) = self.cloud.config.destinations
        ecr = self.cloud.clients("ecr", destination.region)
        ecr.batch_delete_image(repositoryName="charts/shop", imageIds=[{"imageDigest": digest}])
        self.expect(self.digest(self.destination, "charts/shop", "0.1.0") == "", "it was not deleted")
        began = time.monotonic()
        self.relay("sync", "--repository", "charts/*")
        self.await_arrival("charts/shop:0.1.0", digest, began, "healed by the reconcile")

    def await_arrival(self, image: str, digest: str, since: float, note: str = "") -> None:
        repository, tag = image.rsplit(":", 1)
        self.until(f"{image} is at the destination", lambda: self.digest(self.destination, repository, tag) == digest)
        self.rows.append(Row(image, digest, digest, time.monotonic() - since, note))

    def digest(self, registry: str, repository: str, tag: str) -> str:
        """Of the manifest's bytes as the registry serves them, by a client that is not the relay's; "" if none."""
        answer = self._http.request(
            "GET", f"http://{registry}/v2/{repository}/manifests/{tag}", headers={"Accept": "*/*"}
        )
        return images.digest_of(answer.data) if answer.status == 200 else ""

    def push(self, source: str, image: str) -> None:
        target = f"docker://{self.source}/{image}"
        plain = ["--src-tls-verify=false"] if source.startswith("docker:") else []
        command = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", *plain, "--dest-tls-verify=false"]
        done = subprocess.run([*command, source, target], capture_output=True, text=True, check=False)
        self.expect(done.returncode == 0, f"skopeo could not push {image}: {done.stderr.strip()}")
        self.say("push", image)

    def relay(self, *arguments: str) -> str:
        """The command line, as an operator uses it."""
        self.say("operator", "ecr-relay " + " ".join(arguments))
        command = [str(ROOT / ".venv" / "bin" / "ecr-relay"), *arguments, "--state", str(self.state)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.expect(done.returncode == 0, f"ecr-relay {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.rstrip()

    def until(self, what: str, holds: Callable[[], bool], seconds: float = ARRIVAL_S) -> None:
        ends = time.monotonic() + seconds
        while not holds():
            self.expect(time.monotonic() < ends, f"after {seconds:.0f} s it is not so that {what}")
            self.cloud.check()
            time.sleep(0.1)

    @staticmethod
    def expect(holds: bool, otherwise: str) -> None:
        if not holds:
            raise Unexpected(otherwise)

    def table(self) -> bool:
        """Read both sides once more, and print them; whether all digests are right."""
        print(f"\n{'image':<20} {'source':<13} {'destination':<13} {'push to arrival':>15}  ")
        right = True
        for row in self.rows:
            repository, tag = row.image.rsplit(":", 1)
            source, there = (self.digest(registry, repository, tag) for registry in (self.source, self.destination))
            right &= (source, there) == (row.source, row.destination)
            took = "" if row.seconds is None else f"{row.seconds:.1f} s"
            print(f"{row.image:<20} {short(source):<13} {short(there) or '-':<13} {took:>15}  {row.note}")
        return right


def main() -> int:
    if shutil.which("skopeo") is None:
        print("demo: skopeo is not on PATH; `make demo` installs it, or says how", file=sys.stderr)
        return 1
    began = time.monotonic()
    print("Starting the local cloud: the template of `make synth` on MiniStack, two registries, no AWS.", flush=True)
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="demo-", dir=ROOT / "build") as folder:
        state = Path(folder, "state")
        try:
            with local_cloud(
                state, say=lambda text: print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)
            ) as cloud:
                lines: list[Demo] = []
                with Watch(cloud, lambda kind, text: lines[0].say(kind, text) if lines else None) as watch:
                    demo = Demo(cloud, watch, Path(folder, "images"), state)
                    demo.began = began
                    lines.append(demo)
                    demo.run()
                right = demo.table()
        except (Unexpected, LocalError, DeployError) as error:
            print(f"\ndemo: {error}", file=sys.stderr)
            return 1
    print("\nEvery digest is right." if right else "\nA digest is wrong.", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
