"""CloudFormation and Lambda, as far as an operator asks them: over HTTP, since moto runs neither in this process."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

Function = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class ControlPlane:
    """`stacks`: name -> outputs. `functions`: name -> what an invocation answers; what it raises is its error."""

    stacks: dict[str, dict[str, str]] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    mappings: dict[str, dict[str, Any]] = field(default_factory=dict)
    busy: bool = False
    """Whether synchronous invocations find all of a function's concurrency in use."""
    queued: list[dict[str, Any]] = field(default_factory=list)
    """Payloads of asynchronous invocations."""
    denied: set[str] = field(default_factory=set)
    """First parts of paths and actions that answer AccessDenied."""
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator["ControlPlane"]:
        plane = self

        class Handler(_Handler):
            control_plane = plane

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def describe(self, name: str | None) -> tuple[int, str]:
        if "DescribeStacks" in self.denied:
            return 403, _error("AccessDenied", "User: somebody is not authorized to perform this")
        if name is not None and name not in self.stacks:
            return 400, _error("ValidationError", f"Stack with id {name} does not exist")
        found = {name: self.stacks[name]} if name is not None else self.stacks
        members = "".join(_stack(*stack) for stack in found.items())
        return 200, (
            '<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult>'
            f"<Stacks>{members}</Stacks></DescribeStacksResult></DescribeStacksResponse>"
        )

    def invoke(self, name: str, kind: str, payload: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if kind == "Event":
            self.queued.append(payload)
            return 202, {}, None
        if self.busy:
            return 429, {"x-amzn-errortype": "TooManyRequestsException"}, {"Reason": "ReservedFunctionConcurrent"}
        try:
            return 200, {}, self.functions[name](payload)
        except Exception as error:  # noqa: BLE001 - a function's crash is its answer
            failure = {"errorType": type(error).__name__, "errorMessage": str(error)}
            return 200, {"x-amz-function-error": "Unhandled"}, failure


class _Handler(BaseHTTPRequestHandler):
    control_plane: ControlPlane
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def _body(self) -> str:
        return self.rfile.read(int(self.headers.get("content-length", 0))).decode()

    def _answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        plane, body = self.control_plane, self._body()
        if "/invocations" in self.path:
            name = self.path.split("/")[3]
            kind = self.headers.get("x-amz-invocation-type", "RequestResponse")
            status, headers, answer = plane.invoke(name, kind, json.loads(body))
            self._answer(status, "" if answer is None else json.dumps(answer), headers)
            return
        asked = parse_qs(body)
        self._answer(*plane.describe(asked.get("StackName", [None])[0]))

    def do_GET(self) -> None:
        plane, path = self.control_plane, urlsplit(self.path).path
        if any(part in path for part in plane.denied):
            self._answer(403, json.dumps({"Message": "not authorized"}), {"x-amzn-errortype": "AccessDeniedException"})
        elif "event-source-mappings" in path:
            self._answer(200, json.dumps({"EventSourceMappings": list(plane.mappings.values())}))
        elif path.endswith("/concurrency"):
            self._answer(200, json.dumps({"ReservedConcurrentExecutions": 10}))
        else:
            self._answer(200, json.dumps({"AccountLimit": {"ConcurrentExecutions": 1000}}))

    def do_PUT(self) -> None:
        mapping = self.control_plane.mappings[self.path.rstrip("/").rpartition("/")[2]]
        mapping["State"] = "Enabled" if json.loads(self._body())["Enabled"] else "Disabled"
        self._answer(202, json.dumps(mapping))


def _stack(name: str, outputs: dict[str, str]) -> str:
    members = "".join(
        f"<member><OutputKey>{key}</OutputKey><OutputValue>{escape(value)}</OutputValue></member>"
        for key, value in outputs.items()
    )
    return (
        f"<member><StackName>{name}</StackName><StackStatus>CREATE_COMPLETE</StackStatus>"
        f"<CreationTime>2027-01-15T08:00:00Z</CreationTime><Outputs>{members}</Outputs></member>"
    )


def _error(code: str, message: str) -> str:
    return (
        '<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    )
