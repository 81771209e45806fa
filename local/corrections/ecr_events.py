"""ECR tells EventBridge of every push and delete, and rules forward events; MiniStack does neither."""

import json
import logging
import queue
import threading
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import eventbridge

log = logging.getLogger("ecr-relay.local")

_to_event_bus = eventbridge._dispatch_to_event_bus
_waiting: queue.SimpleQueue[tuple[str, str, dict[str, Any]]] = queue.SimpleQueue()


def emit(action: str, repository: str, tag: str | None, image: dict[str, str]) -> None:
    """Queue an `ECR Image Action` of the current account and region; a push does not wait for its event.

    AWS: `resources` is empty, and `image-tag` is empty for what was pushed without one, as an index's children are.
    """
    told = {"result": "SUCCESS", "repository-name": repository, "action-type": action, "image-tag": tag or ""}
    _waiting.put((get_account_id(), get_region(), {**told, **image}))


def _deliver() -> None:
    while True:
        account, region, detail = _waiting.get()
        entry = {
            "Source": "aws.ecr",
            "DetailType": "ECR Image Action",
            "Detail": json.dumps(detail),
            "Resources": [],
        }
        try:
            with request_scope(account, region):
                eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
        except Exception:  # an event lost, as AWS may lose one, must not stop the rest
            log.exception("no event for %s", detail)


def to_event_bus(
    target: Any, event: dict[str, Any], rule: dict[str, Any], path: set[str], payload: str | None = None
) -> None:
    """AWS: a rule's target may be a bus of another account or region; the event keeps those that it comes from."""
    if (target.account_id, target.region) == (get_account_id(), get_region()):
        _to_event_bus(target, event, rule, path, payload)
        return
    source_rule = eventbridge._rule_key(rule.get("Name"), rule.get("EventBusName", "default"))
    name = target.resource.split("/", 1)[1]
    forwarded = {**event, "EventBusName": name, "_DispatchPath": [*path, source_rule]}
    with request_scope(target.account_id, target.region):
        eventbridge._dispatch_event(forwarded)


def apply() -> None:
    eventbridge._dispatch_to_event_bus = to_event_bus
    threading.Thread(target=_deliver, daemon=True, name="ecr-events").start()
