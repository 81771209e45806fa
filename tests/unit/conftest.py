"""The real jobs over moto's DynamoDB and SQS, with fake registries, skopeo and ECS: `World`."""

import json
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from ecr_relay.config import RelayConfig
from ecr_relay.consume import Delivery, consume
from ecr_relay.copy import Copier, copy_all
from ecr_relay.ledger import Ledger
from ecr_relay.reconcile import Answer, Reconciler, Request
from ecr_relay.relay import Relay
from tests.fakes.queue import FakeQueue
from tests.fakes.registry import FakeRegistry
from tests.fakes.skopeo import FakeSkopeo
from tests.fakes.tasks import FakeTasks

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

ACCOUNT, REGION = "000000000000", "us-east-1"
CONFIG = {
    "source": {"region": REGION, "account": ACCOUNT},
    "destinations": [{"name": "west", "region": "eu-west-1", "account": ACCOUNT}],
}


class Clock:
    """Milliseconds; stands still but for `tick`, and a millisecond for every look, so that no two are equal."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


class World:
    """One relay in one process."""

    def __init__(self, config: RelayConfig, table: "Table | None" = None) -> None:
        self.clock = Clock()
        self.table = table or make_table()
        self.ledger = Ledger(self.table, self.clock, self.clock.tick)
        self.relay = Relay(config, self.ledger)
        self.source = FakeRegistry(host="source.test")
        self.relay.source = self.source
        self.destinations = {d.name: FakeRegistry(host=f"{d.name}.test") for d in config.destinations}
        self.relay._destinations.update(self.destinations)
        self.skopeo = FakeSkopeo({r.host: r for r in (self.source, *self.destinations.values())})
        self.tasks = FakeTasks(self.run_copier)
        self.queue = FakeQueue()
        self.config = config
        self._number = 0

    @property
    def west(self) -> FakeRegistry:
        return self.destinations["west"]

    def run_copier(self, run_id: str) -> None:
        """What `ecr_relay.copy.__main__` does, but for its process."""
        slot = self.ledger.slots.begin(run_id, "holder")
        run = self.ledger.runs.get(run_id)
        assert slot is not None
        assert run is not None
        copier = Copier(self.relay, run, self.config.destination(run.destination), self.skopeo)  # type: ignore[arg-type]
        try:
            copy_all(copier, run.jobs)
        finally:
            self.ledger.slots.end(slot, "holder")

    def event(self, repository: str, digest: str, tag: str | None, **changes: object) -> str:
        detail = {
            "result": "SUCCESS",
            "repository-name": repository,
            "image-digest": digest,
            "action-type": "PUSH",
            "image-tag": tag or "",
        }
        event = {
            "version": "0",
            "id": "13cde686-328b-6117-af20-0e5566167482",
            "detail-type": "ECR Image Action",
            "source": "aws.ecr",
            "account": ACCOUNT,
            "time": "2027-01-15T08:00:00Z",
            "region": REGION,
            "resources": [],
            "detail": detail,
        }
        return json.dumps(event | changes)

    def delivery(self, body: str, *, sent_at: int | None = None, receives: int = 1) -> Delivery:
        self._number += 1
        handle = f"receipt-{self._number}"
        return Delivery(f"message-{self._number}", handle, body, sent_at or self.clock(), receives)

    def consume(self, *deliveries: Delivery, seconds: float = 0.1) -> list[str]:
        return consume(deliveries, self.relay, self.queue, self.tasks, seconds, self.clock.tick)  # type: ignore[arg-type]

    def push(self, repository: str, content: str, tag: str) -> tuple[str, str]:
        """The digest, and the event's body."""
        digest = self.source.push(repository, content, tag)
        return digest, self.event(repository, digest, tag)

    def reconcile(self, **request: object) -> Answer:
        return Reconciler(self.relay, self.queue, lambda: True).run(Request.model_validate(request))  # type: ignore[arg-type]


def make_table() -> "Table":
    resource = boto3.resource("dynamodb", region_name=REGION)
    return resource.create_table(
        TableName="ledger",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S" if name != "changed_at" else "N"}
            for name in ("pk", "sk", "state", "changed_at")
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-state",
                "KeySchema": [
                    {"AttributeName": "state", "KeyType": "HASH"},
                    {"AttributeName": "changed_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """moto in process; nothing here can reach a network."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    process, lock = BotocoreStubber.process_request, threading.RLock()

    def one_at_a_time(self: BotocoreStubber, request: Any) -> Any:
        # moto's backends are plain dicts and sets, which two threads must not change at once.
        with lock:
            return process(self, request)

    monkeypatch.setattr(BotocoreStubber, "process_request", one_at_a_time)
    with mock_aws():
        yield


@pytest.fixture(autouse=True)
def _logs() -> None:
    """A handler's module, once imported, takes our log for its own: each test finds it as it was."""
    ours = logging.getLogger("ecr_relay")
    ours.propagate = True
    ours.handlers.clear()
    ours.setLevel(logging.NOTSET)


@pytest.fixture
def world() -> World:
    return World(RelayConfig.model_validate_json(json.dumps(CONFIG)))
