"""Slots: ten items, one for each copy task that may be alive.

    free --take--> launching --begin--> active --renew--> active --end--> ended
      ^              |                    |                                 |
      +--------------+------- free -------+---------------------------------+

A slot is freed only by one whom ECS has shown that the task is no more; that a task says it ended, or that its lease
is over, only says when to ask. So a slow Fargate, a lost answer or a ledger out of reach never make eleven. While a
run holds a slot that is not ended, the digests that it claimed are its own.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from boto3.dynamodb.conditions import Attr, Key

from ecr_relay.ledger.table import Clock, Item, update

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

SLOTS: Final = 10
RECONCILE_SLOTS: Final = 7
"""How many of them reconcile work may hold, so that a backfill never keeps a push waiting."""
LEASE_MS: Final = 120_000
"""How long a task that cannot renew keeps its slot; it ends itself LAST_WORDS_MS before."""
LAST_WORDS_MS: Final = 30_000
_PK: Final = "SLOTS"


@dataclass(frozen=True, slots=True)
class Slot:
    number: int
    run: str
    phase: Literal["launching", "active", "ended"]
    until: int
    taken_at: int
    destination: str
    lane: str
    moved: int = 0
    """Bytes that its task had written when it renewed last."""

    def owns(self, run: str | None) -> bool:
        """Whether what `run` claimed is still its own."""
        return self.run == run and self.phase != "ended"


class Slots:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def held(self) -> list[Slot]:
        """One consistent query: the slots that are taken, by number."""
        items = self._table.query(KeyConditionExpression=Key("pk").eq(_PK), ConsistentRead=True)["Items"]
        return [_slot(item) for item in items if "run" in item]

    def take(self, run: str, destination: str, lane: str, max_tasks: int) -> Slot | None:
        """A slot for `run`, or None when all are taken, or the lane's or the destination's share is.

        The shares are counted again after the write: of two that take the last one at once, both see each other and
        both give it back, so a share is never exceeded by a task.
        """
        held = self.held()
        if not _room(held, destination, lane, max_tasks, mine=0):
            return None
        taken = {slot.number for slot in held}
        for number in range(SLOTS):
            if number in taken or not self._write(number, run, destination, lane):
                continue
            if _room(self.held(), destination, lane, max_tasks, mine=1):
                return next(slot for slot in self.held() if slot.run == run)
            self.free(run, number)
            return None
        return None

    def _write(self, number: int, run: str, destination: str, lane: str) -> bool:
        now = self._clock()
        mine = Attr("run").eq(run)  # by a first call whose answer was lost; the SDK repeats it
        item = update(
            self._table,
            _PK,
            _sk(number),
            "SET run = :run, phase = :launching, #until = :until, taken_at = :now, "
            "destination = :destination, lane = :lane",
            Attr("run").not_exists() | mine,
            {
                "run": run,
                "launching": "launching",
                "until": now + LEASE_MS,
                "now": now,
                "destination": destination,
                "lane": lane,
            },
        )
        return item is not None

    def begin(self, run: str, holder: str) -> Slot | None:
        """Called by the task: the slot is its to renew; None if it has none, or another process began this run."""
        for slot in self.held():
            if slot.run == run:
                item = update(
                    self._table,
                    _PK,
                    _sk(slot.number),
                    "SET phase = :active, holder = :holder, #until = :until",
                    Attr("run").eq(run) & (Attr("phase").eq("launching") | Attr("holder").eq(holder)),
                    {"active": "active", "holder": holder, "until": self._clock() + LEASE_MS},
                )
                return None if item is None else _slot(item)
        return None

    def renew(self, slot: Slot, holder: str, moved: int = 0) -> Slot | None:
        """Called by the task while bytes move; `moved`: how many so far. None if the slot is no longer its own."""
        item = update(
            self._table,
            _PK,
            _sk(slot.number),
            "SET #until = :until, moved = :moved",
            Attr("holder").eq(holder),
            {"until": self._clock() + LEASE_MS, "moved": moved},
        )
        return None if item is None else _slot(item)

    def end(self, slot: Slot, holder: str) -> None:
        """Called by the task, last of all: it copies nothing more, and its claims are given up."""
        update(
            self._table,
            _PK,
            _sk(slot.number),
            "SET phase = :ended, #until = :now",
            Attr("holder").eq(holder),
            {"ended": "ended", "now": self._clock()},
        )

    def free(self, run: str, number: int) -> None:
        """Of a run whose task is no more, or never was. Safe to repeat."""
        update(
            self._table,
            _PK,
            _sk(number),
            "REMOVE run, phase, #until, taken_at, destination, lane, holder, moved",
            Attr("run").eq(run),
            {},
        )


def _room(held: list[Slot], destination: str, lane: str, max_tasks: int, *, mine: int) -> bool:
    """Whether the shares allow one more (`mine` = 0), or hold with my own among them (`mine` = 1)."""
    of_destination = sum(slot.destination == destination for slot in held)
    of_reconcile = sum(slot.lane == "reconcile" for slot in held)
    return of_destination < max_tasks + mine and (lane != "reconcile" or of_reconcile < RECONCILE_SLOTS + mine)


def _sk(number: int) -> str:
    return f"SLOT#{number}"


def _slot(item: Item) -> Slot:
    return Slot(
        number=int(item["sk"].removeprefix("SLOT#")),
        run=item["run"],
        phase=item["phase"],
        until=int(item["until"]),
        taken_at=int(item["taken_at"]),
        destination=item["destination"],
        lane=item["lane"],
        moved=int(item.get("moved", 0)),
    )
