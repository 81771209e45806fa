"""The promises on the local cloud: pushed by skopeo, and read at the destination by another client."""

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3

from ecr_relay.ledger import DigestRecord, Ledger, Target
from ecr_relay.ledger.slots import SLOTS
from local import images
from local.deploy import Clients
from local.up import LocalCloud

http = urllib3.PoolManager(retries=False, timeout=30)
PUSH = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
ACCEPT = {"Accept": ", ".join([images.OCI_INDEX, images.OCI_MANIFEST, images.DOCKER_MANIFEST])}


class Relay:
    """What a test does with the running relay."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self.cloud = cloud
        self.folder = folder
        self.source = cloud.endpoints.source_registry
        self.west = cloud.endpoints.destination_registries["west"]
        place = cloud.clients
        session = boto3.Session(
            aws_access_key_id=place.account, aws_secret_access_key="local", region_name=place.region
        )
        table = session.resource("dynamodb", endpoint_url=place.endpoint).Table(cloud.endpoints.ledger_table)
        self.ledger = Ledger(table)

    def name(self) -> str:
        """A repository that no other test uses."""
        return f"test/{uuid.uuid4().hex[:8]}"

    def push(self, made: images.Made, image: str) -> None:
        subprocess.run(
            [*PUSH, made.source, f"docker://{self.source}/{image}"],
            check=True,
        )

    def manifest(self, registry: str, image: str) -> bytes | None:
        repository, _, reference = image.replace("@", ":", 1).partition(":")
        answer = http.request("GET", f"http://{registry}/v2/{repository}/manifests/{reference}", headers=ACCEPT)
        return answer.data if answer.status == 200 else None

    def arrives(self, image: str, manifest: bytes, seconds: float = 30) -> float:
        """How long it took; fails the test when it does not."""
        began = time.monotonic()
        self.until(lambda: self.manifest(self.west, image) == manifest, seconds, f"{image} at the destination")
        return time.monotonic() - began

    def until(self, holds: Callable[[], object], seconds: float, what: str) -> None:
        ends = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < ends, f"waited {seconds} s in vain for {what}"
            time.sleep(0.1)

    def record(self, repository: str, digest: str) -> DigestRecord:
        return self.ledger.digests.get(Target(self.cloud.config.source.id, "west", repository), digest)

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks that ECS knows, running or stopped."""
        ecs = self.cloud.clients("ecs")
        cluster = self.cloud.endpoints.cluster
        arns = list(  # once each: one that stops between the two listings is in both
            {
                arn: None
                for status in ("RUNNING", "STOPPED")
                for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status)
                for arn in page["taskArns"]
            }
        )
        found: list[dict[str, Any]] = []
        for start in range(0, len(arns), 100):
            found += ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + 100])["tasks"]
        return found

    def lines(self, message: str, repository: str) -> list[dict[str, Any]]:
        """What the consumer logged of a repository's images."""
        found = []
        for log in Path(self.cloud.endpoints.log_dir).glob("lambda-*onsumer*.log"):
            for line in log.read_text().splitlines():
                if repository in line and f'"message":"{message}"' in line:
                    found.append(json.loads(line))
        return found

    def dead_letters(self) -> list[dict[str, Any]]:
        """All of them, which then are visible again."""
        sqs, url = self.cloud.clients("sqs"), self.cloud.endpoints.dlq_url
        found: dict[str, dict[str, Any]] = {}
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=2).get(
            "Messages"
        ):
            found |= {message["MessageId"]: message for message in messages}
        time.sleep(2)
        return list(found.values())


@pytest.fixture
def relay(cloud: LocalCloud, tmp_path: Path) -> Relay:
    return Relay(cloud, tmp_path)


@pytest.fixture
def no_reserve(clients: Clients, cloud: LocalCloud) -> Iterator[None]:
    """Nothing is left over for the next test."""
    yield
    clients("sqs").purge_queue(QueueUrl=cloud.endpoints.dlq_url)


@pytest.mark.parametrize("kind", ["single", "index", "schema2", "artifact"])
def test_a_push_arrives_byte_by_byte(relay: Relay, kind: str) -> None:
    made: images.Made = getattr(images, kind)(relay.folder / kind, uuid.uuid4().hex)
    repository = relay.name()
    relay.push(made, f"{repository}:1.0")
    relay.arrives(f"{repository}:1.0", made.manifest)
    for child in made.children:
        assert images.digest_of(relay.manifest(relay.west, f"{repository}@{child}") or b"") == child
    for layer in made.layers:
        answer = http.request("GET", f"http://{relay.west}/v2/{repository}/blobs/{layer}")
        assert images.digest_of(answer.data) == layer


def test_the_same_push_again_starts_nothing(relay: Relay) -> None:
    made = images.single(relay.folder / "it", uuid.uuid4().hex)
    image = f"{relay.name()}:1.0"
    relay.push(made, image)
    relay.arrives(image, made.manifest)
    before = len(relay.tasks())
    relay.push(made, image)
    relay.until(lambda: relay.lines("skipped", image.split(":")[0]), 60, "the skip")
    assert len(relay.tasks()) == before


def test_a_tag_that_moves_away_and_back(relay: Relay) -> None:
    repository = relay.name()
    one, two = (images.single(relay.folder / name, uuid.uuid4().hex) for name in ("one", "two"))
    for made in (one, two, one):
        relay.push(made, f"{repository}:latest")
        relay.arrives(f"{repository}:latest", made.manifest)


