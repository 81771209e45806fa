"""The copy queue, remembered: what was sent, deferred and hidden. `tests/unit/test_queues.py` has the real one."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ecr_relay.messages import Envelope
from ecr_relay.queues import wait_seconds


@dataclass
class FakeQueue:
    sent: list[Envelope] = field(default_factory=list)
    deferred: list[Envelope] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    hidden: dict[str, int] = field(default_factory=dict)
    backlog: int = 0

    def send(self, envelopes: Iterable[Envelope]) -> int:
        new = list(envelopes)
        self.sent += new
        return len(new)

    def defer(self, envelope: Envelope, now: int) -> int:
        self.deferred.append(envelope.deferred(now))
        return wait_seconds(envelope.lane, (now - envelope.first_seen) / 1000)

    def repeat(self, body: str) -> int:
        self.repeated.append(body)
        return 60

    def hide(self, receipt_handle: str, seconds: int) -> None:
        self.hidden[receipt_handle] = seconds

    def waiting(self) -> int:
        return self.backlog
