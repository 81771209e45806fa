"""SQS, where MiniStack loses messages between its threads, and where it lacks what AWS has."""

import functools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from ministack.core.concurrency import esm_wake
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge, sqs

Request = dict[str, Any]
Queue = dict[str, Any]

NOISY = 30
"""Messages in flight from which SQS fair queues take a message group for a noisy neighbour (observed, about)."""

_collect = sqs._collect_msgs
_lock = threading.RLock()
_moves: list[Request] = []


def locked(function: Callable[..., Any]) -> Callable[..., Any]:
    """AWS loses no message. MiniStack rebuilds a queue's list in the event source mapping's thread while requests
    append to the old one; so all that touches a queue goes one at a time.
    """

    @functools.wraps(function)
    def one_at_a_time(*arguments: Any, **named: Any) -> Any:
        with _lock:
            return function(*arguments, **named)

    return one_at_a_time


def collect(queue: Queue, most: int, visibility: int) -> list[Request]:
    """AWS: on a standard queue, a message group with many messages in flight is served after the quiet ones."""
    now = time.time()
    flying = Counter(
        message.get("group_id")
        for message in queue["messages"]
        if message.get("group_id") and message["visible_at"] > now and message["receive_count"]
    )
    noisy = {group for group, count in flying.items() if count >= NOISY}
    if noisy and not queue["is_fifo"]:
        queue["messages"].sort(key=lambda message: message.get("group_id") in noisy)
    found: list[Request] = _collect(queue, most, visibility)
    return found


def start_message_move_task(data: Request, _url: str) -> Request:
    """AWS: moves a dead-letter queue's messages back to where they came from, or to a named queue, as new messages."""
    source = sqs._queue_by_arn(data.get("SourceArn", ""))
    if source is None:
        raise sqs._Err("ResourceNotFoundException", "The resource that you specified for the SourceArn doesn't exist.")
    wanted = data.get("DestinationArn")
    moved = 0
    for message in list(source["messages"]):
        if message["visible_at"] > time.time():
            continue
        target = sqs._queue_by_arn(wanted or message.get("sys", {}).get("DeadLetterQueueSourceArn", ""))
        if target is None:
            continue
        source["messages"].remove(message)
        now = time.time()
        fresh = {
            "receipt_handle": None,
            "receive_count": 0,
            "first_receive_at": None,
            "sent_at": now,
            "visible_at": now,
        }
        system = {**message.get("sys", {}), "SentTimestamp": str(int(now * 1000))}
        system.pop("DeadLetterQueueSourceArn", None)
        target["messages"].append({**message, **fresh, "id": str(uuid.uuid4()), "sys": system})
        moved += 1
    handle = str(uuid.uuid4())
    _moves.append(
        {
            "TaskHandle": handle,
            "Status": "COMPLETED",
            "SourceArn": data["SourceArn"],
            **({"DestinationArn": wanted} if wanted else {}),
            "ApproximateNumberOfMessagesMoved": moved,
            "ApproximateNumberOfMessagesToMove": moved,
            "StartedTimestamp": int(time.time() * 1000),
        }
    )
    esm_wake.set()
    return {"TaskHandle": handle}


def list_message_move_tasks(data: Request, _url: str) -> Request:
    """AWS: the latest first, at most 10; a finished task has no handle any more."""
    found = [move for move in reversed(_moves) if move["SourceArn"] == data.get("SourceArn")]
    shown = found[: int(data.get("MaxResults", 1))]
    return {"Results": [{name: value for name, value in move.items() if name != "TaskHandle"} for move in shown]}


def cancel_message_move_task(data: Request, _url: str) -> Request:  # noqa: ARG001 - the handlers' signature
    """AWS: only a running task can be cancelled; here none runs for longer than its call."""
    scope = f"{get_account_id()} in {get_region()}"
    raise sqs._Err("ResourceNotFoundException", f"No running message move task has this handle ({scope}).")


def apply() -> None:
    sqs._queues_lock = _lock
    sqs._collect_msgs = locked(collect)
    for name in ("_dlq_sweep", "_expire_retained", "_refresh_counts"):
        setattr(sqs, name, locked(getattr(sqs, name)))
    # ReceiveMessage waits, and holds no list while it does: what it calls is locked above.
    for action, handler in sqs._HANDLERS.items():
        if action != "ReceiveMessage":
            sqs._HANDLERS[action] = locked(handler)
    for handler in (start_message_move_task, list_message_move_tasks, cancel_message_move_task):
        action = "".join(word.capitalize() for word in handler.__name__.split("_"))
        sqs._HANDLERS[action] = locked(handler)
    eventbridge._dispatch_to_sqs = locked(eventbridge._dispatch_to_sqs)
