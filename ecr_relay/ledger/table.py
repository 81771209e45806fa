"""The table, its keys, its clock, and the two things that every record does with it."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from boto3.dynamodb.conditions import ConditionBase
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

Item = dict[str, Any]
Clock = Callable[[], int]

STATE_INDEX = "by-state"
SKEW_MS = 5_000
"""How far the clocks of two processes may be apart; AWS keeps its own within milliseconds."""


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def open_table(name: str) -> "Table":
    """The table in the region and with the credentials of the environment; calls are bounded to seconds."""
    # 3 attempts of 5 s stay well inside the lease (slots.LEASE_MS) that a call may have to renew.
    config = Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=20,
    )
    return boto3.resource("dynamodb", config=config).Table(name)


@dataclass(frozen=True, slots=True)
class Target:
    """One repository at one destination: what digests and tags belong to. Named by the source's repository."""

    source: str
    destination: str
    repository: str

    @property
    def pk(self) -> str:
        return f"R#{self.source}#{self.destination}#{self.repository}"

    @classmethod
    def of(cls, pk: str) -> "Target":
        """The inverse of `pk`."""
        _, source, destination, repository = pk.split("#", 3)
        return cls(source, destination, repository)


def read(table: "Table", pk: str, sk: str) -> Item | None:
    """One consistent read."""
    return table.get_item(Key={"pk": pk, "sk": sk}, ConsistentRead=True).get("Item")


def condition_failed(error: ClientError) -> bool:
    return error.response["Error"]["Code"] == "ConditionalCheckFailedException"


def update(
    table: "Table", pk: str, sk: str, expression: str, condition: ConditionBase | None, values: Mapping[str, Any]
) -> Item | None:
    """One write, conditional if there is a condition; the item as it is afterwards, or None if it did not hold.

    Names that DynamoDB reserves are written `#name` in the expression.
    """
    names = {f"#{name}": name for name in re.findall(r"#(\w+)", expression)}
    arguments: dict[str, Any] = {
        "Key": {"pk": pk, "sk": sk},
        "UpdateExpression": expression,
        "ReturnValues": "ALL_NEW",
    }
    if condition is not None:
        arguments["ConditionExpression"] = condition
    if names:
        arguments["ExpressionAttributeNames"] = names
    if values:
        arguments["ExpressionAttributeValues"] = {f":{name}": value for name, value in values.items()}
    try:
        return table.update_item(**arguments)["Attributes"]
    except ClientError as error:
        if condition_failed(error):
            return None
        raise
