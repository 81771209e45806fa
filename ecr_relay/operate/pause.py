"""Hold and go on: all of it, or one destination. Copies that run go on to their end either way.

All of it is the event source mapping, through which messages come to the consumer: what is pushed meanwhile waits in
the copy queue, which keeps it for seven days. A destination is a note in the ledger, by which the consumer defers its
messages: each is sent anew every minute or so (reconcile work every ten), so that none grows old in the queue.
"""

import time
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError
from pydantic import Field

from ecr_relay.errors import RelayError
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import code_of
from ecr_relay.operate.shapes import Shape

if TYPE_CHECKING:
    from mypy_boto3_lambda.type_defs import EventSourceMappingConfigurationTypeDef

KEEPS_DAYS: Final = 7
"""The copy queue's retention: what is paused for longer loses pushes, and only a reconcile finds them again."""
_SETTLE_S: Final = 60
_POLL_S: Final = 1.0


class Consuming(Shape):
    """`pause` and `resume`."""

    destination: str | None = Field(description="null: all of it")
    consuming: bool
    changed: bool = Field(description="false: it was so before")
    state: str | None = Field(description="Lambda's: Enabled, Disabled, or on its way there; null with a destination")
    paused_destinations: list[str] = Field(description="those that are paused by themselves now")


def consumer_enabled(deployment: Deployment) -> bool:
    """Whether messages are received. Raises RelayError when the mapping is gone."""
    return _mapping(deployment).get("State") in ("Creating", "Enabling", "Enabled", "Updating")


def may_consume(deployment: Deployment) -> bool | None:
    """As `consumer_enabled`; None where we may not ask."""
    try:
        return consumer_enabled(deployment)
    except ClientError as error:
        if code_of(error).startswith("AccessDenied"):
            return None
        raise


def set_consuming(deployment: Deployment, consuming: bool) -> Consuming:
    """Returns when Lambda has done it, or after a minute, with the state that it is in."""
    mapping = _mapping(deployment)
    changed = consumer_enabled(deployment) != consuming
    if changed:
        deployment.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=consuming)
    deadline = time.monotonic() + _SETTLE_S
    wanted = "Enabled" if consuming else "Disabled"
    while (state := _mapping(deployment).get("State", "")) != wanted and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return Consuming(
        destination=None,
        consuming=consuming,
        changed=changed,
        state=state,
        paused_destinations=list(paused(deployment)),
    )


def set_destination(deployment: Deployment, destination: str, consuming: bool) -> Consuming:
    """Raises Unusable for a destination that is not configured."""
    deployment.destinations(destination)
    notes = deployment.ledger.notes
    changed = notes.resume(destination) if consuming else notes.pause(destination)
    return Consuming(
        destination=destination,
        consuming=consuming,
        changed=changed,
        state=None,
        paused_destinations=list(paused(deployment)),
    )


def paused(deployment: Deployment) -> dict[str, int]:
    """Destinations that are paused by themselves, and since when (ms)."""
    found = {name: deployment.ledger.notes.paused(name) for name in deployment.destinations(None)}
    return {name: since for name, since in found.items() if since is not None}


def _mapping(deployment: Deployment) -> "EventSourceMappingConfigurationTypeDef":
    """The one from the copy queue to the consumer."""
    function = deployment.outputs.consumer_function
    name = deployment.outputs.queue_url.rpartition("/")[2]
    found = deployment.functions.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    for mapping in found:
        if mapping.get("EventSourceArn", "").endswith(f":{name}"):
            return mapping
    raise RelayError(f"function {function} has no event source mapping of queue {name}: deploy the stack again")
