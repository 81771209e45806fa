"""Lambda, where MiniStack does otherwise than AWS, or shows too late what a function writes."""

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.core.concurrency import esm_wake
from ministack.core.responses import request_scope
from ministack.services import lambda_svc, sqs

from local.corrections import cloudwatch
from local.spec import TRUST, CloudSpec

Messages = list[dict[str, Any]]

_lock = threading.Lock()
_gathering: dict[str, float] = {}


def gathered(receive: Callable[[str, int], Messages]) -> Callable[[str, int], Messages]:
    """AWS: a batch that is not full waits for `MaximumBatchingWindowInSeconds`; MiniStack waits for nothing."""

    @functools.wraps(receive)
    def receive_batch(queue_url: str, most: int) -> Messages:
        queue = sqs._get_q(queue_url)
        arn = queue["attributes"]["QueueArn"]
        now = time.time()
        visible = sum(1 for message in list(queue["messages"]) if message["visible_at"] <= now)
        window = max(
            (
                float(mapping.get("MaximumBatchingWindowInSeconds") or 0)
                for mapping in list(lambda_svc._esms.values())
                if mapping.get("EventSourceArn") == arn
            ),
            default=0.0,
        )
        if 0 < visible < most and window:
            if arn not in _gathering:
                _gathering[arn] = now + window
                timer = threading.Timer(window, esm_wake.set)
                timer.daemon = True
                timer.start()
            if now < _gathering[arn]:
                return []
        _gathering.pop(arn, None)
        return receive(queue_url, most)

    return receive_batch


def reader(folder: Path) -> Callable[[Any], None]:
    """In the place of `Worker._read_stderr`: what a function writes, into a file as it comes, besides CloudWatch Logs,
    which gets it when the invocation ends. Metrics among it are taken as they come, too.
    """

    def read_stderr(worker: Any) -> None:
        queue = worker._stderr_queue
        region, account = worker.config["FunctionArn"].split(":")[3:5]
        with (folder / f"lambda-{worker.func_name}.log").open("a", encoding="utf-8") as log:
            for line in worker._proc.stderr:
                queue.put(line.rstrip("\n"))
                with request_scope(account, region):
                    cloudwatch.measured(line)
                with _lock:
                    log.write(line)
                    log.flush()

    return read_stderr


def warm(account: str, region: str, name: str) -> None:
    """Start one execution environment of a function, and leave it idle, as after an invocation.

    Raises KeyError for an unknown function, and RuntimeError with the reason when its module cannot be imported.
    """
    with request_scope(account, region):
        function, config = lambda_svc._get_func_record_for_qualifier(name, None)
        if function is None or config is None:
            raise KeyError(name)
        worker, _ = lambda_runtime.acquire_worker(name, config, function["code_zip"])
        try:
            lambda_runtime.ensure_spawned(worker)
        finally:
            lambda_runtime.release_worker(worker)


def apply(spec: CloudSpec) -> None:
    sqs._receive_messages_for_esm = gathered(sqs._receive_messages_for_esm)
    lambda_runtime.Worker._read_stderr = reader(Path(spec.log_dir))
    # MiniStack unpacks a function's code elsewhere than in /var/task, and changes no variable that names a file there.
    lambda_runtime._RESERVED_RUNTIME_ENV_VARS |= TRUST
