"""DynamoDB's table in memory, for the model's millions of calls: as strict as moto, and a hundred times as fast.

`tests/unit/test_ledger.py` runs the same contract on this, and on moto. It knows the expressions that the ledger uses
and raises on any other.
"""

import copy
import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, TypeVar

from boto3.dynamodb.conditions import ConditionBase
from botocore.exceptions import ClientError

Item = dict[str, Any]
Answer = TypeVar("Answer")


class FakeTable:
    """`hook` is called with the operation's name before each call, and may raise, or do other things meanwhile.

    If it answers True, the call's answer is lost and the SDK makes the call again, as botocore does after a time-out.
    """

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.hook: Callable[[str], bool | None] = lambda _operation: None
        self.name = "ledger"
        self.meta = SimpleNamespace(client=self)
        """The resource's client, which speaks Python values, too."""

    def _call(self, operation: str, work: Callable[[], Answer]) -> Answer:
        if self.hook(operation):
            with suppress(ClientError):
                work()
        return work()

    def get_item(self, *, Key: Item, ConsistentRead: bool = False) -> dict[str, Item]:
        assert ConsistentRead, "the ledger reads consistently"
        self.hook("GetItem")
        item = self.items.get((Key["pk"], Key["sk"]))
        return {} if item is None else {"Item": copy.deepcopy(item)}

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:
        self.hook("BatchGetItem")
        keys = [(key["pk"], key["sk"]) for key in RequestItems[self.name]["Keys"]]
        return {"Responses": {self.name: [copy.deepcopy(self.items[key]) for key in keys if key in self.items]}}

    def put_item(self, *, Item: Item, ConditionExpression: ConditionBase | None = None) -> None:
        def work() -> None:
            key = (Item["pk"], Item["sk"])
            self._check(self.items.get(key, {}), ConditionExpression)
            self.items[key] = _stored(Item)

        self._call("PutItem", work)

    def delete_item(self, *, Key: Item, ConditionExpression: ConditionBase | None = None) -> None:
        def work() -> None:
            key = (Key["pk"], Key["sk"])
            self._check(self.items.get(key, {}), ConditionExpression)
            self.items.pop(key, None)

        self._call("DeleteItem", work)

    def update_item(
        self,
        *,
        Key: Item,
        UpdateExpression: str,
        ReturnValues: str,
        ConditionExpression: ConditionBase | None = None,
        ExpressionAttributeNames: dict[str, str] | None = None,
        ExpressionAttributeValues: dict[str, Any] | None = None,
    ) -> dict[str, Item]:
        assert ReturnValues == "ALL_NEW"
        names = ExpressionAttributeNames or {}
        expression = re.sub(r"#(\w+)", lambda match: names[match.group()], UpdateExpression)

        def work() -> dict[str, Item]:
            key = (Key["pk"], Key["sk"])
            old = self.items.get(key, {})
            self._check(old, ConditionExpression)
            new = copy.deepcopy(old) or dict(Key)
            _apply(new, old, expression, _stored(ExpressionAttributeValues or {}))
            self.items[key] = new
            return {"Attributes": copy.deepcopy(new)}

        return self._call("UpdateItem", work)

    def query(self, *, KeyConditionExpression: ConditionBase, ConsistentRead: bool = False) -> dict[str, list[Item]]:
        assert ConsistentRead, "the ledger reads consistently"
        self.hook("Query")
        found = [item for item in self.items.values() if _holds(KeyConditionExpression, item)]
        return {"Items": copy.deepcopy(sorted(found, key=lambda item: item["sk"]))}

    def scan(self, *, IndexName: str) -> dict[str, list[Item]]:
        assert IndexName == "by-state"
        return {"Items": [item for item in self.items.values() if "state" in item and "changed_at" in item]}

    @staticmethod
    def _check(item: Item, condition: ConditionBase | None) -> None:
        if condition is not None and not _holds(condition, item):
            answer: Any = {
                "Error": {"Code": "ConditionalCheckFailedException", "Message": "The conditional request failed"}
            }
            raise ClientError(answer, "FakeTable")


def _stored(item: Item) -> Item:
    """Numbers come back as Decimal; a float, or an empty key, is refused."""
    for name, value in item.items():
        assert not isinstance(value, float), f"{name}: DynamoDB takes no float"
    return {
        name: Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else copy.deepcopy(value)
        for name, value in item.items()
    }


def _holds(condition: ConditionBase, item: Item) -> bool:
    expression = condition.get_expression()
    operator, values = expression["operator"], expression["values"]
    match operator:
        case "AND":
            return _holds(values[0], item) and _holds(values[1], item)
        case "OR":
            return _holds(values[0], item) or _holds(values[1], item)
        case "attribute_exists":
            return values[0].name in item
        case "attribute_not_exists":
            return values[0].name not in item
    name, wanted = values[0].name, values[1]
    if name not in item:
        return bool(operator == "<>")
    match operator:
        case "=":
            return bool(item[name] == wanted)
        case "<>":
            return bool(item[name] != wanted)
        case ">":
            return bool(item[name] > wanted)
        case "<=":
            return bool(item[name] <= wanted)
        case "<":
            return bool(item[name] < wanted)
    raise NotImplementedError(operator)


def _apply(new: Item, old: Item, expression: str, values: Item) -> None:
    clauses = re.split(r"\b(SET|REMOVE|ADD)\b", expression)[1:]
    for verb, body in zip(clauses[::2], clauses[1::2], strict=True):
        parts = [part.strip() for part in re.split(r",(?![^(]*\))", body)]
        for part in parts:
            if verb == "REMOVE":
                new.pop(part, None)
            elif verb == "ADD":
                name, value = part.split()
                new[name] = old.get(name, Decimal(0)) + values[value]
            else:
                name, value = (side.strip() for side in part.split("=", 1))
                new[name] = _value(old, value, values)


def _value(old: Item, text: str, values: Item) -> Any:
    if match := re.fullmatch(r"if_not_exists\((\w+), (:\w+)\)", text):
        return old.get(match[1], values[match[2]])
    if match := re.fullmatch(r"(\w+) \+ (:\w+)", text):
        return old[match[1]] + values[match[2]]
    return values[text]
