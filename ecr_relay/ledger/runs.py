"""Run records: what one copy task was launched to do. Written before RunTask, read by the task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from boto3.dynamodb.conditions import Attr
from pydantic import BaseModel, ConfigDict

from ecr_relay.ledger.table import Clock, Target, read, update

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

KEEP_S: Final = 30 * 86_400
"""A run record outlives any copy; DynamoDB's TTL removes it."""


class WantedTag(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    seen_at: int
    """ms since the epoch: when the source was seen to have the digest under this tag."""


class Job(BaseModel):
    """One digest to copy, and the tags that are to have it there."""

    model_config = ConfigDict(frozen=True)

    repository: str
    digest: str
    tags: tuple[WantedTag, ...] = ()
    messages: tuple[str, ...] = ()
    """The ids of the messages that wait for it: what its log lines have in common with the consumer's."""
    attempt: int = 1
    """Which attempt at this digest it is."""


class Run(BaseModel):
    """At most ten jobs: a batch of messages has no more."""

    model_config = ConfigDict(frozen=True)

    id: str
    source: str
    destination: str
    lane: str
    created_at: int
    jobs: tuple[Job, ...]
    task: str | None = None
    """ARN of its task, once RunTask has answered; names the log stream, too."""

    def target(self, job: Job) -> Target:
        return Target(self.source, self.destination, job.repository)


class Runs:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def put(self, run_id: str, source: str, destination: str, lane: str, jobs: Sequence[Job]) -> Run:
        now = self._clock()
        run = Run(id=run_id, source=source, destination=destination, lane=lane, created_at=now, jobs=tuple(jobs))
        self._table.put_item(
            Item={
                "pk": f"RUN#{run_id}",
                "sk": "RUN",
                "body": run.model_dump_json(),
                "expires_at": now // 1000 + KEEP_S,
            }
        )
        return run

    def get(self, run_id: str) -> Run | None:
        """One consistent read; None if there is no such run (any more)."""
        item = read(self._table, f"RUN#{run_id}", "RUN")
        if item is None:
            return None
        return Run.model_validate_json(item["body"]).model_copy(update={"task": item.get("task")})

    def launched(self, run_id: str, task: str) -> None:
        """Note the task, for whoever has to ask ECS about it."""
        update(self._table, f"RUN#{run_id}", "RUN", "SET task = :task", Attr("pk").exists(), {"task": task})
