"""Reading many records at once, for whoever looks at the ledger from outside. It writes nothing.

Long answers are iterators that read on as they are asked to; with each record comes a `cursor`, its key as text, to
go on after it another time. Batches are read side by side.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar

from boto3.dynamodb.conditions import Attr, ConditionBase, Key

from ecr_relay.errors import RelayError
from ecr_relay.ledger.digests import DigestRecord, record
from ecr_relay.ledger.runs import Run
from ecr_relay.ledger.table import STATE_INDEX, Clock, Item, Target

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

_BATCH: Final = 100
"""BatchGetItem takes 100 keys (DynamoDB quotas)."""
_THREADS: Final = 8
_INDEX_KEY: Final = ("state", "changed_at")

_T = TypeVar("_T")
_R = TypeVar("_R")
_Key = tuple[str, str]


class BadCursor(RelayError):
    """A cursor that no page ended with."""


@dataclass(frozen=True, slots=True)
class TagRow:
    """What the ledger knows of one tag at one destination."""

    target: Target
    tag: str
    digest: str | None
    verified_at: int | None
    failed_at: int | None
    error: str | None
    gone_since: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message failed the last time, and when (ms)."""

    reason: str
    at: int


Entry = tuple[DigestRecord, str]
"""A record, and the cursor that goes on after it."""


class Queries:
    """Safe to share between threads: it uses the table's client, not the resource."""

    def __init__(self, table: "Table", clock: Clock) -> None:
        self._name = table.name
        # The resource's client speaks Python values, as the resource does.
        self._client: Any = table.meta.client
        self._clock = clock

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

    def everything(self, cursor: str | None = None, *, status: str | None = None) -> Iterator[Entry]:
        """All digests, in the table's own order: as far as it is read, it reads the whole table. Raises BadCursor."""
        condition: ConditionBase = Attr("sk").begins_with("D#")
        if status is not None:
            condition = condition & Attr("status").eq(status)
        yield from _entries(_items(self._client.scan, self._name, _read_cursor(cursor), FilterExpression=condition))

    def tags(self, targets: Iterable[Target]) -> dict[Target, list[TagRow]]:
        """All tags of these repositories."""
        wanted = list(dict.fromkeys(targets))
        return dict(zip(wanted, _side_by_side(self._tags, wanted), strict=True))

    def _tags(self, target: Target) -> list[TagRow]:
        condition = Key("pk").eq(target.pk) & Key("sk").begins_with("T#")
        return [_tag(item) for item in self._query({}, KeyConditionExpression=condition)]

    def digests(self, wanted: Iterable[tuple[Target, str]]) -> dict[tuple[Target, str], DigestRecord]:
        """Those of them that there are."""
        found = map(record, self._get((target.pk, f"D#{digest}") for target, digest in wanted))
        return {(entry.target, entry.digest): entry for entry in found}

    def tag_rows(self, wanted: Iterable[tuple[Target, str]]) -> dict[tuple[Target, str], TagRow]:
        """Those of them that there are."""
        found = map(_tag, self._get((target.pk, f"T#{tag}") for target, tag in wanted))
        return {(entry.target, entry.tag): entry for entry in found}

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

    def _get(self, keys: Iterable[_Key]) -> list[Item]:
        distinct = list(dict.fromkeys(keys))
        batches = [distinct[start : start + _BATCH] for start in range(0, len(distinct), _BATCH)]
        return [item for items in _side_by_side(self._get_batch, batches) for item in items]

    def _get_batch(self, keys: list[_Key]) -> list[Item]:
        request: dict[str, Any] = {self._name: {"Keys": [{"pk": pk, "sk": sk} for pk, sk in keys]}}
        items: list[Item] = []
        while request:
            answer = self._client.batch_get_item(RequestItems=request)
            items += answer["Responses"].get(self._name, [])
            request = answer.get("UnprocessedKeys", {})
        return items

    def _query(self, after: Item, **arguments: Any) -> Iterator[Item]:
        return _items(self._client.query, self._name, after, **arguments)


def _items(call: Callable[..., Any], table: str, after: Item, **arguments: Any) -> Iterator[Item]:
    while True:
        start = {"ExclusiveStartKey": after} if after else {}
        answer = call(TableName=table, **arguments, **start)
        yield from answer["Items"]
        after = answer.get("LastEvaluatedKey", {})
        if not after:
            return


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


def _side_by_side(call: Callable[[_T], _R], arguments: Sequence[_T]) -> list[_R]:
    if len(arguments) < 2:
        return [call(argument) for argument in arguments]
    with ThreadPoolExecutor(min(_THREADS, len(arguments))) as pool:
        return list(pool.map(call, arguments))


def _tag(item: Item) -> TagRow:
    def number(name: str) -> int | None:
        return int(item[name]) if name in item else None

    return TagRow(
        target=Target.of(item["pk"]),
        tag=item["sk"].removeprefix("T#"),
        digest=item.get("digest"),
        verified_at=number("verified_at"),
        failed_at=number("failed_at"),
        error=item.get("error"),
        gone_since=number("gone_since"),
    )
