"""ECS: a launched task runs the real copier in this process, at once or when it is told to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ecr_relay.tasks import LEASE_OVER, TaskState


def arn_of(run: str) -> str:
    return f"arn:aws:ecs:us-east-1:000000000000:task/relay/{run}"


@dataclass
class FakeTasks:
    """`runner` is what a task does; it may raise: then the task is over, with that as its reason."""

    runner: Callable[[str], None]
    at_once: bool = True
    refuse: list[Exception] = field(default_factory=list)
    """Raised by the next launches, before anything is started."""
    lose: list[Exception] = field(default_factory=list)
    """Raised by the next launches, after the task was started: the answer is lost."""
    started: dict[str, TaskState] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    def launch(self, run: str) -> str:
        if self.refuse:
            raise self.refuse.pop(0)
        arn = arn_of(run)
        self.started[arn] = TaskState(arn, over=False, pending=True)
        if self.at_once:
            self.run(run)
        if self.lose:
            raise self.lose.pop(0)
        return arn

    def run(self, run: str) -> None:
        """Let a started task do its work and end."""
        arn = arn_of(run)
        reason = "EssentialContainerExited: exit code 0"
        try:
            self.runner(run)
        except Exception as error:  # noqa: BLE001 - a task's crash is its exit status
            reason = f"EssentialContainerExited: exit code 1 ({error})"
        self.started[arn] = TaskState(arn, over=True, pending=False, reason=reason)

    def begin(self, run: str) -> None:
        """The container is up."""
        arn = arn_of(run)
        self.started[arn] = TaskState(arn, over=False, pending=False)

    def end(self, run: str, reason: str, **how: bool) -> None:
        """The task is gone without having done anything: killed, never started, its host lost."""
        arn = arn_of(run)
        self.started[arn] = TaskState(arn, over=True, pending=False, reason=reason, **how)

    @property
    def alive(self) -> list[str]:
        return [arn for arn, state in self.started.items() if not state.over]

    def states(self, arns: Iterable[str]) -> dict[str, TaskState]:
        return {arn: self.started[arn] for arn in arns if arn in self.started}

    def of_run(self, run: str) -> str | None:
        return next((arn for arn in self.started if arn.endswith(run)), None)

    def stop(self, arn: str, reason: str) -> None:
        self.stopped.append(arn)
        passing = reason != LEASE_OVER
        self.started[arn] = TaskState(arn, over=True, pending=False, reason=f"UserInitiated: {reason}", passing=passing)
