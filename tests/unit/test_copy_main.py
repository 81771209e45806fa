"""The copier's entry point: its exit statuses, and what it leaves behind when it is stopped.

`main()` itself, over moto, with registries in memory; skopeo is a fake, or a program that hangs.
"""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from ecr_relay.config import Destination, EcrSource, RelayConfig
from ecr_relay.copy.__main__ import main
from ecr_relay.errors import Transient
from ecr_relay.ledger import DigestRecord, Job, Ledger, Target, WantedTag
from ecr_relay.settings import CopierSettings
from ecr_relay.skopeo import Skopeo
from tests.fakes.registry import FakeRegistry
from tests.integration.conftest import wait_for
from tests.unit.conftest import ACCOUNT, CONFIG, REGION, World

SOURCE, PARAMETER, RUN = f"{ACCOUNT}.{REGION}", "/ecr-relay/config", "run"


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the task finds its environment; what `main` changes in this process is put back."""
    settings = CopierSettings(ledger_table="ledger", config_parameter=PARAMETER, run=RUN, stack="ecr-relay")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    root, ours = logging.getLogger(), logging.getLogger("ecr_relay")
    handlers, levels, handler = root.handlers[:], (root.level, ours.level), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """With a ledger by the real clock, the configuration in its parameter, and registries that `main` finds."""
    world.ledger = Ledger(world.table)
    boto3.client("ssm").put_parameter(Name=PARAMETER, Value=world.config.to_parameter(), Type="String")

    def registry(side: EcrSource | Destination) -> FakeRegistry:
        return world.west if isinstance(side, Destination) else world.source

    monkeypatch.setattr("ecr_relay.credentials.registry", registry)
    monkeypatch.setattr("ecr_relay.copy.__main__.Skopeo", lambda _directory: world.skopeo)
    return world


def begin(world: World, *contents: str, destination: str = "west") -> list[Job]:
    """A run as the consumer leaves it: slot, claims, record."""
    world.ledger.slots.take(RUN, destination, "push", 10)
    jobs = []
    for content in contents:
        digest = world.source.push("team/app", content, content)
        world.ledger.digests.claim(world.ledger.digests.get(target(destination), digest), RUN, 0)
        wanted = (WantedTag(name=content, seen_at=world.ledger.clock()),)
        jobs.append(Job(repository="team/app", digest=digest, tags=wanted))
    world.ledger.runs.put(RUN, SOURCE, destination, "push", jobs)
    return jobs


def target(destination: str = "west") -> Target:
    return Target(SOURCE, destination, "team/app")


def record(world: World, job: Job) -> DigestRecord:
    return world.ledger.digests.get(target(), job.digest)


def given_back(world: World, job: Job) -> None:
    """The slot says that the run has ended, and the claim was no attempt."""
    assert [slot.phase for slot in world.ledger.slots.held() if slot.run == RUN] in (["ended"], [])
    found = record(world, job)
    assert (found.status, found.attempts, found.interruptions) == ("waiting", 0, 0)


def lines(text: str) -> list[str]:
    return [json.loads(line)["message"] for line in text.splitlines()]


def test_zero_when_every_job_has_its_outcome_failed_ones_too(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = begin(world, "good", "bad")
    world.skopeo.outcome = {bad.digest: Transient("blob unknown")}
    assert main() == 0
    assert (record(world, good).status, record(world, bad).status) == ("copied", "failed")
    assert world.west.content["team/app"].tags == {"good": good.digest}
    assert [slot.phase for slot in world.ledger.slots.held()] == ["ended"]
    out = capsys.readouterr().out
    said = lines(out)
    assert (said[0], said[-1]) == ("begin", "end")
    assert measured(out).keys() == {"task_start", "bytes"}
    assert 0 <= measured(out)["task_start"] < 60_000


def measured(text: str) -> dict[str, float]:
    """The metrics that CloudWatch finds in the lines."""
    found: dict[str, float] = {}
    for line in map(json.loads, text.splitlines()):
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert (directive["Namespace"], directive["Dimensions"]) == ("ecr-relay", [["stack"]])
            assert line["stack"] == "ecr-relay"
            assert isinstance(line["_aws"]["Timestamp"], int)
            found |= {metric["Name"]: line[metric["Name"]] for metric in directive["Metrics"]}
    return found


@pytest.mark.parametrize("why", ["begun by another", "no slot", "no record"])
def test_zero_when_the_run_is_not_its_to_do(world: World, why: str) -> None:
    (job,) = begin(world, "one")
    if why == "begun by another":
        world.ledger.slots.begin(RUN, "another")
    elif why == "no slot":
        world.ledger.slots.free(RUN, 0)
    else:
        world.table.delete_item(Key={"pk": f"RUN#{RUN}", "sk": "RUN"})
    assert main() == 0
    assert record(world, job).status == "copying"
    assert world.skopeo.copied == []


def test_one_when_aws_does_not_answer_as_it_should(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.table.delete()
    assert main() == 1
    (line,) = lines(capsys.readouterr().out)
    assert line.startswith("AWS does not answer as it should: ")
    assert "ResourceNotFoundException" in line


def test_one_when_the_ledger_fails_under_it_and_the_other_jobs_and_the_slot_are_done_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = begin(world, "one", "other")

    def broken(_image: str) -> None:
        if one.digest in _image:
            boto3.client("dynamodb").describe_table(TableName="another")

    world.skopeo.during = broken
    assert main() == 1
    # No outcome: the reaper finds that the run has ended, and calls it an interruption.
    assert record(world, one).status == "copying"
    assert record(world, other).status == "copied"
    assert [slot.phase for slot in world.ledger.slots.held()] == ["ended"]


@pytest.mark.parametrize("wrong", ["environment", "parameter", "destination"])
def test_two_when_the_environment_or_the_configuration_is_wrong(
    world: World, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = begin(world, "one")
    if wrong == "environment":
        monkeypatch.delenv("ECR_RELAY_RUN")
    elif wrong == "parameter":
        boto3.client("ssm").put_parameter(Name=PARAMETER, Value='{"sauce": {}}', Type="String", Overwrite=True)
    else:
        two = CONFIG | {"destinations": [{"name": "east", "region": "us-east-2", "account": ACCOUNT}]}
        text = RelayConfig.model_validate_json(json.dumps(two)).to_parameter()
        boto3.client("ssm").put_parameter(Name=PARAMETER, Value=text, Type="String", Overwrite=True)
    assert main() == 2
    assert lines(capsys.readouterr().out)[-1].startswith("cannot begin: ")
    assert world.skopeo.copied == []
    if wrong == "environment":
        return
    given_back(world, job)
    breaker = world.ledger.notes.breaker("west")
    assert breaker is not None
    assert breaker.reason.startswith("configuration: ")


# Stopped in the middle: a skopeo that hangs ------------------------------------------------------------------------


@pytest.fixture
def hanging(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Instead of skopeo, a program that writes its pid and hangs; the pids of those that were started."""
    monkeypatch.setattr("ecr_relay.copy.__main__.Skopeo", Skopeo)
    programs, pids = tmp_path / "bin", tmp_path / "pids"
    programs.mkdir()
    (programs / "skopeo").write_text(f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 300\n")
    (programs / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lambda: [int(pid) for pid in pids.read_text().split()] if pids.exists() else []


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def when_it_hangs(hanging: Callable[[], list[int]], act: Callable[[], object]) -> threading.Thread:
    """Once the copier waits for skopeo, `act`, in a thread of its own."""

    def run() -> None:
        wait_for(hanging)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_sigterm_gives_slot_and_claims_back_at_once(
    world: World, hanging: Callable[[], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = begin(world, "one", "other")
    thread = when_it_hangs(hanging, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main() == 143
    thread.join()
    for job in (one, other):
        given_back(world, job)
    assert len(hanging()) == 1, "what had not begun must not begin any more"
    assert measured(capsys.readouterr().out)["interruptions"] == 1
    assert all(map(gone, hanging()))


def test_a_lost_lease_ends_the_children_and_is_one(
    world: World, hanging: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecr_relay.copy.lease.RENEW_S", 0.05)
    (job,) = begin(world, "one")
    thread = when_it_hangs(hanging, lambda: world.ledger.slots.free(RUN, 0))
    assert main() == 1
    thread.join()
    given_back(world, job)
    assert all(map(gone, hanging()))
