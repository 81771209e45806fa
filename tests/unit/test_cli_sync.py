"""`ecr-relay sync`: the reconcile, asked by hand and followed to its end."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ecr_relay.cli import screen
from ecr_relay.config import RelayConfig
from ecr_relay.errors import Permanent
from ecr_relay.operate import sync as operate
from tests.unit.conftest import ACCOUNT, CONFIG, REGION
from tests.unit.office import MAPPING, Office, opened

SOURCE = f"{ACCOUNT}.{REGION}"


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    with opened(RelayConfig.model_validate_json(json.dumps(CONFIG)), monkeypatch) as office:
        yield office


def test_a_dry_run_is_a_plan_and_copies_nothing(office: Office) -> None:
    digest = office.world.source.push("team/app", "one", "1.0")
    answer = office.json("sync", "--dry-run")
    [entry] = answer.pop("plan")
    size = len(office.world.source.content["team/app"].manifests[digest])
    counts = {"repositories": 1, "images": 1, "equal": 0, "only_there": 0, "failures": 0, "absent": 0}
    assert answer == {**counts, "bytes": size, "hours": {"west": 2 / 8 / 3600}, "last_failure": None, "unmatched": []}
    assert entry == {
        "action": "copy",
        "destination": "west",
        "repository": "team/app",
        "tag": "1.0",
        "digest": digest,
        "there": None,
        "rule": 0,
        "bytes": size,
        "puts": 2,
    }
    assert office.depth(office.queue_url) == 0
    shown = office.run("sync", "--dry-run").stdout
    assert "team/app:1.0" in shown
    assert "1 image differs, 0 equal, 0 only there; 1 image in 1 repository compared" in shown


def test_a_plan_reports_what_is_equal_and_what_is_only_there(office: Office) -> None:
    source, west = office.world.source, office.world.west
    for registry in (source, west):
        registry.push("team/app", "one", "equal")
        registry.push("team/app", f"of {registry.host}", "moved")
    source.push("team/app", "two", "new")
    west.push("team/app", "theirs", "theirs", "too")
    west.push("team/app", "theirs, without a tag")
    answer = office.json("sync", "--dry-run")
    assert {entry["tag"]: entry["action"] for entry in answer["plan"]} == {"moved": "copy", "new": "copy"}
    assert (answer["images"], answer["equal"], answer["only_there"]) == (3, 1, 3)


def test_a_long_plan_is_asked_for_page_by_page(office: Office) -> None:
    for name in ("a/one", "b/two", "c/three"):
        office.world.source.push(name, name, "1.0")
    pages: list[str] = []

    def paged(payload: dict[str, Any]) -> dict[str, Any]:
        answer = office.reconcile(payload)
        pages.append(payload["after"])
        first = answer["plan"][:1]
        left = len(answer["plan"]) > 1
        return answer | {
            "plan": first,
            "status": "running" if left else "done",
            "cursor": first[0]["repository"],
            "counts": {"repositories": 1, "images": 1, "failures": 0},
        }

    office.plane.functions["reconcile"] = paged
    answer = office.json("sync", "--dry-run")
    assert ([entry["repository"] for entry in answer["plan"]], answer["repositories"]) == (
        ["a/one", "b/two", "c/three"],
        3,
    )
    assert pages == ["", "a/one", "b/two"]


def test_what_is_not_copied_has_no_bytes_in_a_plan_and_what_was_not_compared_is_said(office: Office) -> None:
    entry = {"destination": "west", "repository": "team/app", "tag": "1", "digest": "sha256:1", "bytes": 1000}
    plan = [{**entry, "action": "copy", "puts": 2}, {**entry, "action": "observe"}, {**entry, "action": "evicted"}]
    counts = {"repositories": 1, "images": 3, "failures": 1}
    office.plane.functions["reconcile"] = lambda _payload: {"status": "done", "plan": plan, "counts": counts}
    assert office.json("sync", "--dry-run", status=1)["bytes"] == 1000
    shown = office.run("sync", "--dry-run").stdout
    assert shown.startswith("ACTION ")
    assert "west: up to 1 kB" in shown
    assert shown.splitlines()[-1] == "not complete: 1 comparison failed"


def test_a_size_that_the_source_does_not_tell_is_not_zero(office: Office) -> None:
    entry = {"action": "copy", "destination": "west", "repository": "team/app", "digest": "sha256:1", "puts": 2}
    plan: list[dict[str, Any]] = [{**entry, "tag": "1"}, {**entry, "tag": "2"}]
    office.plane.functions["reconcile"] = lambda _payload: {"status": "done", "plan": plan}
    assert office.json("sync", "--dry-run")["bytes"] is None
    shown = office.run("sync", "--dry-run").stdout
    assert "BYTES" not in shown
    assert "west: an unknown number of bytes, and at least" in shown
    plan[0]["bytes"] = 1000
    assert office.json("sync", "--dry-run")["bytes"] == 1000
    shown = office.run("sync", "--dry-run").stdout
    assert "unknown" in shown.splitlines()[2]
    assert "west: up to 1 kB and 1 image of unknown size, and at least" in shown


def test_a_plan_that_gets_no_further_ends(office: Office) -> None:
    office.plane.functions["reconcile"] = lambda _payload: {"status": "running", "cursor": "", "plan": []}
    result = office.run("sync", "--dry-run")
    assert (result.exit_code, "gets no further" in result.stderr) == (1, True)


def test_sync_says_what_it_found(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    office.world.source.push("other/app", "two", "1.0")
    answer = office.json("sync", "--repository", "team/*")
    record = answer["reconcile"]
    assert (answer["status"], answer["waited"], answer["failed"]) == ("done", False, [])
    assert record["repositories_asked_for"] == ["team/*"]
    assert (record["repositories"], record["images"], record["enqueued"], record["failures"]) == (1, 1, 1, 0)
    assert office.depth(office.queue_url) == 1
    assert office.run("sync").stdout == "2 images in 2 repositories compared, 2 copies enqueued\n"


def consuming(office: Office) -> threading.Event:
    """Consume in the background until the event is set, as the event source mapping does."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(0.05):
            office.consume()

    threading.Thread(target=loop, daemon=True).start()
    return stop


