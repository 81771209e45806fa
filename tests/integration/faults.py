"""A loopback proxy in front of a registry that answers some requests with a fault instead of passing them on."""

import re
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Fault:
    """What happens to the next `times` requests whose `"METHOD /path"` the pattern is found in."""

    pattern: str
    status: int | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False  # never answer
    cut_after: int | None = None  # pass the answer on, but end the connection if its body is longer than this
    hang_after: int | None = None  # the same, but then say nothing more
    times: int = 1_000_000


class FaultyProxy:
    """Listens on a free loopback port; `host` is what to call instead of the registry's own."""

    def __init__(self, upstream: str, *faults: Fault) -> None:
        self.upstream = upstream
        self.faults = list(faults)
        self.seen: list[str] = []
        self._lock = threading.Lock()
        self.released = threading.Event()  # lets hanging answers end, so that no thread outlives the test
        self.pool = urllib3.PoolManager(retries=False, timeout=20)
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.pool.clear()

    def fault(self, request: str) -> Fault | None:
        with self._lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyProxy

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _serve(self) -> None:
        fault = self.owner.fault(f"{self.command} {self.path}")
        if fault and fault.hang:
            self.owner.released.wait()
            self.close_connection = True
            return
        body = self._body()
        if fault and fault.status is not None:
            self._answer(fault.status, fault.headers.items(), fault.body)
            return
        if fault and fault.cut_after == 0 and self.command != "GET":
            self._cut()
            return
        headers = urllib3.HTTPHeaderDict()  # Go sends one Accept line a type
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                headers.add(name, value)
        answer = self.owner.pool.request(
            self.command, f"http://{self.owner.upstream}{self.path}", body=body or None, headers=headers, redirect=False
        )
        self._answer(answer.status, answer.headers.items(), answer.data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the base class's names

    def _answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes, fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut_after is not None and len(body) > fault.cut_after:
            self.wfile.write(body[: fault.cut_after])
            self._cut()
        elif fault and fault.hang_after is not None and len(body) > fault.hang_after:
            self.wfile.write(body[: fault.hang_after])
            self.wfile.flush()
            self.owner.released.wait()
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _cut(self) -> None:
        """End the connection with a reset."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()
