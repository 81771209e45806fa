"""Which request goes wrong, and how: the plan's storms, and a little all the time."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from tests.chaos.plan import WHERE, Storm, Where
from tests.chaos.proxy import Fault, Request

# (kind, share of all requests), while there is no storm. A copy makes 20 to 40 requests, an invocation about as many.
# What opens the destination's breaker is rare, or nothing would be copied between the storms.
_EVERYDAY: Final[dict[str, tuple[tuple[str, float], ...]]] = {
    "source": (
        ("429", 0.002),
        ("503", 0.001),
        ("cut before", 0.001),
        ("cut answer", 0.001),
        ("lost answer", 0.0005),
        ("slow", 0.04),
    ),
    "west": (
        ("429", 0.0002),
        ("500", 0.001),
        ("503", 0.001),
        ("cut before", 0.0002),
        ("cut upload", 0.002),
        ("lost answer", 0.001),
        ("slow", 0.04),
    ),
    "ecr": (("throttled", 0.0005), ("500", 0.004), ("cut before", 0.002), ("lost answer", 0.004), ("slow", 0.01)),
}
_API: Final = (("throttled", 0.004), ("500", 0.004), ("cut before", 0.002), ("lost answer", 0.004), ("slow", 0.005))
"""Of the other services: DynamoDB, SQS, ECS, SSM."""
LONG_SECONDS: Final = 35.0
"""How long the layer of a `long` image takes."""

_TOO_MANY: Final = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}'
_INTERNAL: Final = b'{"errors":[{"code":"UNKNOWN","message":"internal error"}]}'
_CUTS: Final = {"cut before": "before", "cut upload": "upload", "cut answer": "answer", "lost answer": "lost"}
# What each service calls "too fast" and "our fault", and the statuses it says it with.
_THROTTLED: Final = {
    "dynamodb": ("ProvisionedThroughputExceededException", 400),
    "sqs": ("RequestThrottled", 403),
    "ssm": ("ThrottlingException", 400),
    "ecs": ("ThrottlingException", 400),
    "ecr": ("ThrottlingException", 400),
}
_BROKEN: Final = {
    "dynamodb": "InternalServerError",
    "sqs": "InternalError",
    "ssm": "InternalServerError",
    "ecs": "ServerException",
    "ecr": "ServerException",
}


class Faults:
    """For the three proxies together. Nothing happens before `begin` and after `stop`."""

    def __init__(
        self,
        seed: int,
        storms: Collection[Storm],
        slow_blobs: dict[str, int],
        log: Path,
        harshness: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`slow_blobs`: digests that the source hands out in LONG_SECONDS, with their sizes in bytes.

        `harshness` multiplies what goes wrong between the storms.
        """
        self.counts: Counter[tuple[str, str]] = Counter()
        self._storms = storms
        self._slow_blobs = slow_blobs
        self._clock = clock
        self._random = {where: random.Random(f"faults {seed} {where}") for where in WHERE}  # noqa: S311 - no secret
        self._lock = threading.Lock()
        self._log = log.open("a", encoding="utf-8")
        self._harshness = harshness
        self._began: float | None = None

    def begin(self) -> None:
        self._began = self._clock()

    def stop(self) -> None:
        self._began = None

    def close(self) -> None:
        self._log.close()

    def choose(self, where: Where, request: Request) -> Fault | None:
        began = self._began
        slow = where == "source" and request.method == "GET" and request.blob in self._slow_blobs
        rate = self._slow_blobs[request.blob or ""] / LONG_SECONDS if slow else 0.0
        if began is None:
            return Fault("long", rate=rate) if rate else None
        with self._lock:
            kind = self._kind(where, request, self._clock() - began)
            if kind is None:
                return Fault("long", rate=rate) if rate else None
            self.counts[where if where != "api" else request.service, kind] += 1
            told = {"at": self._clock(), "where": where, "kind": kind, "request": request.line}
            self._log.write(json.dumps(told) + "\n")
            self._log.flush()
        return self._fault(where, request, kind, self._random[where].uniform(0.3, 3.0))

    def _kind(self, where: Where, request: Request, at: float) -> str | None:
        drawn = self._random[where].random()  # one for each request, so that the hundredth meets the same in each run
        for storm in self._storms:
            service = storm.service or request.service
            if storm.where == where and service == request.service and storm.at <= at < storm.at + storm.seconds:
                kinds = storm.kinds
                return kinds[int(drawn / storm.share * len(kinds))] if drawn < storm.share else None
        for kind, share in _EVERYDAY.get(where if where != "api" else request.service, _API):
            if drawn < share * self._harshness:
                return kind
            drawn -= share * self._harshness
        return None

    @staticmethod
    def _fault(where: Where, request: Request, kind: str, seconds: float) -> Fault:
        if kind == "slow":
            return Fault(kind, wait=seconds)
        if kind in _CUTS:
            return Fault(kind, cut=_CUTS[kind])
        if where == "api":
            code, status = _THROTTLED.get(request.service, ("ThrottlingException", 400))
            if kind == "500":
                code, status = _BROKEN.get(request.service, "InternalFailure"), 500
            body = json.dumps({"__type": code, "message": "Rate exceeded" if status < 500 else "injected"}).encode()
            return Fault(kind, status=status, headers=(("Content-Type", "application/x-amz-json-1.1"),), body=body)
        json_type = ("Content-Type", "application/json")
        return Fault(kind, status=int(kind), headers=(json_type,), body=_TOO_MANY if kind == "429" else _INTERNAL)
