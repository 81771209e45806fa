"""The part of the Docker Engine API that MiniStack's ECS uses, on a loopback port, for containers as host processes.

Whatever image a task definition names, the copier runs: it is the only image of the template. What is not answered
here says so with 501. `python -m local.engine`, specification as the first line of standard input; it ends with it.
"""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from local import dockerfile
from local.containers import Container, Containers, Host

API_VERSION: Final = "1.41"
FOLLOW_SECONDS: Final = 0.1
"""How often a followed log is looked at."""


class Unanswerable(Exception):
    """An HTTP status with its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    query: dict[str, str]
    body: dict[str, Any]

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")


class Engine:
    """Answers requests: (status, JSON or None), or a stream for logs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.containers = Containers()
        one = r"/containers/([^/]+)"
        self.routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("GET", r"/_ping", lambda _: (200, {})),
            ("GET", r"/version", lambda _: (200, {"ApiVersion": API_VERSION, "MinAPIVersion": "1.24", "Version": "0"})),
            ("GET", r"/containers/json", self.list),
            ("POST", r"/containers/create", self.create),
            ("GET", one + r"/json", self.inspect),
            ("POST", one + r"/start", self.start),
            ("POST", one + r"/stop", self.stop),
            ("POST", one + r"/kill", self.kill),
            ("POST", one + r"/wait", self.wait),
            ("GET", one + r"/logs", self.logs),
            ("DELETE", one, self.remove),
        )

    def answer(self, method: str, request: Request) -> Any:
        """Raises Unanswerable."""
        path = re.sub(r"^/v[0-9.]+(?=/)", "", request.path)
        for verb, pattern, handler in self.routes:
            if verb == method and (match := re.fullmatch(pattern, path)):
                return handler(request, *map(unquote, match.groups()))
        raise Unanswerable(501, f"{method} {path} is not part of this engine: it runs the copier as host processes")

    def _find(self, name: str) -> Container:
        container = self.containers.find(name)
        if container is None:
            raise Unanswerable(404, f"No such container: {name}")
        return container

    def list(self, request: Request) -> Any:
        wanted = json.loads(request.query.get("filters", "{}")).get("label", [])
        return 200, [
            {
                "Id": container.id,
                "Names": [f"/{container.name}"],
                "Image": container.image,
                "Labels": container.labels,
                "State": container.status,
                "Status": container.status,
            }
            for container in self.containers.every()
            if (request.flag("all") or container.status == "running")
            and all(_labelled(container.labels, label) for label in wanted)
        ]

    def create(self, request: Request) -> Any:
        command = request.body.get("Cmd") or []
        container = Container(
            name=request.query.get("name", ""),
            image=request.body.get("Image", ""),
            labels=request.body.get("Labels") or {},
            environment=dict(entry.split("=", 1) for entry in request.body.get("Env") or []),
            command=[command] if isinstance(command, str) else command,
            host=self.host,
        )
        container.name = container.name or container.id[:12]
        try:
            self.containers.add(container)
        except FileExistsError:
            raise Unanswerable(409, f"The container name {container.name} is already in use") from None
        return 201, {"Id": container.id, "Warnings": []}

    def inspect(self, _: Request, name: str) -> Any:
        container = self._find(name)
        running = container.status == "running"
        return 200, {
            "Id": container.id,
            "Name": f"/{container.name}",
            "Created": container.created,
            "Image": container.image,
            "LogPath": str(container.log),
            "Config": {"Labels": container.labels, "Image": container.image, "Tty": False},
            "HostConfig": {"LogConfig": {"Type": "json-file"}},
            "NetworkSettings": {"Networks": {}},
            "State": {
                "Status": container.status,
                "Running": running,
                "Pid": container.process.pid if running and container.process else 0,
                "ExitCode": container.code,
                "StartedAt": container.started,
                "FinishedAt": container.finished,
            },
        }

    def start(self, _: Request, name: str) -> Any:
        container = self._find(name)
        if container.process is not None:
            return 304, None
        self.containers.start(container)
        return 204, None

    def stop(self, request: Request, name: str) -> Any:
        container = self._find(name)
        if container.status != "running":
            return 304, None
        container.stop(float(request.query.get("t", "10")))
        return 204, None

    def kill(self, request: Request, name: str) -> Any:
        container = self._find(name)
        if container.status != "running":
            raise Unanswerable(409, f"Container {name} is not running")
        container.signal(_signal_number(request.query.get("signal", "SIGKILL")))
        return 204, None

    def wait(self, _: Request, name: str) -> Any:
        container = self._find(name)
        container.ended.wait()
        return 200, {"StatusCode": container.code, "Error": None}

    def remove(self, request: Request, name: str) -> Any:
        container = self._find(name)
        if container.status == "running":
            if not request.flag("force"):
                raise Unanswerable(409, f"You cannot remove a running container {name}. Stop it, or force removal")
            container.stop(0)
        self.containers.remove(container)
        return 204, None

    def logs(self, request: Request, name: str) -> Iterator[bytes]:
        container = self._find(name)
        return _follow(container) if request.flag("follow") else iter([_frame(container.log.read_bytes())])


def _labelled(labels: dict[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def _signal_number(name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise Unanswerable(400, f"Invalid signal: {name}") from None


def _frame(payload: bytes) -> bytes:
    """Docker's framing of a container's output: stream 1, four bytes of length."""
    return struct.pack(">BxxxL", 1, len(payload)) + payload


def _follow(container: Container) -> Iterator[bytes]:
    """Whole lines as they come, until the container has ended."""
    rest = b""
    with container.log.open("rb") as log:
        while True:
            ended = container.ended.wait(FOLLOW_SECONDS)
            rest += log.read()
            whole, newline, rest = rest.rpartition(b"\n")
            if whole or newline:
                yield _frame(whole + newline)
            if ended:
                break
    if rest:
        yield _frame(rest)


def handler_for(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def respond(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            try:
                body = json.loads(text) if text.strip() else {}
                answer = engine.answer(self.command, Request(parts.path, query, body or {}))
            except Unanswerable as problem:
                answer = problem.status, {"message": str(problem)}
            except ValueError as problem:
                answer = 400, {"message": str(problem)}
            with contextlib.suppress(ConnectionError):
                if isinstance(answer, tuple):
                    self.send_json(*answer)
                else:
                    self.send_stream(answer)

        do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = respond  # noqa: N815 - the base class's names

        def send_json(self, status: int, content: Any) -> None:
            text = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status not in (204, 304):
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def send_stream(self, chunks: Iterator[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            """MiniStack asks ten times a second for each task; that is no news."""

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket, engine: Engine) -> None:
        super().__init__(listening.getsockname(), handler_for(engine), bind_and_activate=False)
        self.socket.close()
        self.socket = listening


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    host = Host(
        work_dir=Path(spec["work_dir"]),
        log_dir=Path(spec["log_dir"]),
        path=spec["path"],
        sources=Path(spec["sources"]),
        registries=tuple(spec["registries"]),
        image=dockerfile.read(Path(spec["dockerfile"])),
    )
    engine = Engine(host)
    server = Server(socket.socket(fileno=spec["listen"]), engine)

    def end(*_: object) -> None:
        engine.containers.end_all()
        os._exit(0)

    def watch_parent() -> None:
        sys.stdin.buffer.read()
        end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=end).start())
    threading.Thread(target=watch_parent, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