@pytest.mark.slow
def test_sixty_at_once_arrive_once_each_and_never_by_eleven_tasks(relay: Relay, clients: Clients) -> None:
    made = [images.single(relay.folder / str(number), uuid.uuid4().hex) for number in range(60)]
    names = [f"{relay.name()}:1.0" for _ in made]
    most = 0
    over = threading.Event()

    def count() -> None:
        nonlocal most
        while not over.wait(0.1):
            alive = clients("ecs").list_tasks(cluster=relay.cloud.endpoints.cluster, desiredStatus="RUNNING")[
                "taskArns"
            ]
            most = max(most, len(alive))

    before = {task["taskArn"] for task in relay.tasks()}
    counter = threading.Thread(target=count)
    counter.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(relay.push, made, names))
        for name, one in zip(names, made, strict=True):
            relay.arrives(name, one.manifest, 120)
    finally:
        over.set()
        counter.join()
    assert 1 <= most <= SLOTS
    records = [relay.record(name.split(":")[0], one.digest) for name, one in zip(names, made, strict=True)]
    assert {record.status for record in records} == {"copied"}
    runs = {record.run for record in records}
    assert len([task for task in relay.tasks() if task["taskArn"] not in before]) == len(runs)
    assert relay.dead_letters() == []


@pytest.mark.slow
def test_a_lost_layer_is_three_attempts_and_a_dead_letter_while_its_neighbours_arrive(
    relay: Relay, no_reserve: None
) -> None:
    bad, good = (images.single(relay.folder / name, uuid.uuid4().hex) for name in ("bad", "good"))
    broken, whole = relay.name(), relay.name()
    relay.push(bad, f"{broken}:1.0")
    answer = http.request("DELETE", f"http://{relay.source}/v2/{broken}/blobs/{bad.layers[0]}")
    assert answer.status == 202
    relay.push(good, f"{whole}:1.0")
    relay.arrives(f"{whole}:1.0", good.manifest)
    relay.until(lambda: relay.record(broken, bad.digest).status == "exhausted", 150, "three attempts")
    record = relay.record(broken, bad.digest)
    assert record.attempts == 3
    assert bad.layers[0] in (record.error or "")
    relay.until(lambda: any(broken in message["Body"] for message in relay.dead_letters()), 60, "the dead letter")
    assert relay.manifest(relay.west, f"{broken}:1.0") is None


@pytest.mark.slow
def test_a_copier_that_is_killed_in_the_middle_costs_no_attempt(relay: Relay) -> None:
    size = 60_000_000
    made = images.single(relay.folder / "big", uuid.uuid4().hex, (size, size, 1000))
    repository = relay.name()
    relay.push(made, f"{repository}:1.0")
    copier = find_process(relay, f"{made.digest}")
    os.kill(parent_of(copier), signal.SIGKILL)
    relay.until(lambda: relay.record(repository, made.digest).interruptions == 1, 30, "an interruption")
    assert relay.record(repository, made.digest).attempts == 0
    relay.arrives(f"{repository}:1.0", made.manifest, 90)
    relay.until(lambda: relay.record(repository, made.digest).status == "copied", 10, "the ledger")


def find_process(relay: Relay, argument: str) -> int:
    """The pid of a running skopeo with `argument` in its command line, a copy by the relay's own."""
    found: list[int] = []

    def look() -> bool:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().decode()
                except OSError:
                    continue
                if command.partition("\0")[0].endswith("skopeo") and argument in command:
                    found.append(int(entry.name))
        return bool(found)

    relay.until(look, 30, "a skopeo at work")
    return found[0]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@pytest.mark.parametrize("body", ["no json", '{"v":2}', '{"detail-type":"ECR Scan"}'])
def test_poison_is_a_dead_letter_with_its_reason_and_the_next_message_is_served(
    relay: Relay, clients: Clients, no_reserve: None, body: str
) -> None:
    sent = clients("sqs").send_message(QueueUrl=relay.cloud.endpoints.queue_url, MessageBody=body)
    made = images.single(relay.folder / "it", uuid.uuid4().hex)
    image = f"{relay.name()}:1.0"
    relay.push(made, image)
    relay.arrives(image, made.manifest)
    relay.until(lambda: sent["MessageId"] in {m["MessageId"] for m in relay.dead_letters()}, 60, "the dead letter")
    assert (relay.ledger.notes.refusal(sent["MessageId"]) or "").startswith("malformed: ")


def test_the_reconcile_heals_what_was_deleted_and_what_no_event_told(
    relay: Relay, clients: Clients, west: Clients
) -> None:
    deleted, silent = relay.name(), relay.name()
    made = images.single(relay.folder / "it", uuid.uuid4().hex)
    relay.push(made, f"{deleted}:1.0")
    relay.arrives(f"{deleted}:1.0", made.manifest)
    west("ecr").batch_delete_image(repositoryName=deleted, imageIds=[{"imageDigest": made.digest}])
    assert relay.manifest(relay.west, f"{deleted}:1.0") is None
    clients("events").disable_rule(Name=push_rule(clients))
    try:
        relay.push(made, f"{silent}:1.0")
    finally:
        clients("events").enable_rule(Name=push_rule(clients))
    answer = clients("lambda").invoke(
        FunctionName=relay.cloud.endpoints.reconcile_function, Payload=json.dumps({"action": "start"})
    )
    assert json.loads(answer["Payload"].read())["status"] == "done"
    for repository in (deleted, silent):
        relay.arrives(f"{repository}:1.0", made.manifest)


def push_rule(clients: Clients) -> str:
    rules = clients("events").list_rules()["Rules"]
    return str(next(rule["Name"] for rule in rules if "ECR Image Action" in rule.get("EventPattern", "")))
