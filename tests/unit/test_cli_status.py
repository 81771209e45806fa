"""`ecr-relay status` and `images`: looking on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ecr_relay.cli import screen
from ecr_relay.config import RelayConfig
from ecr_relay.errors import RegistryDown, Transient
from ecr_relay.ledger import Target, now_ms
from ecr_relay.operate import status as operate
from tests.unit.conftest import ACCOUNT, CONFIG, REGION
from tests.unit.office import MAPPING, Office, opened, refused

SOURCE = f"{ACCOUNT}.{REGION}"
DESTINATIONS = [
    {"name": "west", "region": "eu-west-1", "account": ACCOUNT},
    {"name": "north", "region": "eu-north-1", "account": ACCOUNT, "prefix": "mirror"},
]


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    config = RelayConfig.model_validate_json(json.dumps({**CONFIG, "destinations": DESTINATIONS}))
    with opened(config, monkeypatch) as office:
        yield office


def copied(office: Office, repository: str, *tags: str, content: str = "") -> str:
    """Pushed, and copied to both destinations; its digest."""
    digest = ""
    for tag in tags:
        digest, event = office.world.push(repository, content or f"{repository}:{tag}", tag)
        office.send(event)
        office.consume(rounds=2)  # split, then both
    return digest


def failed(office: Office, repository: str, count: int, destination: str = "west", error: str = "blob lost") -> str:
    digest = office.world.source.push(repository, f"{repository} broken", "9")
    target = Target(SOURCE, destination, repository)
    digests = office.world.ledger.digests
    for number in range(count):
        assert digests.claim(digests.get(target, digest), f"run-{number}", now_ms())
        assert digests.fail(target, digest, f"run-{number}", Transient(error))
    return digest


def test_status_of_a_relay_at_rest(office: Office) -> None:
    answer = office.json("status")
    at = answer.pop("at")
    assert at.endswith("Z")
    assert answer == {
        "stack": "ecr-relay",
        "region": REGION,
        "consuming": True,
        "queue": {"waiting": 0, "in_flight": 0, "delayed": 0},
        "oldest_message_seconds": None,
        "oldest_image_seconds": None,
        "oldest_push_seconds": None,
        "lag": None,
        "dead_letters": 0,
        "event_dead_letters": 0,
        "slots": 10,
        "running": [],
        "reconcile": None,
        "failures": {"exhausted": 0, "failed": 0, "waiting": 0, "latest": []},
        "breakers": [],
        "paused": [],
    }
    result = office.run("status")
    assert result.exit_code == 0
    assert "0 waiting, 0 in flight, 0 delayed" in result.stdout


def test_status_shows_what_runs_with_its_images(office: Office) -> None:
    ledger = office.world.ledger
    assert ledger.slots.take("run-1", "west", "push", 10)
    slot = ledger.slots.begin("run-1", "task")
    assert slot is not None
    assert ledger.slots.renew(slot, "task", moved=34_567_890)
    from ecr_relay.ledger import Job, WantedTag

    digest = "sha256:" + "a" * 64
    job = Job(repository="team/app", digest=digest, tags=(WantedTag(name="1.0", seen_at=1),))
    ledger.runs.put("run-1", SOURCE, "west", "push", [job])
    ledger.runs.launched("run-1", "arn:aws:ecs:us-east-1:000000000000:task/relay/0123456789abcdef")
    [running] = office.json("status")["running"]
    assert running.pop("started_at") is not None
    assert running.pop("age_seconds") in (0, 1)
    assert 115 <= running.pop("lease_seconds") <= 120
    assert running == {
        "slot": 0,
        "run": "run-1",
        "task": "0123456789abcdef",
        "destination": "west",
        "lane": "push",
        "phase": "active",
        "bytes": 34_567_890,
        "images": [{"repository": "team/app", "digest": digest, "tags": ["1.0"]}],
    }
    result = office.run("status")
    assert "1 of 10 slots" in result.stdout
    assert "team/app:1.0" in result.stdout
    assert "34.6 MB" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert office.json("status", "--repository", "team/other")["running"] == []
    assert len(office.json("status", "--repository", "team/*")["running"]) == 1


def test_status_shows_failures_breakers_and_pause(office: Office) -> None:
    given_up = failed(office, "team/app", 3)
    failed(office, "team/other", 1, "north")
    office.world.ledger.notes.open_breaker("north", "token has expired")
    office.plane.mappings[MAPPING]["State"] = "Disabled"
    answer = office.json("status")
    assert {name: answer["failures"][name] for name in ("exhausted", "failed", "waiting")} == {
        "exhausted": 1,
        "failed": 1,
        "waiting": 0,
    }
    latest = answer["failures"]["latest"]
    assert [entry["repository"] for entry in latest] == ["team/other", "team/app"]
    assert latest[1] == {
        "destination": "west",
        "repository": "team/app",
        "tag": None,
        "digest": given_up,
        "status": "exhausted",
        "attempts": 3,
        "changed_at": latest[1]["changed_at"],
        "error_class": "Transient",
        "error": "blob lost",
    }
    [breaker] = answer["breakers"]
    assert (breaker["destination"], breaker["reason"]) == ("north", "token has expired")
    assert answer["consuming"] is False
    shown = office.run("status").stdout
    assert "PAUSED" in shown
    assert "token has expired" in shown
    assert max(map(len, shown.splitlines())) <= 80
    for repository, counts in (("team/app", (1, 0)), ("team/a*", (1, 0)), ("team/*", (1, 1)), ("app", (0, 0))):
        narrowed = office.json("status", "--repository", repository)["failures"]
        assert (narrowed["exhausted"], narrowed["failed"]) == counts


def test_status_has_the_lag_of_the_last_hour(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = office.world.ledger
    now = now_ms()
    for seconds in (*[4] * 98, 30, 400):
        ledger.lags.arrived(now - seconds * 1000)
    lag = office.json("status")["lag"]
    assert lag["arrivals"] == 100
    assert 4 <= lag["p50_seconds"] <= 4.8
    assert 30 <= lag["p99_seconds"] <= 36
    assert "p50 4.8s, p99 32s, of 100 arrivals" in office.run("status").stdout
    monkeypatch.setattr(ledger.lags, "_clock", lambda: now + 4_000_000)
    assert ledger.lags.last_hour() is None


def test_pushes_count_by_copy_and_by_retag_and_reconcile_work_does_not(office: Office) -> None:
    digest = copied(office, "team/app", "1.0", content="one")
    assert office.json("status")["lag"]["arrivals"] == 2
    office.send(office.world.push("team/app", "one", "2.0")[1])
    office.consume(rounds=2)
    assert office.world.west.content["team/app"].tags == {"1.0": digest, "2.0": digest}
    assert office.json("status")["lag"]["arrivals"] == 4
    office.world.source.push("team/other", "two", "1.0")
    office.run("sync", "--repository", "team/other")
    office.consume(rounds=2)
    assert office.world.west.content["team/other"].tags.keys() == {"1.0"}
    assert office.json("status")["lag"]["arrivals"] == 4


def test_status_says_how_old_the_oldest_is(office: Office) -> None:
    target = Target(SOURCE, "west", "team/app")
    digests = office.world.ledger.digests
    digest = "sha256:" + "b" * 64
    assert digests.claim(digests.get(target, digest), "run", now_ms() - 600_000)
    points = {
        "ApproximateAgeOfOldestMessage": [{"Timestamp": 2, "Maximum": 42.0}, {"Timestamp": 1, "Maximum": 57.0}],
        "age": [
            {"Timestamp": 1, "Maximum": 7_200_000.0},
            {"Timestamp": 2, "Maximum": 5000.0},
            {"Timestamp": 3, "Maximum": 9_000_000.0},
        ],
        "lag": [{"Timestamp": 2, "Maximum": 4000.0}, {"Timestamp": 3, "Maximum": 9_000_000.0}],  # the last one arrived
    }
    office.calls["GetMetricStatistics"] = lambda arguments: {"Datapoints": points[arguments["MetricName"]]}
    answer = office.json("status")
    assert 600 <= answer["oldest_image_seconds"] <= 602
    assert (answer["oldest_message_seconds"], answer["oldest_push_seconds"]) == (42, 7200)
    assert "image 10m since its push, message 42s since it was sent last" in office.run("status").stdout
    office.send("one that waits for a slot")
    assert "image 2h since its push, message 42s since it was sent last" in office.run("status").stdout
    office.calls["GetMetricStatistics"] = refused("AccessDenied", "GetMetricStatistics")
    answer = office.json("status")
    assert (answer["oldest_message_seconds"], answer["oldest_push_seconds"]) == (None, None)


def test_the_lag_of_an_image_does_not_grow_when_it_is_verified_again(office: Office) -> None:
    digest = copied(office, "team/app", "1.0")
    target = Target(SOURCE, "west", "team/app")
    digests = office.world.ledger.digests
    assert digests.claim(digests.get(target, digest), "again", now_ms() - 5000)
    assert digests.copied(target, digest, "again")
    [before] = office.json("images", "--destination", "west")["images"]
    digests._clock = lambda: now_ms() + 3_600_000
    assert digests.present(digests.get(target, digest))
    [after] = office.json("images", "--destination", "west")["images"]
    assert after["lag_seconds"] == before["lag_seconds"]
    assert 5 <= after["lag_seconds"] < 6
    assert after["verified_at"] > before["verified_at"]


def test_a_long_name_of_a_destination_leaves_room_for_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "beijing-production-cluster-north"
    there = {"name": name, "region": "eu-west-1", "account": ACCOUNT}
    with opened(
        RelayConfig.model_validate_json(json.dumps({**CONFIG, "destinations": [there]})), monkeypatch
    ) as office:
        failed(office, "team/application", 1, name)
        for command in (["status"], ["images"]):
            lines = office.run(*command).stdout.splitlines()
            assert max(map(len, lines)) <= 80
            assert any(line.startswith("team/application") for line in lines)


NOT_FOUND = f"reading blob sha256:{'5' * 64}: Error fetching blob: invalid status code from registry 404 (Not Found)"


def test_an_error_is_said_below_its_row_to_its_end(office: Office) -> None:
    for name in ("team/app", "team/other"):
        failed(office, name, 3, error=NOT_FOUND)
    lines = [line.rstrip() for line in office.run("status").stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    for name in ("team/app", "team/other"):
        [row] = [number for number, line in enumerate(lines) if line.startswith(f"{name}@")]
        assert " ".join(part.strip() for part in lines[row + 1 : row + 4]) == f"Transient: {NOT_FOUND}"


def test_on_a_narrow_screen_no_column_vanishes(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(office, "team/application", 1, error=NOT_FOUND)
    monkeypatch.setattr(screen, "WIDTH", 40)
    for command in ("images", "status"):
        lines = office.run(command).stdout.splitlines()
        assert max(map(len, lines)) <= 40, command
        assert any(line.startswith(("team/", "team/applicat")) for line in lines), command


def test_failures_of_yesterday_are_not_shown(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(office, "team/app", 3)
    monkeypatch.setattr(operate, "FAILURES_MS", -1000)
    assert office.json("status")["failures"]["exhausted"] == 0


def test_status_counts_what_waits_and_the_last_reconcile(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    assert office.run("sync").exit_code == 0
    answer = office.json("status")
    assert answer["queue"]["waiting"] == 2
    record = answer["reconcile"]
    assert (record["status"], record["repositories"], record["images"], record["enqueued"]) == ("done", 1, 2, 2)
    assert "done" in office.run("status").stdout


def test_who_may_not_ask_about_the_mapping_sees_the_rest(office: Office) -> None:
    office.plane.denied.add("event-source-mappings")
    assert office.json("status")["consuming"] is None


def test_watch_prints_a_line_of_json_each_time(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = iter((None, None))

    def nap(_seconds: float) -> None:
        try:
            next(naps)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("ecr_relay.cli.commands.observe.time.sleep", nap)
    result = office.run("status", "--watch", "--json")
    assert result.exit_code == 130
    assert [json.loads(line)["stack"] for line in result.stdout.splitlines()] == ["ecr-relay"] * 3
    naps = iter((None,))
    result = office.run("status", "--watch")
    assert (result.exit_code, result.stdout.count("dead letters")) == (130, 2)


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_watch_outlasts_an_outage_and_says_so(
    office: Office, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    errors: list[Exception] = [EndpointConnectionError(endpoint_url="https://sqs")] * 2
    errors.append(ClientError({"Error": {"Code": "AccessDenied", "Message": "not you"}}, "GetQueueAttributes"))

    def nap(_seconds: float) -> None:
        office.calls["GetQueueAttributes"] = refusing

    def refusing(_arguments: Any) -> Any:
        raise errors[0] if len(errors) == 1 else errors.pop(0)

    monkeypatch.setattr("ecr_relay.cli.commands.observe.time.sleep", nap)
    result = office.run("status", "--watch", *arguments)
    assert (result.exit_code, result.stdout.count("dead")) == (1, 2 if arguments else 1)
    assert result.stderr.splitlines() == [
        "ecr-relay: https://sqs does not answer: is the region right, is there a network?; going on",
        "ecr-relay: no permission for GetQueueAttributes: not you",
    ]


def test_images_by_repository(office: Office) -> None:
    digest = copied(office, "team/app", "1.0", "latest", content="one")
    copied(office, "team/other", "1.0")
    answer = office.json("images", "--repository", "team/app")
    assert answer["next"] is None
    assert [(entry["destination"], entry["digest"], entry["tags"]) for entry in answer["images"]] == [
        ("west", digest, ["1.0", "latest"]),
        ("north", digest, ["1.0", "latest"]),
    ]
    entry = answer["images"][0]
    assert {name: entry[name] for name in ("status", "attempts", "failed_at", "error", "error_class")} == {
        "status": "copied",
        "attempts": 0,
        "failed_at": None,
        "error": None,
        "error_class": None,
    }
    assert entry["run"]
    [entry] = office.json("images", "--repository", "team/app", "--destination", "north")["images"]
    assert entry["destination"] == "north"
    shown = office.run("images", "--repository", "team/app").stdout
    assert "team/app:1.0,latest" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("arguments", [[], ["--repository", "team/*"], ["--status", "copied"]])
def test_images_of_everything_by_pages(office: Office, arguments: list[str]) -> None:
    for number in range(3):
        copied(office, f"team/app-{number}", "1.0")
    whole = office.json("images", *arguments)["images"]
    assert len(whole) == 6
    paged: list[Any] = []
    after: list[str] = []
    for _ in range(2):
        answer = office.json("images", *arguments, "--limit", "4", *after)
        paged += answer["images"]
        after = ["--after", answer["next"]] if answer["next"] else []
    assert not after
    assert paged == whole


def test_images_in_a_state_the_last_changed_first_by_pages(office: Office) -> None:
    for name in ("team/a", "team/b", "other/c"):
        failed(office, name, 3)
    copied(office, "team/fine", "1.0")
    answer = office.json("images", "--status", "exhausted", "--limit", "2")
    assert [entry["repository"] for entry in answer["images"]] == ["other/c", "team/b"]
    answer = office.json("images", "--status", "exhausted", "--limit", "2", "--after", answer["next"])
    assert ([entry["repository"] for entry in answer["images"]], answer["next"]) == (["team/a"], None)
    answer = office.json("images", "--status", "exhausted", "--repository", "team/*")
    assert [entry["repository"] for entry in answer["images"]] == ["team/b", "team/a"]
    assert answer["images"][0]["error"] == "blob lost"


def test_a_page_of_one_repository_goes_on_at_the_next_destination(office: Office) -> None:
    for number in range(3):
        copied(office, "team/app", f"{number}.0")
    seen: list[tuple[str, str]] = []
    after: list[str] = []
    while True:
        answer = office.json("images", "--repository", "team/app", "--limit", "2", *after)
        seen += [(entry["destination"], entry["digest"]) for entry in answer["images"]]
        if answer["next"] is None:
            break
        after = ["--after", answer["next"]]
    assert len(seen) == len(set(seen)) == 6
    assert [name for name, _ in seen] == ["west"] * 3 + ["north"] * 3


def test_no_image_and_wrong_questions(office: Office) -> None:
    assert office.run("images").stdout == "the ledger has no such image\n"
    for arguments, reason in (
        (["--destination", "south"], "'south' is not a destination; there are: west, north"),
        (["--after", "nonsense"], "is no cursor"),
        (["--repository", "a/b", "--after", "eyJwayI6ICJ4IiwgInNrIjogInkifQ"], "is the cursor of another question"),
        (["--status", "failed", "--after", "eyJwayI6ICJ4IiwgInNrIjogInkifQ"], "is the cursor of another question"),
        (["--status", "nonsense"], "'nonsense' is not one of"),
        (["--limit", "0"], "0 is not in the range"),
    ):
        result = office.run("images", *arguments)
        assert (result.exit_code, reason in result.stderr) == (2, True), result.stderr


def test_no_permission_on_the_ledger(office: Office) -> None:
    office.calls["Query"] = refused("AccessDeniedException", "Query")
    result = office.run("status")
    assert (result.exit_code, result.stderr) == (1, "ecr-relay: no permission for Query: Query is refused\n")


def test_a_destination_that_is_down_leaves_images_waiting(office: Office) -> None:
    _, event = office.world.push("team/app", "one", "1.0")
    office.world.skopeo.fail = [RegistryDown("no such host")]
    office.send(event)
    office.consume(rounds=2)
    answer = office.json("status")
    assert (answer["failures"]["waiting"], len(answer["breakers"])) == (1, 1)
