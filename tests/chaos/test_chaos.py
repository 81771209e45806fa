"""The pure parts of the chaos run: what it plans, and what it concludes from logs. The run itself is `make chaos`."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from tests.chaos import evidence, plan
from tests.chaos.evidence import Interval, Logs
from tests.chaos.faults import Faults
from tests.chaos.load import Told
from tests.chaos.plan import Move, Push, Storm
from tests.chaos.proxy import Fault, Proxy, Request, named

DIGEST = "sha256:" + "a" * 64


# The plan ---------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_plan_and_another_seed_another() -> None:
    assert plan.make(7, 60, 90, 100) == plan.make(7, 60, 90, 100)
    assert plan.make(7, 60, 90, 100) != plan.make(8, 60, 90, 100)


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_has_what_was_asked_for_and_can_be_done(seed: int) -> None:
    made = plan.make(seed, 60, 90, 100, broken=4)
    pushed: dict[int, float] = {}
    tags: dict[tuple[str, str], int] = {}
    for action in made.actions:
        if isinstance(action, Push):
            pushed[action.image.number] = action.at
            continue
        assert pushed[action.image.number] < action.at, "moved to an image that is not there yet"
        assert not action.image.broken
        assert tags.get((action.image.repository, action.tag)) != action.image.number, "a move that moves nothing"
        tags[action.image.repository, action.tag] = action.image.number
    assert len(pushed) == 60
    assert sum(isinstance(action, Move) for action in made.actions) == made.moves == 90
    assert len(made.broken) == 4
    assert all(kill.at <= plan.CONSUMER_SHARE * 100 for kill in made.kills if kill.victim == "consumer")
    assert {storm.where for storm in made.storms} == {"source", "west", "api"}


def test_too_few_images_for_the_broken_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        plan.make(1, 9, 5, 10)


# Faults -----------------------------------------------------------------------------------------------------------


def request(name: str = "GET manifest", service: str = "registry", blob: str | None = None) -> Request:
    return Request(name, service, name.partition(" ")[0], f"{name} HTTP/1.1", 1, blob)


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    storm = Storm(10, 5, "west", 0.5, ("429", "503"))
    now = [0.0]
    made = Faults(1, [storm], {DIGEST: 700}, tmp_path / "faults.jsonl", clock=lambda: now[0])
    made.now = now  # type: ignore[attr-defined]
    yield made
    made.close()


def test_nothing_goes_wrong_before_the_begin_and_after_the_end(faults: Faults) -> None:
    assert all(faults.choose("west", request()) is None for _ in range(2000))
    faults.begin()
    assert any(faults.choose("west", request()) is not None for _ in range(2000))
    faults.stop()
    assert all(faults.choose("west", request()) is None for _ in range(2000))


def test_in_a_storm_its_share_of_the_requests_goes_wrong_in_its_ways(faults: Faults) -> None:
    faults.begin()
    faults.now[0] = 12.0  # type: ignore[attr-defined]
    chosen = [faults.choose("west", request()) for _ in range(1000)]
    assert 400 < sum(fault is not None for fault in chosen) < 600
    assert {fault.status for fault in chosen if fault} == {429, 503}
    assert faults.counts["west", "429"] + faults.counts["west", "503"] == sum(fault is not None for fault in chosen)


def test_a_long_layer_is_slow_whatever_else_goes_on(faults: Faults) -> None:
    fault = faults.choose("source", request("GET blob", blob=DIGEST))
    assert fault is not None
    assert fault.rate == 20
    assert faults.choose("west", request("GET blob", blob=DIGEST)) is None


# The proxy --------------------------------------------------------------------------------------------------------


class Upstream:
    """Answers every request with `answer`, and counts them."""

    def __init__(self, answer: bytes) -> None:
        self.heads: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._answer = answer
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65536):
                    self.heads.append(data)
                    connection.sendall(self._answer)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


class Once:
    """One fault for every request."""

    def __init__(self, fault: Fault | None, caught: str = "") -> None:
        self._fault = fault
        self._caught = caught
        self.requests: list[Request] = []

    def fault(self, request: Request) -> Fault | None:
        self.requests.append(request)
        return self._fault

    def caught(self, request: Request, *, answered: bool) -> bool:
        return self._caught == ("answered" if answered else "asked")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789")
    yield server
    server.close()


def through(upstream: Upstream, mischief: Once, method: str = "GET", body: bytes | None = None) -> Any:
    proxy = Proxy(mischief)
    proxy.start(upstream.port)
    try:
        url = f"http://127.0.0.1:{proxy.port}/v2/a/manifests/1"
        with urllib3.PoolManager(retries=False, timeout=5) as pool:
            return pool.request(method, url, body=body)
    finally:
        proxy.close()


def test_what_is_left_alone_arrives_as_it_was(upstream: Upstream) -> None:
    assert through(upstream, Once(None)).data == b"0123456789"
    assert upstream.heads[0].startswith(b"GET /v2/a/manifests/1 HTTP/1.1\r\n")


def test_an_answer_of_its_own_reaches_the_client_and_nothing_the_server(upstream: Upstream) -> None:
    answer = through(upstream, Once(Fault("429", status=429, body=b"slow")), "PUT", b"body")
    assert (answer.status, answer.data) == (429, b"slow")
    assert upstream.heads == []


@pytest.mark.parametrize(("cut", "reached"), [("before", 0), ("lost", 1), ("answer", 1)])
def test_a_cut_is_an_error_at_the_client(upstream: Upstream, cut: str, reached: int) -> None:
    with pytest.raises(HTTPError):
        through(upstream, Once(Fault(cut, cut=cut)))
    assert len(upstream.heads) == reached


@pytest.mark.parametrize(("caught", "reached"), [("asked", 0), ("answered", 1)])
def test_who_is_killed_at_a_call_gets_no_answer(upstream: Upstream, caught: str, reached: int) -> None:
    with pytest.raises(HTTPError):
        through(upstream, Once(None, caught))
    assert len(upstream.heads) == reached


def test_a_tls_handshake_is_told_that_this_is_no_tls(upstream: Upstream) -> None:
    proxy = Proxy(Once(None))
    proxy.start(upstream.port)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
        client.sendall(b"\x16\x03\x01\x00\x05hello")
        assert client.recv(100).startswith(b"HTTP/1.0 400")
    proxy.close()


@pytest.mark.parametrize(
    ("head", "name", "service"),
    [
        ("POST / HTTP/1.1\r\nX-Amz-Target: DynamoDB_20120810.UpdateItem", "UpdateItem", "dynamodb"),
        ("POST / HTTP/1.1\r\nX-Amz-Target: AmazonEC2ContainerServiceV20141113.RunTask", "RunTask", "ecs"),
        ("POST / HTTP/1.1\r\nx-amz-target: AmazonEC2ContainerRegistry_V20150921.PutImage", "PutImage", "ecr"),
        (f"GET /v2/a/b/blobs/{DIGEST} HTTP/1.1", "GET blob", "registry"),
        ("PATCH /v2/a/b/blobs/uploads/1 HTTP/1.1", "PATCH upload", "registry"),
        ("PUT /v2/a/manifests/latest HTTP/1.1", "PUT manifest", "registry"),
    ],
)
def test_a_request_is_named_by_what_it_does(head: str, name: str, service: str) -> None:
    found = named(f"{head}\r\n\r\n".encode(), 1)
    assert (found.name, found.service) == (name, service)
    assert found.blob == (DIGEST if name == "GET blob" else None)


# The evidence -----------------------------------------------------------------------------------------------------


def at(seconds: float, message: str, **more: object) -> dict[str, Any]:
    return {"timestamp": f"2026-01-01T00:00:{seconds:06.3f}+00:00", "message": message, **more}


BASE = evidence.when(at(0, ""))


def test_at_once_means_at_the_same_time() -> None:
    assert evidence.most_at_once([]) == 0
    assert evidence.most_at_once([Interval(0, 2, ""), Interval(2, 4, ""), Interval(1, 3, "")]) == 2


def test_two_tasks_at_one_digest_are_found_and_one_after_the_other_are_not() -> None:
    def task(begin: float, end: float, run: str) -> list[dict[str, Any]]:
        outcome = at(end, "copy failed", repository="r", digest="d")
        return [at(begin, "begin", run=run), outcome, at(end + 5, "end", run=run)]

    jobs = {run: [("r", "d")] for run in ("1", "2", "3")}
    ended = {"a": BASE + 7, "b": BASE + 12, "c": BASE + 9}
    apart = Logs({"a": task(1, 2, "1"), "b": task(3, 4, "2")}, [], [])
    assert evidence.overlaps(evidence.copies(apart, ended, jobs)) == []
    together = Logs({"a": task(1, 4, "1"), "c": task(3, 5, "3")}, [], [])
    assert len(evidence.overlaps(evidence.copies(together, ended, jobs))) == 1


def test_a_killed_task_had_its_digests_until_it_was_no_more() -> None:
    logs = Logs({"a": [at(1, "begin", run="1")]}, [], [])
    assert evidence.copies(logs, {"a": BASE + 6}, {"1": [("r", "d")]}) == {"r@d": [Interval(BASE + 1, BASE + 6, "a")]}


def test_the_lag_of_a_move_ends_with_its_digest_or_a_later_one() -> None:
    told = {
        ("r", "t"): [Told(0, "r", "t", "one", True), Told(1, "r", "t", "two", True), Told(9, "r", "t", "one", True)]
    }
    assert evidence.lags(told, {("r", "t"): [(5.0, "two"), (12.0, "one")]}) == [5, 4, 3]
    assert evidence.lags(told, {("r", "t"): [(5.0, "one")]}) == [5], "what the tag had before does not count"


def test_percentiles() -> None:
    assert evidence.percentile([], 0.5) == 0
    assert evidence.percentile([3, 1, 2], 0.5) == 2
    assert evidence.percentile(list(range(100)), 0.99) == 99


LETTER = {"id": "m", "repository": "r", "digest": "d", "tag": "t", "sent_at": "2026-01-01T00:00:00Z", "kind": "push"}


def failed(reason: str, attempt: int | None = 1) -> dict[str, Any]:
    return at(3, "failed", message_id="m", reason=reason, attempt=attempt)


def test_what_was_done_to_the_image_of_a_dead_letter() -> None:
    copy = at(2, "copy failed", repository="r", digest="d", error="503")
    other = at(2, "copy failed", repository="r", digest="e", error="500")
    logs = Logs(
        {"a": [copy, copy, other]}, [failed("Transient: 503"), failed("Transient: 503"), failed("given up", None)], []
    )
    found = evidence.grounds(logs, LETTER, ["d"], [], [])
    assert (found.failures, found.refusals, found.unanswered) == (2, 0, 0)
    assert evidence.grounds(logs, LETTER, ["d"], [[("r", "d")], [("r", "e")]], []).tasks_killed == 1


def test_a_delivery_that_nobody_answered_needs_a_consumer_that_was_killed() -> None:
    logs = Logs({}, [failed("ClientError: out of reach"), failed("ClientError: out of reach")], [])
    assert evidence.grounds(logs, LETTER, ["d"], [], [BASE - 10]).unanswered == 0, "killed before it was sent"
    assert evidence.grounds(logs, LETTER, ["d"], [], [BASE + 10]).unanswered == 1


def test_interruptions_are_counted_by_image() -> None:
    def given_up(digest: str, how: str, count: int) -> dict[str, Any]:
        return at(1, "given up", repository="r", digest=digest, how=how, interruptions=count)

    lines = [given_up("d", "interrupted", 1), given_up("d", "interrupted", 2), given_up("e", "interrupted", 1)]
    logs = Logs({}, [*lines, given_up("f", "released", 0)], [])
    assert evidence.interruptions(logs) == "3 of 2 images, at most 2 in a row"
