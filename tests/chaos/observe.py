"""Looking at a running relay from outside, past the proxy: queue, tasks, slots, both registries."""

import json
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
import urllib3

from ecr_relay.ledger import DigestRecord, Ledger, Run, Slot, Target
from local import images
from local.deploy import ROOT, Clients
from local.up import LocalCloud
from tests.chaos.evidence import Interval

SAMPLE_S: Final = 0.5
QUIET_SAMPLES: Final = 6
"""So many looks in a row must find nothing to do: a message on its way from one queue to the other is in none."""
_ACCEPT: Final = {"Accept": ", ".join([images.OCI_INDEX, images.OCI_MANIFEST, images.DOCKER_MANIFEST])}
_DEPTHS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True, slots=True)
class Difference:
    repository: str
    tag: str
    source: str
    there: str | None

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag} is {self.source[:19]} at the source and {str(self.there)[:19]} there"


class Observer:
    """`most` is the greatest number of tasks that ECS listed at once."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self.most = 0
        self.deepest = 0
        self._seen: set[str] = set()
        (self.destination,) = cloud.config.destinations
        self.there: Clients = cloud.servers.at((self.destination.account, self.destination.region))
        session = boto3.Session(
            aws_access_key_id=cloud.clients.account, aws_secret_access_key="local", region_name=cloud.clients.region
        )
        table = session.resource("dynamodb", endpoint_url=cloud.clients.endpoint).Table(cloud.endpoints.ledger_table)
        self.ledger = Ledger(table)
        self._http = urllib3.PoolManager(retries=False, timeout=60)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._failed: BaseException | None = None

    # Tasks

    def begin(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._over.wait(SAMPLE_S):
                running = self.running()
                self.most = max(self.most, len(running))
                self.deepest = max(self.deepest, sum(self.depths()))
        except Exception as error:  # noqa: BLE001 - told by `check`, in the thread that decides
            self._failed = error

    def check(self) -> None:
        """Raises what ended the sampling, if anything did, and LocalError when a server has ended."""
        if self._failed is not None:
            raise self._failed
        self.cloud.check()

    def running(self) -> list[str]:
        found: list[str] = self._list("RUNNING")
        self._seen |= set(found)
        return found

    def _list(self, status: str) -> list[str]:
        pages = self.cloud.clients("ecs").get_paginator("list_tasks")
        return [
            arn
            for page in pages.paginate(cluster=self.cloud.endpoints.cluster, desiredStatus=status)
            for arn in page["taskArns"]
        ]

    def tasks(self) -> dict[str, Interval]:
        """By id, from RunTask to STOPPED as ECS dates them; `what` is the reason, exit code included."""
        arns = sorted({*self._seen, *self._list("STOPPED"), *self._list("RUNNING")})
        found = {}
        for start in range(0, len(arns), 100):
            answer = self.cloud.clients("ecs").describe_tasks(
                cluster=self.cloud.endpoints.cluster, tasks=arns[start : start + 100]
            )
            for task in answer["tasks"]:
                stopped: datetime = task.get("stoppedAt") or datetime.now(UTC)
                codes = [str(container.get("exitCode")) for container in task["containers"]]
                found[task["taskArn"].rpartition("/")[2]] = Interval(
                    task["createdAt"].timestamp(),
                    stopped.timestamp(),
                    f"{task['lastStatus']} {task.get('stopCode', '')} {','.join(codes)}",
                    task.get("startedBy", ""),
                )
        return found

    def jobs(self, runs: set[str]) -> dict[str, list[tuple[str, str]]]:
        """run -> (repository, digest) of each of its jobs."""
        found: dict[str, Run | None] = {run: self.ledger.runs.get(run) for run in runs}
        return {run: [(job.repository, job.digest) for job in one.jobs] for run, one in found.items() if one}

    # Rest

    def depths(self) -> tuple[int, int, int]:
        """Of the copy queue: visible, in flight, delayed."""
        answer = self.cloud.clients("sqs").get_queue_attributes(
            QueueUrl=self.cloud.endpoints.queue_url, AttributeNames=list(_DEPTHS)
        )["Attributes"]
        visible, hidden, delayed = (int(answer[name]) for name in _DEPTHS)
        return visible, hidden, delayed

    def owned(self) -> list[Slot]:
        """Slots of runs that may still copy: not ended, and their lease not over."""
        now = self.ledger.clock()
        return [slot for slot in self.ledger.slots.held() if slot.phase != "ended" and slot.until >= now]

    def rests(self, seconds: float) -> bool:
        """Wait until there is nothing to do any more; False if that takes longer."""
        ends = time.monotonic() + seconds
        quiet = 0
        while quiet < QUIET_SAMPLES:
            self.check()
            quiet = 0 if any(self.depths()) or self.running() or self.owned() else quiet + 1
            if time.monotonic() > ends:
                return False
            time.sleep(SAMPLE_S)
        return True

    # Registries

    def differences(self) -> list[Difference]:
        """Every tag of the source that the destination does not have with the same digest and bytes."""
        found = []
        source = self.cloud.clients("ecr")
        pages = source.get_paginator("describe_repositories").paginate()
        for name in [one["repositoryName"] for page in pages for one in page["repositories"]]:
            there = self._tags(self.there("ecr"), self.destination.repository(name))
            for tag, digest in sorted(self._tags(source, name).items()):
                if there.get(tag) != digest or not self._same_bytes(name, tag, digest):
                    found.append(Difference(name, tag, digest, there.get(tag)))
        return found

    def tags(self) -> int:
        source = self.cloud.clients("ecr")
        pages = source.get_paginator("describe_repositories").paginate()
        return sum(len(self._tags(source, one["repositoryName"])) for page in pages for one in page["repositories"])

    @staticmethod
    def _tags(ecr: Any, repository: str) -> dict[str, str]:
        try:
            pages = list(ecr.get_paginator("list_images").paginate(repositoryName=repository))
        except ecr.exceptions.RepositoryNotFoundException:
            return {}
        return {
            image["imageTag"]: image["imageDigest"]
            for page in pages
            for image in page["imageIds"]
            if "imageTag" in image
        }

    def _same_bytes(self, repository: str, tag: str, digest: str) -> bool:
        """Of the manifest at the destination, and of everything that it refers to."""
        return self._whole(self.destination.repository(repository), tag, digest)

    def _whole(self, repository: str, reference: str, digest: str) -> bool:
        content = self._get(repository, "manifests", reference)
        if content is None or images.digest_of(content) != digest:
            return False
        manifest = json.loads(content)
        if not all(
            self._whole(repository, child["digest"], child["digest"]) for child in manifest.get("manifests", [])
        ):
            return False
        blobs = [manifest["config"], *manifest["layers"]] if "layers" in manifest else []
        return all(
            images.digest_of(self._get(repository, "blobs", blob["digest"]) or b"") == blob["digest"] for blob in blobs
        )

    def _get(self, repository: str, what: str, reference: str) -> bytes | None:
        (host,) = self.cloud.endpoints.destination_registries.values()
        answer = self._http.request("GET", f"http://{host}/v2/{repository}/{what}/{reference}", headers=_ACCEPT)
        return answer.data if answer.status == 200 else None

    # Ledger and operator

    def record(self, repository: str, digest: str) -> DigestRecord:
        return self.ledger.digests.get(Target(self.cloud.config.source.id, self.destination.name, repository), digest)

    def relay(self, state: Path, *arguments: str) -> Any:
        """What the command line answers with --json. Raises RuntimeError with its words when it fails."""
        command = [str(ROOT / ".venv" / "bin" / "ecr-relay"), *arguments, "--json", "--state", str(state)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(f"ecr-relay {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(done.stdout)

    def reconcile(self) -> Any:
        """The function's answer to one full run."""
        answer = self.cloud.clients("lambda").invoke(
            FunctionName=self.cloud.endpoints.reconcile_function, Payload=json.dumps({"action": "start"})
        )
        return json.loads(answer["Payload"].read())
