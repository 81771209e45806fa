"""A loopback proxy that passes bytes on, and for some requests does what networks and registries do on a bad day.

One thread and one upstream connection for each client's, so that what happens to one connection happens to the other.
Nothing is parsed but the head of each message: it costs a task little, and bodies are cut where they are.
"""

import contextlib
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

HEAD_LIMIT: Final = 262_144
"""Of a request's or an answer's head, in bytes: DynamoDB's and ECR's are a few hundred."""
_PIECE: Final = 65_536
_UPSTREAM_SECONDS: Final = 120.0
_RESET: Final = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s

_TLS: Final = b"\x16\x03"
"""How a handshake begins: skopeo tries that first."""
_BLOB: Final = re.compile(r"/blobs/(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Request:
    """`name` is what it is about: `GET blob`, `PUT manifest`, `POST upload`, or the operation of an API."""

    name: str
    service: str
    """`dynamodb`, `ecr`, `ecs`, `sqs`, `ssm`; of a registry "registry"."""
    method: str
    line: str
    port: int
    """The client's."""
    blob: str | None = None
    """The digest of the blob that is asked for."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One of: an answer instead of the upstream's, an end of the connection, a wait.

    before        the connection is reset, and nothing is passed on
    upload        reset in the middle of the request's body
    lost          passed on and answered, but the answer is lost
    answer        reset in the middle of the answer's body
    """

    kind: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    cut: str = ""
    wait: float = 0.0
    """Seconds before it is passed on."""
    rate: float = 0.0
    """Bytes a second of the answer's body; 0: as fast as it comes."""


class Mischief(Protocol):
    """Decides; called from many threads."""

    def fault(self, request: Request) -> Fault | None:
        """What goes wrong with this request, if anything does."""

    def caught(self, request: Request, *, answered: bool) -> bool:
        """Whether the client was killed now, before its request is passed on or when it was answered."""


class _Closed(Exception):
    """One side has ended the connection, or was made to."""


class Proxy:
    """Listens at once on a free loopback port; who connects before `start` waits."""

    def __init__(self, mischief: Mischief) -> None:
        self._mischief = mischief
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._upstream = 0
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True)
        self.requests = 0

    def start(self, upstream: int) -> None:
        """Begin to serve, for the server at this loopback port."""
        self._upstream = upstream
        self._thread.start()

    def close(self) -> None:
        """End every connection. Harmless before `start`, and twice."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, (_, port) = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, port), name="proxied", daemon=True).start()

    def _serve(self, client: socket.socket, port: int) -> None:
        upstream = socket.socket()
        with self._lock:
            self._open |= {client, upstream}
        try:
            with client, upstream:
                upstream.settimeout(_UPSTREAM_SECONDS)
                upstream.connect(("127.0.0.1", self._upstream))
                for connection in (client, upstream):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                near, far = _Stream(client), _Stream(upstream)
                while not self._over.is_set() and near.waits_for_more(upstream):
                    self._exchange(near, far, port)
        except (_Closed, OSError):
            pass  # whoever is left notices by the end of its connection
        finally:
            with self._lock:
                self._open -= {client, upstream}

    def _exchange(self, near: "_Stream", far: "_Stream", port: int) -> None:
        head = near.head()
        request = named(head, port)
        with self._lock:
            self.requests += 1
        if self._mischief.caught(request, answered=False):
            raise _Closed
        fault = self._mischief.fault(request)
        if fault is None:
            fault = Fault("none")
        if fault.wait:
            self._over.wait(fault.wait)
        if fault.cut == "before":
            near.reset()
        pieces = near.body(head, answer_to=None)
        if fault.status:
            for _ in pieces:
                pass
            near.send(_answer(fault, request))
            return
        far.send(head)
        for piece in pieces:
            if fault.cut == "upload":
                far.send(piece[: len(piece) // 2])
                near.reset()
            far.send(piece)
        if fault.cut == "upload":  # it had no body
            near.reset()
        self._bring_back(near, far, request, fault)

    def _bring_back(self, near: "_Stream", far: "_Stream", request: Request, fault: Fault) -> None:
        head = far.head()
        while re.match(rb"HTTP/1\.[01] 1\d\d ", head):
            near.send(head)
            head = far.head()
        held = fault.cut == "lost"
        pieces = far.body(head, answer_to=request.method)
        if held:
            for _ in pieces:
                pass
            near.reset()
        if self._mischief.caught(request, answered=True):
            raise _Closed
        near.send(head)
        sent = 0
        began = time.monotonic()
        for piece in pieces:
            if fault.cut == "answer":
                near.send(piece[: len(piece) // 2])
                near.reset()
            for start in range(0, len(piece), _PIECE if not fault.rate else 16_384):
                part = piece[start : start + (_PIECE if not fault.rate else 16_384)]
                near.send(part)
                sent += len(part)
                if fault.rate:
                    self._over.wait(max(0.0, sent / fault.rate - (time.monotonic() - began)))
        if fault.cut == "answer":
            near.reset()
        if b"connection: close" in head.lower():
            raise _Closed


class _Stream:
    """One side's bytes, with what was read ahead."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ahead = b""

    def waits_for_more(self, other: socket.socket) -> bool:
        """Block until there is a next message; False when either side has ended the connection."""
        if self._ahead:
            return True
        poll = select.poll()
        for connection in (self._connection, other):
            poll.register(connection, select.POLLIN)
        if other.fileno() in {descriptor for descriptor, _ in poll.poll()}:
            return False  # between two messages it can only say that it ends
        self._ahead = self._connection.recv(_PIECE)
        return bool(self._ahead)

    def head(self) -> bytes:
        if self._ahead.startswith(_TLS):
            self.send(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
            raise _Closed
        while (end := self._ahead.find(b"\r\n\r\n")) < 0:
            if len(self._ahead) > HEAD_LIMIT:
                raise _Closed
            self._ahead += self._more()
        head, self._ahead = self._ahead[: end + 4], self._ahead[end + 4 :]
        return head

    def body(self, head: bytes, answer_to: str | None) -> Iterator[bytes]:
        """The bytes that follow `head`, chunked framing included. `answer_to`: the method, if it is an answer."""
        if answer_to is not None and (answer_to == "HEAD" or re.match(rb"HTTP/1\.[01] (204|304) ", head)):
            return
        if re.search(rb"\r\ntransfer-encoding:[^\r]*chunked", head, re.IGNORECASE):
            yield from self._chunks()
            return
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if length is None and answer_to is not None:
            raise _Closed  # until the end of the connection: nobody here answers so
        yield from self._exactly(int(length[1]) if length else 0)

    def _chunks(self) -> Iterator[bytes]:
        while True:
            while (end := self._ahead.find(b"\r\n")) < 0:
                self._ahead += self._more()
            size = int(self._ahead[:end].partition(b";")[0], 16)
            yield from self._exactly(end + 2 + size + 2)  # no trailers: nobody here sends any
            if size == 0:
                return

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length > 0:
            if not self._ahead:
                self._ahead = self._more()
            piece, self._ahead = self._ahead[:length], self._ahead[length:]
            length -= len(piece)
            yield piece

    def _more(self) -> bytes:
        read = self._connection.recv(_PIECE)
        if not read:
            raise _Closed
        return read

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def reset(self) -> None:
        """End the connection with a reset. Raises _Closed, always."""
        with contextlib.suppress(OSError):
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise _Closed


def named(head: bytes, port: int) -> Request:
    """What a request is about, from its head."""
    text = head.decode("latin-1")
    line = text.partition("\r\n")[0]
    method, _, rest = line.partition(" ")
    path = rest.partition(" ")[0]
    target = re.search(r"\r\nx-amz-target: *([^\r]+)", text, re.IGNORECASE)
    if target:
        prefix, _, operation = target[1].rpartition(".")
        return Request(operation, _service(prefix), method, f"{line} {target[1]}", port)
    blob = _BLOB.search(path)
    what = next((name for part, name in _PARTS if part in path), "other")
    return Request(f"{method} {what}", "registry", method, line, port, blob[1] if blob else None)


_PARTS: Final = (("/blobs/uploads", "upload"), ("/blobs/", "blob"), ("/manifests/", "manifest"))
_SERVICES: Final = (
    ("DynamoDB", "dynamodb"),
    ("AmazonEC2ContainerRegistry", "ecr"),
    ("AmazonEC2ContainerService", "ecs"),
    ("AmazonSQS", "sqs"),
    ("AmazonSSM", "ssm"),
)


def _service(prefix: str) -> str:
    return next((name for begin, name in _SERVICES if prefix.startswith(begin)), prefix)


def _answer(fault: Fault, request: Request) -> bytes:
    body = b"" if request.method == "HEAD" else fault.body
    headers = "".join(f"{name}: {value}\r\n" for name, value in fault.headers)
    return f"HTTP/1.1 {fault.status} Injected\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
