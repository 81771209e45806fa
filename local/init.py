"""A container's PID 1, without a container: whatever a command starts ends with it, as in a PID namespace.

Run as a script by `containers.py`, with the command as a line of JSON on standard input. The end of standard input is
SIGKILL for everything, so the engine's own death is too. SIGTERM and its like go to the command. It exits with the
command's code, 128 + signal where there was one. Single-threaded, standard library, nothing imported that is slow.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
NOT_STARTED = 127  # what a shell answers for a command that it cannot find


def adopt_orphans() -> None:
    """Become the parent of every orphan among this process's descendants."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int, spare: Collection[int] = ()) -> list[int]:
    """Processes that descend from `root`, zombies too, but for the spared and theirs."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs an import, in every task
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="latin-1") as stat:  # noqa: PTH123
            parent = int(stat.read().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = list(children.get(root, []))
    while waiting:
        pid = waiting.pop()
        if pid not in spare:
            found.append(pid)
            waiting += children.get(pid, [])
    return found


def kill_descendants(root: int, spare: Collection[int] = ()) -> None:
    """SIGKILL every descendant of `root`, but for the spared and theirs."""
    for pid in descendants(root, spare):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def reap() -> dict[int, int]:
    """Exit codes of the children that have ended."""
    codes: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes


def end_all() -> None:
    """Kill until nothing is left; orphans become our children as their parents die."""
    while descendants(os.getpid()):
        kill_descendants(os.getpid())
        reap()
        select.select([], [], [], 0.002)


def run(command: list[str], environment: dict[str, str], folder: str) -> int:
    """The command's exit code. Nothing that it started is left when this returns."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signals: list[int] = []
    for number in FORWARDED:
        signal.signal(number, lambda received, _: signals.append(received))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        leader = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr)
        return NOT_STARTED
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        while signals:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader.pid, signals.pop(0))
        code = reap().get(leader.pid)
        if code is None and 0 in ready and not os.read(0, 4096):
            code = -signal.SIGKILL
        if code is not None:
            end_all()
            return code if code >= 0 else 128 - code


def main() -> None:
    # Not sys.stdin: what it read ahead, `select` would never see.
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(0, 65536)
        if not read:
            os._exit(128 + signal.SIGKILL)
        line += read
    adopt_orphans()
    spec = json.loads(line)
    code = run(spec["command"], spec["environment"], spec["folder"])
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
