"""Containers as host processes: each under an `init.py` of its own, with a private home, its output in a file."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from local import init
from local.dockerfile import ImageConfig
from local.spec import TRUST

_INIT: Final = Path(init.__file__)
_NEVER: Final = "0001-01-01T00:00:00Z"  # how Docker writes a time that has not come


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Host:
    """What a task finds on this machine."""

    work_dir: Path
    log_dir: Path
    path: str
    """PATH of the tasks: where `python` and `skopeo` are."""
    sources: Path
    """The repository, where the image has the package installed."""
    registries: tuple[str, ...]
    """Loopback registries, which speak plain HTTP."""
    image: ImageConfig


@dataclass(slots=True)
class Container:
    """One task's process tree. `code` is known once `ended` is set."""

    name: str
    image: str
    labels: dict[str, str]
    environment: dict[str, str]
    command: list[str]
    host: Host
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    created: str = field(default_factory=now)
    started: str = _NEVER
    finished: str = _NEVER
    code: int = 0
    process: subprocess.Popen[bytes] | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def status(self) -> str:
        if self.process is None:
            return "created"
        return "exited" if self.ended.is_set() else "running"

    @property
    def task_id(self) -> str:
        arn = self.labels.get("com.amazonaws.ecs.task-arn", "")
        return arn.rpartition("/")[2] or self.id[:12]

    @property
    def log(self) -> Path:
        return self.host.log_dir / f"{self.task_id}.log"

    @property
    def home(self) -> Path:
        return self.host.work_dir / self.task_id

    def start(self) -> None:
        """Begin once; a second start changes nothing, as with Docker."""
        if self.process is not None:
            return
        self._make_home()
        command = [*self.host.image.entrypoint, *(self.command or self.host.image.command)]
        spec = {"command": command, "environment": self._environment(), "folder": str(self.home)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_INIT)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={},
                start_new_session=True,
            )
        self.started = now()
        stdin = self._stdin()
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(spec).encode() + b"\n")
            stdin.flush()

    def wait(self) -> int:
        """Until it has ended; the exit code, 128 + signal where there was one."""
        if self.process is None:
            return 0
        code = self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._stdin().close()
        self.code = code if code >= 0 else 128 - code
        shutil.rmtree(self.home, ignore_errors=True)  # a task's storage ends with it
        self.finished = now()
        self.ended.set()
        return self.code

    def signal(self, number: int) -> None:
        if self.process is None or self.ended.is_set():
            return
        if number == signal.SIGKILL:
            with contextlib.suppress(BrokenPipeError):
                self._stdin().close()  # init kills all that descends from it
        else:
            self.process.send_signal(number)

    def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL for what is left after `seconds`."""
        self.signal(signal.SIGTERM)
        if self.process is not None and not self.ended.wait(seconds):
            self.signal(signal.SIGKILL)
            self.ended.wait()

    def _stdin(self) -> IO[bytes]:
        if self.process is None or self.process.stdin is None:
            raise RuntimeError("the container has not been started")
        return self.process.stdin

    def _make_home(self) -> None:
        """A home of its own, as in a fresh container; skopeo is told that loopback registries speak plain HTTP."""
        configuration = self.home / ".config" / "containers" / "registries.conf"
        configuration.parent.mkdir(parents=True)
        (self.home / "tmp").mkdir()
        lines = [f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in self.host.registries]
        configuration.write_text("\n".join(lines), encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        """The image's, what Fargate adds, the task definition's and RunTask's; nothing of the engine's own."""
        fields = self.labels.get("com.amazonaws.ecs.task-arn", "::::::").split(":")
        region, account = fields[3] or "us-east-1", fields[4] or "000000000000"
        # The image's paths are not this machine's.
        image = {name: value for name, value in self.host.image.environment.items() if not value.startswith("/")}
        given = {
            name: value.replace("host.docker.internal", "127.0.0.1")  # the host, where we already are
            for name, value in self.environment.items()
            # MiniStack names an address for the role's credentials at which nobody answers.
            if not name.startswith(("AWS_CONTAINER_CREDENTIALS_", "AWS_CONTAINER_AUTHORIZATION_"))
            and name not in TRUST  # a path of the image's, too
        }
        fargate = {
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            "AWS_ACCESS_KEY_ID": account,  # MiniStack takes twelve digits for the account
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        machine = {
            "PATH": self.host.path,
            "PYTHONPATH": str(self.host.sources),
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "LANG": "C.UTF-8",
        }
        return {**image, **fargate, **given, **machine}


class Containers:
    """All of an engine's containers."""

    def __init__(self) -> None:
        self._all: dict[str, Container] = {}
        self._lock = threading.Lock()
        self._closed = False
        init.adopt_orphans()

    def add(self, container: Container) -> None:
        """Raises FileExistsError when its name is taken."""
        with self._lock:
            if any(other.name == container.name for other in self._all.values()):
                raise FileExistsError(container.name)
            self._all[container.id] = container

    def start(self, container: Container) -> None:
        with self._lock:  # an orphan hunt between its fork and its entry would kill it
            if self._closed or container.process is not None:
                return
            container.start()
        threading.Thread(target=self._watch, args=(container,), daemon=True).start()

    def find(self, name: str) -> Container | None:
        """By name, id, or the beginning of an id."""
        with self._lock:
            for container in self._all.values():
                if container.name == name or (name and container.id.startswith(name)):
                    return container
        return None

    def every(self) -> list[Container]:
        with self._lock:
            return list(self._all.values())

    def remove(self, container: Container) -> None:
        with self._lock:
            self._all.pop(container.id, None)

    def end_all(self) -> None:
        """SIGKILL for all, and no more starts."""
        with self._lock:
            self._closed = True
        for container in self.every():
            container.signal(signal.SIGKILL)
        for container in self.every():
            if container.process is not None:
                container.ended.wait(5)
        init.kill_descendants(os.getpid())

    def _watch(self, container: Container) -> None:
        container.wait()
        if container.process is not None and container.process.returncode < 0:
            # Its init was killed: its orphans are ours now, and no child of ours but an init has a right to be.
            with self._lock:
                inits = [other.process.pid for other in self._all.values() if other.process]
                init.kill_descendants(os.getpid(), inits)
