"""Reading many records of some repositories at once: what the reconcile needs, and who looks from outside. It writes
nothing. Batches are read side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from boto3.dynamodb.conditions import Key

from ecr_relay.ledger import tags
from ecr_relay.ledger.digests import DigestRecord, record
from ecr_relay.ledger.table import Item, Target
from ecr_relay.ledger.tags import TagRecord

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

_BATCH: Final = 100
"""BatchGetItem takes 100 keys (DynamoDB quotas)."""
_THREADS: Final = 8

_T = TypeVar("_T")
_R = TypeVar("_R")
_Key = tuple[str, str]


class Lookups:
    """Safe to share between threads: it uses the table's client, not the resource."""

    def __init__(self, table: "Table") -> None:
        self._name = table.name
        # The resource's client speaks Python values, as the resource does.
        self._client: Any = table.meta.client

    def of_repository(self, target: Target) -> Iterator[DigestRecord]:
        """All digests of a repository."""
        condition = Key("pk").eq(target.pk) & Key("sk").begins_with("D#")
        yield from map(record, self._query({}, KeyConditionExpression=condition))

    def tags(self, targets: Iterable[Target]) -> dict[Target, dict[str, TagRecord]]:
        """All tags of these repositories, by name."""
        wanted = list(dict.fromkeys(targets))
        return dict(zip(wanted, side_by_side(self._tags, wanted), strict=True))

    def _tags(self, target: Target) -> dict[str, TagRecord]:
        condition = Key("pk").eq(target.pk) & Key("sk").begins_with("T#")
        return {tags.name(item): tags.record(item) for item in self._query({}, KeyConditionExpression=condition)}

    def digests(self, wanted: Iterable[tuple[Target, str]]) -> dict[tuple[Target, str], DigestRecord]:
        """Those of them that there are."""
        found = map(record, self._get((target.pk, f"D#{digest}") for target, digest in wanted))
        return {(entry.target, entry.digest): entry for entry in found}

    def tag_records(self, wanted: Iterable[tuple[Target, str]]) -> dict[tuple[Target, str], TagRecord]:
        """Those of them that there are."""
        items = self._get((target.pk, f"T#{tag}") for target, tag in wanted)
        return {(Target.of(item["pk"]), tags.name(item)): tags.record(item) for item in items}

    def _get(self, keys: Iterable[_Key]) -> list[Item]:
        distinct = list(dict.fromkeys(keys))
        batches = [distinct[start : start + _BATCH] for start in range(0, len(distinct), _BATCH)]
        return [item for items in side_by_side(self._get_batch, batches) for item in items]

    def _get_batch(self, keys: list[_Key]) -> list[Item]:
        request: dict[str, Any] = {self._name: {"Keys": [{"pk": pk, "sk": sk} for pk, sk in keys]}}
        items: list[Item] = []
        while request:
            answer = self._client.batch_get_item(RequestItems=request)
            items += answer["Responses"].get(self._name, [])
            request = answer.get("UnprocessedKeys", {})
        return items

    def _query(self, after: Item, **arguments: Any) -> Iterator[Item]:
        return read_on(self._client.query, self._name, after, **arguments)


def read_on(call: Callable[..., Any], table: str, after: Item, **arguments: Any) -> Iterator[Item]:
    while True:
        start = {"ExclusiveStartKey": after} if after else {}
        answer = call(TableName=table, **arguments, **start)
        yield from answer["Items"]
        after = answer.get("LastEvaluatedKey", {})
        if not after:
            return


def side_by_side(call: Callable[[_T], _R], arguments: Sequence[_T]) -> list[_R]:
    if len(arguments) < 2:
        return [call(argument) for argument in arguments]
    with ThreadPoolExecutor(min(_THREADS, len(arguments))) as pool:
        return list(pool.map(call, arguments))
