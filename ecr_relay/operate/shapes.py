"""What several answers are made of. Times in answers are UTC, ages whole seconds."""

import time
from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from ecr_relay.errors import RelayError
from ecr_relay.ledger import Run

LOG_PREFIX: Final = "copier/copier"
"""Of a copy task's log stream: the log driver's prefix and the container's name, before the task's id (ECS)."""


class TimeOver(RelayError):
    """What was waited for did not come in time."""


class Shape(BaseModel):
    """Base of all that `--json` prints. A key is always there; null: not known, or not so."""

    model_config = ConfigDict(frozen=True)


def at(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def task_id(run: Run | None) -> str | None:
    """The last part of the task's ARN, which is what ECS's console and the log stream call it."""
    return run.task.rpartition("/")[2] if run is not None and run.task else None


def log_stream(run: Run | None) -> str | None:
    task = task_id(run)
    return f"{LOG_PREFIX}/{task}" if task else None


class Deadline:
    """So many seconds from now; None: for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def check(self) -> None:
        """Raises TimeOver."""
        if self.over:
            raise TimeOver(f"not ended within {self._seconds:g} seconds; it goes on without being waited for")
