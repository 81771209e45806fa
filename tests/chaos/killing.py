"""Killing the relay's own processes on one local cloud: copiers below its engine, consumers below its MiniStack."""

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from local.init import descendants
from tests.chaos.plan import Kill, Victim, Where
from tests.chaos.proxy import Request

COPIER: Final = "ecr_relay.copy"
_PATIENCE_S: Final = 1.0
"""How often a kill that finds nobody looks again."""
APART_S: Final[dict[Victim, float]] = {"copier": 4.0, "consumer": 2.0}
"""Between two kills of a kind: those that are overdue, because nobody lived, would all hit the next few that do."""


@dataclass(frozen=True, slots=True)
class Killed:
    """`at` in seconds since the epoch. `name`: the task's id, or the function's execution environment."""

    at: float
    kill: Kill
    pid: int
    name: str


class Processes:
    """Those of one local cloud, by the pids of its two servers."""

    def __init__(self, engine: int, cloud: int, consumer_function: str) -> None:
        self._engine = engine
        self._cloud = cloud
        self._consumer = consumer_function

    def victims(self, victim: Victim) -> dict[int, str]:
        """pid -> name of those that live, in the order of their pids."""
        root = self._engine if victim == "copier" else self._cloud
        found = {}
        for pid in sorted(descendants(root)):
            name = self._name(victim, pid)
            if name:
                found[pid] = name
        return found

    def _name(self, victim: Victim, pid: int) -> str:
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
            if victim == "copier" and COPIER in arguments:
                return Path(f"/proc/{pid}/cwd").readlink().name
            if victim == "consumer" and any(self._consumer in argument for argument in arguments):
                return next(argument for argument in arguments if self._consumer in argument).split("/")[-2]
        return ""

    def caller(self, victim: Victim, port: int) -> tuple[int, str] | None:
        """Whose connection has `port` at its end: a victim's own, or one of its children's (skopeo)."""
        inode = _inode(port)
        if inode is None:
            return None
        for pid, name in self.victims(victim).items():
            if any(_holds(one, inode) for one in (pid, *descendants(pid))):
                return pid, name
        return None


class Killer:
    """Carries out the plan's kills when they are due, until `stop`."""

    def __init__(
        self,
        processes: Processes,
        kills: Sequence[Kill],
        log: Path,
        say: Callable[[str, str], None],
    ) -> None:
        self.done: list[Killed] = []
        self._processes = processes
        self._timed = [kill for kill in kills if kill.call is None]
        self._traps = [kill for kill in kills if kill.call is not None]
        self._log = log
        self._say = say
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._last: dict[Victim, float] = {}
        self._began: float | None = None
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)

    @property
    def counts(self) -> Counter[str]:
        names = (
            f"{one.kill.victim} {one.kill.signal}{' at a call' if one.kill.call is not None else ''}"
            for one in self.done
        )
        return Counter(names)

    def begin(self) -> None:
        self._began = time.time()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        for kill in self._timed:
            if self._over.wait(max(0.0, (self._began or 0) + kill.at - time.time())):
                return
            while self._too_soon(kill.victim) or not (alive := self._processes.victims(kill.victim)):
                if self._over.wait(_PATIENCE_S):
                    return
            pid = list(alive)[int(kill.pick * len(alive))]
            self._end(kill, pid, alive[pid])

    def caught(self, where: Where, request: Request, *, answered: bool) -> bool:
        """Whether a trap was set for this call, and its caller is no more."""
        if self._began is None or self._over.is_set() or not self._traps:
            return False
        call = f"{where} {request.name}"
        with self._lock:
            now = time.time() - self._began
            for kill in self._traps:
                due = kill.at <= now and not self._too_soon(kill.victim)
                if due and kill.call == call and kill.answered == answered:
                    caller = self._processes.caller(kill.victim, request.port)
                    if caller is not None:
                        self._traps.remove(kill)
                        return self._end(kill, *caller)
        return False

    def _too_soon(self, victim: Victim) -> bool:
        return time.time() - self._last.get(victim, 0.0) < APART_S[victim]

    def _end(self, kill: Kill, pid: int, name: str) -> bool:
        try:
            os.kill(pid, getattr(signal, f"SIG{kill.signal}"))
        except ProcessLookupError:
            return False
        killed = Killed(time.time(), kill, pid, name)
        self._last[kill.victim] = killed.at
        self.done.append(killed)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(killed)) + "\n")
        at = f" at {kill.call} {'answered' if kill.answered else 'unanswered'}" if kill.call else ""
        self._say("kill", f"SIG{kill.signal} to a {kill.victim}{at}: {name} ({pid})")
        return True


def _inode(port: int) -> str | None:
    """Of the loopback socket whose own port it is, in the kernel's table."""
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted and fields[9] != "0":
            return fields[9]
    return None


def _holds(pid: int, inode: str) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) == f"socket:[{inode}]":
                    return True
    return False
