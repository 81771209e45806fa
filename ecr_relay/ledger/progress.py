"""The reconcile's progress: one record a source, so that one run is on at a time, and resumes where it stopped.

start    a new run, unless one is unfinished: then `again` is set, and another full run follows it
advance  cursor moves past a repository, the counts grow; only if the cursor is where this invocation left it
finish   status done, or the next run at once if `again`
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from boto3.dynamodb.conditions import Attr
from botocore.exceptions import ClientError

from ecr_relay.ledger.table import Clock, Item, condition_failed, read, update

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

ERROR_LIMIT: Final = 2000
"""Characters of an error that are kept."""
COUNTS: Final = (
    *("repositories", "images", "enqueued", "failures"),
    *("observed", "evicted", "archived", "conflicts", "deleted", "held", "differing", "absent"),
)
"""Compared, seen at the source, sent to the copy queue, not compared; wanted by a rule that only observes, vanished
again after a heal, archived there, a tag that somebody else moved and that stays, removed, waiting for `max_deletes` to
be raised, not as `new_repository` asks; repositories that rules name and the source does not have."""


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    run: str
    status: Literal["running", "done"]
    started_at: int
    cursor: str = ""
    """The last repository that was compared; names are taken in sorted order."""
    only: tuple[str, ...] = ()
    """Repository globs that were asked for; empty: all."""
    again: bool = False
    worked_at: int = 0
    """When the last repository was done: so that no second invocation works at the same run."""
    finished_at: int | None = None
    error: str | None = None
    """Why it does not go on."""
    last_failure: str | None = None
    """Of its comparisons, which one failed last, and why."""
    unmatched: tuple[str, ...] = ()
    """Those of `only` that match no repository; known when it is done."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


class Progress:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def get(self, source: str) -> ProgressRecord | None:
        item = read(self._table, _pk(source), "PROGRESS")
        return None if item is None else _record(item)

    def start(self, source: str, run: str, only: tuple[str, ...]) -> ProgressRecord:
        """Begin a run; if one is unfinished, ask it for another full one and return it as it is."""
        item: Item = {
            "pk": _pk(source),
            "sk": "PROGRESS",
            "run": run,
            "status": "running",
            "started_at": self._clock(),
            "cursor": "",
            "only": list(only),
            "again": False,
            "worked_at": self._clock(),
            **dict.fromkeys(COUNTS, 0),
        }
        try:
            self._table.put_item(Item=item, ConditionExpression=Attr("pk").not_exists() | Attr("status").ne("running"))
        except ClientError as error:
            if not condition_failed(error):
                raise
            asked = update(
                self._table,
                _pk(source),
                "PROGRESS",
                "SET again = :yes",
                Attr("status").eq("running"),
                {"yes": True},
            )
            return _record(asked) if asked is not None else self.start(source, run, only)
        return _record(item)

    def take(self, source: str, seen: ProgressRecord) -> ProgressRecord | None:
        """Go on with a run that nobody works at any more; None if another has just taken it."""
        item = update(
            self._table,
            _pk(source),
            "PROGRESS",
            "SET worked_at = :now",
            Attr("run").eq(seen.run) & Attr("worked_at").eq(seen.worked_at),
            {"now": self._clock()},
        )
        return None if item is None else _record(item)

    def advance(
        self, source: str, seen: ProgressRecord, cursor: str, counts: dict[str, int], failure: str | None = None
    ) -> ProgressRecord | None:
        """Past `cursor`; None if another invocation moved it meanwhile. `failure`: of its last that failed."""
        adds = ", ".join(f"{name} :{name}" for name in counts)
        keep = ", last_failure = :failure" if failure else ""
        kept = {"failure": failure[:ERROR_LIMIT]} if failure else {}
        item = update(
            self._table,
            _pk(source),
            "PROGRESS",
            f"SET #cursor = :cursor, worked_at = :now{keep} REMOVE #error ADD {adds}",
            Attr("run").eq(seen.run) & Attr("cursor").eq(seen.cursor),
            {"cursor": cursor, "now": self._clock(), **kept, **counts},
        )
        return None if item is None else _record(item)

    def trouble(self, source: str, seen: ProgressRecord, error: str) -> None:
        """Note why this run does not go on, until it does."""
        update(
            self._table,
            _pk(source),
            "PROGRESS",
            "SET #error = :error",
            Attr("run").eq(seen.run),
            {"error": error[:ERROR_LIMIT]},
        )

    def finish(self, source: str, seen: ProgressRecord, unmatched: tuple[str, ...] = ()) -> ProgressRecord | None:
        """The run is over; None if another invocation ended it."""
        item = update(
            self._table,
            _pk(source),
            "PROGRESS",
            "SET #status = :done, finished_at = :now, unmatched = :unmatched REMOVE #error",
            Attr("run").eq(seen.run) & Attr("status").eq("running"),
            {"done": "done", "now": self._clock(), "unmatched": list(unmatched)},
        )
        return None if item is None else _record(item)


def _pk(source: str) -> str:
    return f"RECONCILE#{source}"


def _record(item: Item) -> ProgressRecord:
    return ProgressRecord(
        run=item["run"],
        status=item["status"],
        started_at=int(item["started_at"]),
        cursor=item["cursor"],
        only=tuple(item["only"]),
        again=bool(item["again"]),
        worked_at=int(item["worked_at"]),
        finished_at=int(item["finished_at"]) if "finished_at" in item else None,
        error=item.get("error"),
        last_failure=item.get("last_failure"),
        unmatched=tuple(item.get("unmatched", ())),
        counts={name: int(item.get(name, 0)) for name in COUNTS},
    )