def test_wait_follows_until_every_copy_has_ended(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    office.world.source.push("team/other", "two", "2.0")
    stop = consuming(office)
    answer = office.json("sync", "--wait", "--timeout", "60")
    stop.set()
    assert (answer["status"], answer["waited"], answer["failed"]) == ("done", True, [])
    assert office.world.west.content.keys() == {"team/app", "team/other"}


def test_wait_is_a_failure_if_a_copy_failed(office: Office) -> None:
    _, event = office.world.push("team/old", "zero", "1.0")
    office.world.skopeo.fail = [Permanent("manifest invalid")]
    office.bury(event)  # of a push, and from before: none of this sync's
    digest = office.world.source.push("team/app", "one", "1.0")
    office.world.skopeo.fail = [Permanent("size limit")]
    stop = consuming(office)
    answer = office.json("sync", "--repository", "team/app", "--wait", "--timeout", "60", status=1)
    stop.set()
    [letter] = answer["failed"]
    assert (letter["repository"], letter["digest"], letter["error"]) == ("team/app", digest, "size limit")


def test_wait_with_nothing_to_copy_does_not_wait_for_others(office: Office) -> None:
    office.send("some other message")
    answer = office.json("sync", "--wait", "--timeout", "60")
    assert (answer["waited"], answer["reconcile"]["enqueued"]) == (True, 0)


def test_wait_gives_up_when_its_time_is_over_and_the_sync_goes_on(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    result = office.run("sync", "--wait", "--timeout", "2")
    assert (result.exit_code, "not ended within 2 seconds" in result.stderr) == (1, True)
    assert office.depth(office.queue_url) == 1


def pause(office: Office, what: str) -> None:
    if what == "relay":
        office.plane.mappings[MAPPING]["State"] = "Disabled"
    else:
        office.run("pause", "--destination", what)


PAUSED = [
    ("relay", "the relay is paused, so no copy will end (`ecr-relay resume`)"),
    ("west", "west is paused, so copies to it will not end (`ecr-relay resume --destination west`)"),
]


@pytest.mark.parametrize(("what", "said"), PAUSED)
def test_wait_while_paused_starts_nothing(office: Office, what: str, said: str) -> None:
    office.world.source.push("team/app", "one", "1.0")
    pause(office, what)
    result = office.run("sync", "--wait")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"ecr-relay: {said}; nothing was started: resume, or sync without --wait\n"
    assert office.json("status")["reconcile"] is None
    assert office.json("sync")["reconcile"]["enqueued"] == 1


@pytest.mark.parametrize(("what", "said"), PAUSED)
def test_paused_while_it_is_waited_for_the_sync_goes_on(office: Office, what: str, said: str) -> None:
    office.world.source.push("team/app", "one", "1.0")

    def pausing(payload: dict[str, Any]) -> dict[str, Any]:
        pause(office, what)
        return office.reconcile(payload)

    office.plane.functions["reconcile"] = pausing
    result = office.run("sync", "--wait", "--timeout", "30")
    assert result.exit_code == 1
    assert result.stderr == f"ecr-relay: {said}; the sync was started, and goes on by itself\n"


def test_off_a_terminal_a_line_says_how_far_it_is(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "TOLD_S", 0)
    office.world.source.push("team/app", "one", "1.0")
    office.world.source.push("team/other", "two", "2.0")

    def slow(payload: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        return office.reconcile(payload)

    office.plane.functions["reconcile"] = slow
    result = office.run("sync", "--wait", "--timeout", "2")
    lines = result.stderr.splitlines()
    assert lines[0] == "ecr-relay: comparing: 0 repositories"
    assert lines[-2] == "ecr-relay: copying: 2 messages left, 0 tasks"
    assert len(lines) == len(set(lines))
    monkeypatch.setattr(screen, "TOLD_S", 10)
    assert office.run("sync").stderr == ""


def test_interrupted_it_says_that_the_sync_goes_on(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(operate, "depth", interrupted)
    office.world.source.push("team/app", "one", "1.0")
    result = office.run("sync", "--wait")
    assert result.exit_code == 130
    said = "a sync that was started goes on by itself; `ecr-relay status` shows how far it is"
    assert result.stderr.strip() == f"ecr-relay: {said}"


def test_a_plan_counts_what_rules_select_and_no_children(office: Office) -> None:
    child = office.world.source.push("team/app", "child")
    index = office.world.source.push("team/app", "index", "1.0", children=(child,))
    answer = office.json("sync", "--dry-run")
    assert ([entry["digest"] for entry in answer["plan"]], answer["images"]) == ([index], 1)
    shown = office.run("sync", "--dry-run").stdout
    assert "1 image differs, 0 equal, 0 only there; 1 image in 1 repository compared" in shown


def test_a_repository_that_could_not_be_compared_is_a_failure(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    office.world.west.fail = [Permanent("denied")]
    answer = office.json("sync", status=1)
    assert answer["reconcile"]["failures"] == 1
    assert answer["reconcile"]["last_failure"] == "team/app at west: Permanent: denied"


def test_a_repository_that_matches_nothing_is_an_error(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    arguments = ("sync", "--repository", "team/*", "--repository", "nope/*")
    assert office.json(*arguments, status=1)["reconcile"]["unmatched"] == ["nope/*"]
    for more in ([], ["--dry-run"]):
        result = office.run(*arguments, *more)
        last = result.stdout.splitlines()[-1]
        said = "not complete: 'nope/*' matches no repository that a rule may select"
        assert (result.exit_code, last) == (1, said)
    assert "'nope/*' matches no repository" in office.run("status").stdout
    assert office.run("sync", "--repository", "team/*").exit_code == 0


def test_a_repository_that_rules_name_and_the_source_lacks_is_told_and_fails_nothing(office: Office) -> None:
    world = office.world
    rule = world.config.rules[0].model_copy(update={"repositories": ("team/*", "tema/app")})
    world.config = world.relay.config = world.config.model_copy(update={"rules": (rule,)})
    world.source.push("team/app", "one", "1.0")
    record = office.json("sync")["reconcile"]
    assert (record["repositories"], record["absent"], record["failures"]) == (1, 1, 0)
    assert "1 absent: rules name repositories that the source lacks" in office.run("sync").stdout
    assert office.json("sync", "--dry-run")["absent"] == 1
    assert "rules name 1 repository that the source lacks" in office.run("sync", "--dry-run").stdout


def test_why_comparisons_failed_is_the_last_that_is_said(office: Office) -> None:
    for name in ("team/app", "team/other"):
        office.world.source.push(name, name, "1.0")
    office.world.west.fail = [Permanent("denied"), Permanent("x" * 5000)]
    lines = office.run("sync", "--wait").stdout.splitlines()
    assert lines[-1].startswith("not complete: 2 comparisons failed, the last of team/other at west: Permanent: x")
    assert len(lines[-1]) < 2100
    assert "2 comparisons failed, the last of team/other" in office.run("status").stdout
    office.world.west.fail = [Permanent("denied")]
    lines = office.run("sync", "--dry-run").stdout.splitlines()
    assert lines[-1] == "not complete: 1 comparison failed: team/app at west: Permanent: denied"
    office.world.west.fail = []
    office.run("sync")
    assert "it lacks" not in office.run("status").stdout


def test_the_functions_own_failure_is_told(office: Office) -> None:
    office.world.source.fail = [Permanent("not authorized to perform: ecr:DescribeRepositories")] * 2
    for arguments in ([], ["--dry-run"]):
        result = office.run("sync", *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("ecr-relay: the reconcile function failed: Permanent: not authorized")


def test_an_answer_of_another_release_is_told(office: Office) -> None:
    office.plane.functions["reconcile"] = lambda _payload: {"colour": "blue"}
    result = office.run("sync")
    assert (result.exit_code, "what this release does not know" in result.stderr) == (1, True)


def test_while_another_is_on_a_sync_is_queued_behind_it(office: Office) -> None:
    office.plane.busy = True
    answer = office.json("sync", "--repository", "team/*")
    assert (answer["status"], answer["reconcile"]) == ("queued", None)
    [payload] = office.plane.queued
    assert (payload["action"], payload["repositories"], payload["dry_run"]) == ("start", ["team/*"], False)
    assert "follows it" in office.run("sync").stdout
    result = office.run("sync", "--dry-run")
    assert (result.exit_code, "a reconcile is running already" in result.stderr) == (1, True)


def test_a_long_one_goes_on_by_itself(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "ANSWER_S", 0.1)
    office.world.source.push("team/app", "one", "1.0")
    gate = threading.Event()
    reconcile = office.reconcile

    def slow(payload: dict[str, Any]) -> dict[str, Any]:
        gate.wait(10)
        return reconcile(payload)

    office.plane.functions["reconcile"] = slow
    answer = office.json("sync")
    gate.set()
    assert (answer["status"], answer["waited"]) == ("running", False)


@pytest.mark.parametrize("arguments", [["--dry-run", "--wait"], ["--timeout", "5"], ["--wait", "--timeout", "0"]])
def test_wrong_usage(office: Office, arguments: list[str]) -> None:
    assert office.run("sync", *arguments).exit_code == 2


def test_what_a_sync_found_beside_copies_is_said_with_what_to_do(office: Office) -> None:
    world = office.world
    world.config = world.relay.config = world.config.model_copy(
        update={"rules": (world.config.rules[0].model_copy(update={"mode": "observe"}),)}
    )
    world.source.push("team/app", "one", "1.0")
    assert "1 observed: a rule with mode" in office.run("sync").stdout
    assert office.json("status")["reconcile"]["observed"] == 1
    assert "1 observed" in office.run("status").stdout
    world.west.push("team/app", "one", "1.0")
    assert "observed" not in office.run("sync").stdout
