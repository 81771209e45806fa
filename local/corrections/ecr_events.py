"""ECR tells EventBridge of every push and delete, and rules forward events where a bus lets them in; MiniStack does
neither, and CloudFormation there knows no policy of a bus.
"""

import json
import logging
import queue
import threading
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import eventbridge
from ministack.services.cloudformation import provisioners

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
    """AWS: a rule's target may be a bus of another region, or of another account that lets this one put events; the
    event keeps those that it comes from.
    """
    if (target.account_id, target.region) == (get_account_id(), get_region()):
        _to_event_bus(target, event, rule, path, payload)
        return
    source_rule = eventbridge._rule_key(rule.get("Name"), rule.get("EventBusName", "default"))
    name = target.resource.split("/", 1)[1]
    account = get_account_id()
    forwarded = {**event, "EventBusName": name, "_DispatchPath": [*path, source_rule]}
    with request_scope(target.account_id, target.region):
        if target.account_id == account or _lets_in(name, account):
            eventbridge._dispatch_event(forwarded)
        else:
            log.warning("the bus %s of %s does not let account %s in", name, target.account_id, account)


def _lets_in(bus: str, account: str) -> bool:
    """Whether the policy of a bus of the current account and region has a statement for `account`."""
    policy = eventbridge._event_bus_policies.get(bus) or {"Statement": []}
    return any(
        statement["Action"] == "events:PutEvents" and account in str(statement["Principal"])
        for statement in policy["Statement"]
    )


def _create_policy(_: str, properties: dict[str, Any], __: str) -> tuple[str, dict[str, Any]]:
    """AWS: `Statement` is one of the bus's policy, by its id."""
    told = {**properties["Statement"], "StatementId": properties["StatementId"]}
    eventbridge._put_permission(told | {"EventBusName": properties.get("EventBusName", "default")})
    return properties["StatementId"], {}


def _delete_policy(statement: str, properties: dict[str, Any]) -> None:
    eventbridge._remove_permission(
        {"StatementId": statement, "EventBusName": properties.get("EventBusName", "default")}
    )


def apply() -> None:
    provisioners._RESOURCE_HANDLERS["AWS::Events::EventBusPolicy"] = {
        "create": _create_policy,
        "delete": _delete_policy,
    }
    eventbridge._dispatch_to_event_bus = to_event_bus
    threading.Thread(target=_deliver, daemon=True, name="ecr-events").start()
