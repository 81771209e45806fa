"""Reading many records at once, for whoever looks at the ledger from outside. It writes nothing.

Long answers are iterators that read on as they are asked to; with each record comes a `cursor`, its key as text, to
go on after it another time. Batches are read side by side.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from boto3.dynamodb.conditions import Attr, ConditionBase, Key

from ecr_relay.errors import RelayError
from ecr_relay.ledger import tags
from ecr_relay.ledger.digests import DigestRecord, record
from ecr_relay.ledger.lookups import Lookups, read_on
from ecr_relay.ledger.runs import Run
from ecr_relay.ledger.table import STATE_INDEX, Item, Target
from ecr_relay.ledger.tags import TagRecord

_INDEX_KEY: Final = ("state", "changed_at")


class BadCursor(RelayError):
    """A cursor that no page ended with."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message failed the last time, and when (ms)."""

    reason: str
    at: int


Entry = tuple[DigestRecord, str]
"""A record, and the cursor that goes on after it."""


class Queries(Lookups):
    """And of the whole table."""

    def of_repositories(self, targets: Sequence[Target], cursor: str | None = None) -> Iterator[Entry]:
        """The digests of these, one repository after another. Raises BadCursor."""
        partitions = [target.pk for target in targets]
        key = _read_cursor(cursor)
        if key:
            if key["pk"] not in partitions:
                raise BadCursor(f"{cursor!r} is the cursor of another question")
            partitions = partitions[partitions.index(key["pk"]) :]
        for pk in partitions:
            condition = Key("pk").eq(pk) & Key("sk").begins_with("D#")
            yield from _entries(self._query(key, KeyConditionExpression=condition))
            key = {}

    def in_state(self, state: str, cursor: str | None = None) -> Iterator[Entry]:
        """Digests that are copying, waiting, failed or exhausted, the last changed first. Raises BadCursor."""
        # No condition on the sort key: its order is all that is asked of it.
        items = self._query(
            _read_cursor(cursor, *_INDEX_KEY),
            IndexName=STATE_INDEX,
            KeyConditionExpression=Key("state").eq(state),
            ScanIndexForward=False,
        )
        yield from _entries(items, *_INDEX_KEY)

    def refused_tags(self) -> Iterator[tuple[Target, str, TagRecord]]:
        """Tags that their destination refuses for good, the last to fail first."""
        items = self._query(
            {}, IndexName=STATE_INDEX, KeyConditionExpression=Key("state").eq(tags.REFUSED), ScanIndexForward=False
        )
        for item in items:
            yield Target.of(item["pk"]), tags.name(item), tags.record(item)

    def everything(self, cursor: str | None = None, *, status: str | None = None) -> Iterator[Entry]:
        """All digests, in the table's own order: as far as it is read, it reads the whole table. Raises BadCursor."""
        condition: ConditionBase = Attr("sk").begins_with("D#")
        if status is not None:
            condition = condition & Attr("status").eq(status)
        yield from _entries(read_on(self._client.scan, self._name, _read_cursor(cursor), FilterExpression=condition))

    def refusals(self, message_ids: Iterable[str]) -> dict[str, Refusal]:
        """Why messages failed, by message id; none for one that never failed, or long ago."""
        items = self._get((f"MSG#{message_id}", "MSG") for message_id in message_ids)
        return {
            item["pk"].removeprefix("MSG#"): Refusal(str(item["reason"]), int(item["refused_at"])) for item in items
        }

    def runs(self, ids: Iterable[str]) -> dict[str, Run]:
        """By id; a run is forgotten after a month."""
        found = (
            Run.model_validate_json(item["body"]).model_copy(update={"task": item.get("task")})
            for item in self._get((f"RUN#{run}", "RUN") for run in ids)
        )
        return {run.id: run for run in found}


def _entries(items: Iterable[Item], *extra: str) -> Iterator[Entry]:
    for item in items:
        key = {name: item[name] for name in ("pk", "sk", *extra)}
        text = json.dumps({name: int(part) if isinstance(part, Decimal) else part for name, part in key.items()})
        yield record(item), base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None, *extra: str) -> Item:
    if cursor is None:
        return {}
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        key = None
    if not isinstance(key, dict):
        raise BadCursor(f"{cursor!r} is no cursor")
    if key.keys() != {"pk", "sk", *extra}:
        raise BadCursor(f"{cursor!r} is the cursor of another question")
    return key
