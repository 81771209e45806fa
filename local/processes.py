"""Child processes that never outlive us, and listening sockets that are handed to them."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

GRACE_SECONDS = 5.0


def listen() -> socket.socket:
    """A listening socket on a free loopback port. Who connects before the child serves, waits."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    listening.set_inheritable(True)
    return listening


class Child:
    """A server of ours, in a process group of its own. It ends when our end of its standard input does.

    So it ends with us, however we end; `log` has its output.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        spec: str,
        log: Path,
        sockets: list[socket.socket],
        environment: dict[str, str],
        folder: Path,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=folder,
                pass_fds=[listening.fileno() for listening in sockets],
                start_new_session=True,
            )
        for listening in sockets:
            listening.close()  # the child's now: when it is gone, clients are refused and do not hang
        if self._process.stdin is None:
            raise RuntimeError("unreachable: stdin is a pipe")
        self._stdin = self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended already; the next look at `code` says so
            self._stdin.write(spec.encode() + b"\n")
            self._stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit status when it has ended by itself, negative for a signal."""
        return self._process.poll()

    def end(self) -> None:
        """Ask, wait, then kill its whole process group. Harmless when it has ended."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
