"""`ecr-relay explain`, `logs`, `copy`, `wait`, `verify`, `pause` and `resume`."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, SSLError

from ecr_relay.config import NewRepository, RelayConfig
from ecr_relay.errors import Permanent, RegistryDown, Transient
from ecr_relay.ledger import Target, now_ms
from ecr_relay.messages import Envelope
from ecr_relay.operate import wait as waiting
from ecr_relay.tasks import LaunchRefused
from tests.unit.conftest import ACCOUNT, CONFIG, REGION
from tests.unit.office import LOG_GROUP, MAPPING, Office, opened, refused

SOURCE = f"{ACCOUNT}.{REGION}"
RULES = [{"repositories": ["team/*"], "tags": ["*"], "exclude_tags": ["*-dev"]}]


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(waiting, "POLL_S", 0.02)
    with opened(RelayConfig.model_validate_json(json.dumps({**CONFIG, "rules": RULES})), monkeypatch) as office:
        yield office


def copied(office: Office, tag: str = "1.0") -> str:
    digest, event = office.world.push("team/app", tag, tag)
    office.send(event)
    office.consume()
    return digest


def place(office: Office, image: str) -> Any:
    [found] = office.json("explain", image)["places"]
    return found


def test_explain_an_image_that_is_there(office: Office) -> None:
    digest = copied(office)
    answer = office.json("explain", "team/app:1.0")
    assert {name: answer[name] for name in ("repository", "tag", "digest", "answer")} == {
        "repository": "team/app",
        "tag": "1.0",
        "digest": digest,
        "answer": None,
    }
    [found] = answer["places"]
    assert (found["destination"], found["repository"], found["selected_by"]) == ("west", "team/app", [0])
    assert (found["digest"], found["there"], found["status"]) == (digest, True, "copied")
    assert found["next"] == "nothing: it is there"
    shown = office.run("explain", "team/app:1.0").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert digest in shown


@pytest.mark.parametrize("suffix", [".sig", ""])
def test_a_signature_by_tag_is_explained_and_copied_as_any_image(office: Office, suffix: str) -> None:
    """No key for tags selects it, nor the index of referrers that OCI falls back on; it goes where its image is."""
    image = f"team/app:{copied(office).replace(':', '-')}{suffix}"
    digest = office.world.source.push("team/app", "signature", image.partition(":")[2])
    found = place(office, image)
    assert (found["selected_by"], found["there"]) == ([0], False)
    assert found["next"].startswith("its message is on its way")
    assert office.json("copy", image)["digest"] == digest
    office.consume()
    assert place(office, image)["next"] == "nothing: it is there"


def test_explain_what_happens_next(office: Office) -> None:
    digest, event = office.world.push("team/app", "one", "1.0")
    assert place(office, "team/app:1.0")["next"].startswith("its message is on its way")
    office.world.skopeo.fail = [Transient("blob lost")] * 3
    office.send(event)
    office.consume()
    found = place(office, "team/app:1.0")
    assert (found["status"], found["attempts"], found["error"]) == ("failed", 1, "blob lost")
    assert found["next"] == "attempt 1 of 3 failed; the next comes within minutes"
    office.world.ledger.notes.open_breaker("west", "token has expired")
    assert "token has expired" in place(office, "team/app:1.0")["next"]
    office.run("pause", "--destination", "west")
    assert "west is paused since" in place(office, "team/app:1.0")["next"]
    office.run("pause")
    assert place(office, "team/app:1.0")["next"] == "it waits: the relay is paused; `ecr-relay resume`"
    office.world.table.delete_item(Key={"pk": "BREAKER#west", "sk": "BREAKER"})
    office.run("resume", "--destination", "west")
    office.consume(rounds=3)
    found = place(office, "team/app:1.0")
    assert (found["status"], found["there"]) == ("exhausted", False)
    assert found["next"] == (
        "given up; mend what the error says, then `ecr-relay copy team/app:1.0`, or, while its dead letter is there, "
        "`ecr-relay dlq redrive --repository team/app`"
    )
    digests = office.world.ledger.digests
    target = Target(SOURCE, "west", "team/app")
    assert digests.claim(digests.get(target, digest), "run-9", now_ms())


def test_explain_a_copy_that_runs(office: Office) -> None:
    digest = office.world.source.push("team/app", "one", "1.0")
    digests = office.world.ledger.digests
    assert digests.claim(digests.get(Target(SOURCE, "west", "team/app"), digest), "run-9", now_ms())
    assert place(office, "team/app:1.0")["next"] == "run run-9 copies it"
    assert (
        place(office, f"team/app@{digest}")["next"]
        == "nothing: no rule wants images without a tag for this destination"
    )


def test_explain_what_no_rule_selects_or_the_source_lacks(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0-dev")
    found = place(office, "team/app:1.0-dev")
    assert (found["selected_by"], found["next"]) == ([], "nothing: no rule selects it for this destination")
    assert place(office, "team/app:2.0")["next"] == "nothing: the source does not have it"


def gone(office: Office, rule: dict[str, Any]) -> str:
    """What `next` says of a tag that the destination has and the source has lost, by this rule."""
    config = json.loads(office.world.config.to_parameter()) | {"rules": [rule]}
    office.ssm.put_parameter(Name="/relay/config", Value=json.dumps(config), Overwrite=True)
    return str(place(office, "team/app:old")["next"])


def test_explain_what_the_source_has_lost(office: Office) -> None:
    digest = copied(office, "old")
    office.world.source.delete("team/app", digest, "old")
    stays = "nothing: the source does not have it, and it stays there: "
    assert gone(office, {}) == stays + "no rule propagates deletes"
    propagates = {"deletes": "propagate"}
    assert gone(office, {**propagates, "tags": ["1.*"]}) == stays + "no rule that selects it propagates deletes"
    empty = "the source's repository is gone or empty, and an empty listing removes nothing"
    assert gone(office, propagates) == stays + empty
    copied(office, "1.0")
    second = "removed there by the second reconcile that finds the source without it, a day or more after the first"
    assert gone(office, propagates) == second
    target = Target(SOURCE, "west", "team/app")
    office.world.ledger.tags.gone(target, "old", digest, 1_800_000_000_000)
    due = "removed there by the first reconcile after 2027-01-16 08:00 UTC, unless the source has it again by then"
    assert gone(office, propagates) == due
    theirs = office.world.west.push("team/app", "theirs", "old")
    assert gone(office, propagates) == stays + "this relay did not put it there"
    assert theirs != digest


def test_explain_what_the_source_has_lost_and_was_there_before(office: Office) -> None:
    """Its tag is the relay's, and with its last tag would go the image, which somebody else had brought."""
    digest = office.world.west.push("team/app", "old")
    _, event = office.world.push("team/app", "old", "old")
    office.send(event)
    office.consume()
    copied(office, "1.0")
    office.world.source.delete("team/app", digest, "old")
    propagates = {"deletes": "propagate"}
    last = "the image would lose its last tag, and this relay did not bring the image"
    assert gone(office, propagates).endswith(last)
    office.world.source.push("team/app", "old", "twin")
    office.send(office.world.event("team/app", digest, "twin"))
    office.consume()
    office.world.source.delete("team/app", digest, "twin")
    assert gone(office, propagates).endswith(last)
    office.world.west.push("team/app", "old", "theirs")
    assert gone(office, propagates).startswith("removed there by the second reconcile")


def test_explain_an_image_without_a_tag_that_the_source_has_lost(office: Office) -> None:
    digest = copied(office, "old")
    copied(office, "1.0")
    office.world.source.delete("team/app", digest, "old")
    config = json.loads(office.world.config.to_parameter()) | {"rules": [{"deletes": "propagate"}]}
    office.ssm.put_parameter(Name="/relay/config", Value=json.dumps(config), Overwrite=True)
    assert place(office, f"team/app@{digest}")["next"].endswith("it has a tag there: old")
    del office.world.west.content["team/app"].tags["old"]
    assert place(office, f"team/app@{digest}")["next"].startswith("removed there by the second reconcile")


def test_what_a_rule_only_observes_is_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [{"mode": "observe", "tags": ["1.*"]}, {"exclude_tags": ["1.*"]}]
    with opened(RelayConfig.model_validate_json(json.dumps({**CONFIG, "rules": rules})), monkeypatch) as office:
        for tag in ("1.0", "2.0"):
            office.world.source.push("team/app", tag, tag)
        assert place(office, "team/app:1.0")["next"] == "nothing: rules[0] only observes"
        result = office.run("copy", "team/app:1.0")
        assert (result.exit_code, "rules[0] only observes team/app:1.0" in result.stderr) == (1, True)
        assert place(office, "team/app:2.0")["next"].startswith("its message is on its way")
        assert office.run("copy", "team/app:2.0").exit_code == 0


@pytest.mark.parametrize(
    ("on_conflict", "says"),
    [("keep", "nothing: somebody else has put another image"), ("fail", "it fails, when its message comes")],
)
def test_explain_a_tag_that_is_somebody_elses(monkeypatch: pytest.MonkeyPatch, on_conflict: str, says: str) -> None:
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    config["destinations"][0]["on_conflict"] = on_conflict
    with opened(RelayConfig.model_validate_json(json.dumps(config)), monkeypatch) as office:
        _, event = office.world.push("team/app", "one", "1.0")
        office.world.west.push("team/app", "theirs", "1.0")
        assert place(office, "team/app:1.0")["next"].startswith(says)
        if on_conflict == "fail":
            office.bury(event)
            assert place(office, "team/app:1.0")["next"].startswith("given up: the destination refuses this tag")


def test_explain_what_would_go_round_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    [west] = CONFIG["destinations"]
    config = {**CONFIG, "destinations": [{**west, "prefix": "mirror"}]}  # type: ignore[dict-item]
    with opened(RelayConfig.model_validate_json(json.dumps(config)), monkeypatch) as office:
        office.world.source.push("mirror/app", "one", "1.0")
        found = place(office, "mirror/app:1.0")
        assert found["next"] == "nothing: it looks like a copy that comes back, and would go round for ever"


def test_explain_with_registries_that_refuse(office: Office) -> None:
    copied(office)
    office.world.west.fail = [RegistryDown("no such host")]
    found = place(office, "team/app:1.0")
    assert (found["there"], found["answer"]) == (None, "RegistryDown: no such host")
    office.world.source.fail = [RegistryDown("token has expired")] * 2
    answer = office.json("explain", "team/app:1.0")
    assert (answer["digest"], answer["answer"]) == (None, "RegistryDown: token has expired")
    assert office.run("explain", "team/app:1.0").exit_code == 0


def test_explain_where_a_destination_may_not_be_asked(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    office.world.west.fail = [Permanent("AccessDeniedException: not authorized")] * 2
    found = place(office, "team/app:1.0")
    assert "AccessDeniedException" in found["answer"]
    assert found["next"].startswith("its message is on its way")


@pytest.mark.parametrize("command", ["explain", "copy", "logs"])
def test_what_is_no_image_is_wrong_usage(office: Office, command: str) -> None:
    for image in ("Team/App:1", "team/app@sha256:123", "team/app:-"):
        result = office.run(command, image)
        assert (result.exit_code, "Invalid value for 'IMAGE'" in result.stderr) == (2, True)
    if command != "logs":
        result = office.run(command, "team/app")
        assert (result.exit_code, "has neither tag nor digest" in result.stderr) == (2, True)


def test_the_sources_host_before_an_image_is_taken_off(office: Office) -> None:
    digest = copied(office)
    for host in ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "127.0.0.1:5000"):
        assert office.json("explain", f"{host}/team/app:1.0")["digest"] == digest


def test_logs_of_the_last_copy(office: Office) -> None:
    digest = copied(office)
    stream = place(office, "team/app:1.0")["log_stream"]
    assert office.json("logs", "team/app:1.0")["logs"][0]["lines"] == []
    assert "no lines" in office.run("logs", "team/app:1.0").stdout
    office.logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
    line = {"level": "INFO", "message": "copied", "digest": digest, "milliseconds": 12}
    lines = [json.dumps(line), "Traceback …"]
    office.logs.put_log_events(
        logGroupName=LOG_GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": now_ms(), "message": line} for line in lines],
    )
    [log] = office.json("logs", f"team/app@{digest}", "--destination", "west")["logs"]
    assert (log["log_group"], log["log_stream"], log["digest"]) == (LOG_GROUP, stream, digest)
    assert [(line["level"], line["message"]) for line in log["lines"]] == [("INFO", "copied"), ("", "Traceback …")]
    assert "INFO copied milliseconds=12" in office.run("logs", "team/app:1.0").stdout
    assert len(office.json("logs", "team/app:1.0", "--lines", "1")["logs"][0]["lines"]) == 1


def test_logs_of_what_was_never_copied(office: Office) -> None:
    result = office.run("logs", "team/app:1.0")
    assert (result.exit_code, "the ledger knows no copy of team/app:1.0" in result.stderr) == (1, True)


def test_copy_enqueues_what_a_push_would(office: Office) -> None:
    digest = office.world.source.push("team/app", "one", "1.0")
    assert office.json("copy", "team/app:1.0") == {
        "repository": "team/app",
        "tag": "1.0",
        "digest": digest,
        "destinations": ["west"],
        "forced": False,
        "held": {},
    }
    [message] = office.sqs.receive_message(QueueUrl=office.queue_url, VisibilityTimeout=0)["Messages"]
    envelope = Envelope.model_validate_json(message["Body"])
    assert (envelope.lane, envelope.destination, envelope.as_of) == ("push", "west", None)
    office.consume()
    assert office.world.west.content["team/app"].tags == {"1.0": digest}


def test_a_forced_copy_does_not_believe_the_ledger(office: Office) -> None:
    digest = copied(office)
    office.world.west.delete("team/app", digest)
    office.run("copy", "team/app:1.0")
    office.consume()
    assert office.world.west.content["team/app"].tags == {}
    assert office.run("copy", "team/app:1.0", "--force").stdout == "team/app:1.0 is enqueued for west\n"
    office.consume()
    assert office.world.west.content["team/app"].tags == {"1.0": digest}


def test_a_copy_that_will_wait_is_said_to(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    office.run("pause", "--destination", "west")
    shown = office.run("copy", "team/app:1.0", "--force", "--destination", "west")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("team/app:1.0 is enqueued for west\nwest: it waits: west is paused since ")
    office.run("pause")
    why = "it waits: the relay is paused; `ecr-relay resume`"
    assert office.json("copy", "team/app:1.0")["held"] == {"west": why}
    office.calls["ListEventSourceMappings"] = refused("ServiceException", "ListEventSourceMappings")
    assert office.json("copy", "team/app:1.0")["held"] == {}
    assert office.depth(office.queue_url) == 3


@pytest.mark.parametrize(
    ("image", "arguments", "status", "reason"),
    [
        ("team/app:2.0", [], 1, "the source does not have team/app:2.0"),
        ("team/app:1.0-dev", [], 1, "no rule selects team/app:1.0-dev"),
        ("team/app:1.0", ["--destination", "south"], 2, "'south' is not a destination; there are: west"),
    ],
)
def test_copies_that_would_come_to_nothing_are_refused(
    office: Office, image: str, arguments: list[str], status: int, reason: str
) -> None:
    for tag in ("1.0", "1.0-dev"):
        office.world.source.push("team/app", tag, tag)
    result = office.run("copy", image, *arguments)
    assert (result.exit_code, reason in result.stderr) == (status, True)
    assert office.depth(office.queue_url) == 0


def test_wait_ends_when_the_destination_has_it(office: Office) -> None:
    digest, event = office.world.push("team/app", "one", "1.0")
    result = office.run("wait", "team/app:1.0", "--destination", "west", "--timeout", "0.1")
    assert (result.exit_code, "is not at west after 0.1 s" in result.stderr) == (1, True)
    office.send(event)
    office.consume()
    answer = office.json("wait", "team/app:1.0", "--destination", "west")
    assert (answer["digest"], answer["image"]) == (digest, f"west.test/team/app@{digest}")
    assert office.run("wait", f"team/app@{digest}", "--destination", "west").stdout == f"west.test/team/app@{digest}\n"


def test_wait_needs_no_ledger_for_what_was_there_before(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    office.world.west.push("team/app", "one", "1.0")
    assert office.run("wait", "team/app:1.0", "--destination", "west").exit_code == 0


def test_wait_fails_at_once_when_the_copy_is_given_up(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "GRACE_S", 0.05)
    _, event = office.world.push("team/app", "one", "1.0")
    office.world.skopeo.fail = [Permanent("manifest invalid")]
    office.bury(event)
    result = office.run("wait", "team/app:1.0", "--destination", "west", "--timeout", "30")
    assert result.exit_code == 1
    assert result.stderr.endswith("ecr-relay: team/app:1.0 was given up: Permanent: manifest invalid\n")


def test_wait_says_that_it_was_given_up_when_its_time_is_over_before_the_grace(office: Office) -> None:
    _, event = office.world.push("team/app", "one", "1.0")
    office.world.skopeo.fail = [Permanent("manifest invalid")]
    office.bury(event)
    result = office.run("wait", "team/app:1.0", "--destination", "west", "--timeout", "0.05")
    assert (result.exit_code, "was given up: Permanent: manifest invalid" in result.stderr) == (1, True)


def test_wait_tells_a_tag_that_the_destination_refuses(office: Office) -> None:
    """It is given up by its tag, not by its digest."""
    office.world.west.push("team/app", "theirs", "1.0")
    office.world.west.content["team/app"].settings = NewRepository(immutable_tags=True)
    _, event = office.world.push("team/app", "one", "1.0")
    office.bury(event)
    result = office.run("wait", "team/app:1.0", "--destination", "west", "--timeout", "0.05")
    assert (result.exit_code, "was given up: its tag is refused there: " in result.stderr) == (1, True)


def test_wait_tells_a_launch_that_was_refused(office: Office) -> None:
    _, event = office.world.push("team/app", "one", "1.0")
    office.world.tasks.refuse = [LaunchRefused("RunTask: ClusterNotFoundException", passing=False)] * 3
    office.bury(event)
    result = office.run("wait", "team/app:1.0", "--destination", "west", "--timeout", "0.05")
    assert (result.exit_code, "was given up: Transient: RunTask: ClusterNotFound" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("rule", "image", "reason"),
    [
        ({"repositories": ["team/*"], "exclude_tags": ["*-dev"]}, "team/app:1.0-dev", "no rule selects"),
        ({"repositories": ["other"]}, "team/app:1.0", "no rule selects"),
        ({"repositories": ["other"]}, "team/app", "no rule selects"),
        ({"repositories": ["team/*"], "mode": "observe"}, "team/app:1.0", "only an observing rule selects"),
        ({"repositories": ["team/*"], "mode": "observe"}, "team/app", "only an observing rule selects"),
    ],
)
def test_what_no_rule_copies_is_not_waited_for(office: Office, rule: dict[str, Any], image: str, reason: str) -> None:
    digest = office.world.source.push("team/app", "one", "1.0", "1.0-dev")
    config = json.loads(office.world.config.to_parameter()) | {"rules": [rule]}
    office.ssm.put_parameter(Name="/relay/config", Value=json.dumps(config), Overwrite=True)
    name = image if ":" in image else f"{image}@{digest}"
    result = office.run("wait", name, "--destination", "west")
    assert (result.exit_code, result.stderr.startswith(f"ecr-relay: {reason} {name} for west")) == (1, True)
    office.world.west.push("team/app", "one", "1.0", "1.0-dev")
    assert office.run("wait", name, "--destination", "west").exit_code == 0


def test_wait_outlasts_an_answer_that_fails_once(office: Office) -> None:
    copied(office)
    office.world.source.fail = [Transient("502 Bad Gateway")]
    office.world.west.fail = [Transient("502 Bad Gateway")]
    assert office.run("wait", "team/app:1.0", "--destination", "west").exit_code == 0
    office.world.source.fail = [RegistryDown("token has expired")]
    result = office.run("wait", "team/app:1.0", "--destination", "west")
    assert (result.exit_code, "the source cannot be asked for team/app:1.0" in result.stderr) == (1, True)


def unreachable(text: str) -> RegistryDown:
    """As a registry of AWS's is when there is no network."""
    error = RegistryDown(f"ECR BatchGetImage of {text}: no connection")
    error.__cause__ = EndpointConnectionError(endpoint_url="https://api.ecr")
    return error


def test_wait_outlasts_an_outage_of_the_network_and_says_so(office: Office) -> None:
    copied(office)
    office.world.source.fail = [unreachable("source"), unreachable("source")]
    office.world.west.fail = [unreachable("west")]
    result = office.run("wait", "team/app:1.0", "--destination", "west")
    assert result.exit_code == 0
    assert result.stderr == "ecr-relay: ECR BatchGetImage of source: no connection; going on\n"


def test_wait_outlasts_an_outage_of_aws(office: Office) -> None:
    office.world.push("team/app", "one", "1.0")
    asked: list[Any] = []

    def away(arguments: Any) -> Any:
        asked.append(arguments)
        raise EndpointConnectionError(endpoint_url="https://dynamodb")

    office.calls["GetItem"] = away
    result = office.run("wait", "team/app:1.0", "--destination", "west", "--timeout", "0.1")
    assert (result.exit_code, len(asked) > 2) == (1, True)
    first, last = result.stderr.splitlines()
    assert first == "ecr-relay: https://dynamodb does not answer: is the region right, is there a network?; going on"
    assert last == "ecr-relay: team/app:1.0 is not at west after 0.1 s; `ecr-relay explain team/app:1.0`"


@pytest.mark.parametrize("cause", [NoCredentialsError(), SSLError(endpoint_url="x", error=OSError("certificate"))])
def test_wait_ends_at_once_by_what_does_not_pass(office: Office, cause: Exception) -> None:
    copied(office)
    refusal = RegistryDown("ECR: not to be asked")
    refusal.__cause__ = cause
    for registry in (office.world.source, office.world.west):
        registry.fail = [refusal]
        result = office.run("wait", "team/app:1.0", "--destination", "west")
        assert (result.exit_code, "ECR: not to be asked" in result.stderr) == (1, True)


def test_wait_says_that_it_is_paused(office: Office) -> None:
    office.world.push("team/app", "one", "1.0")
    arguments = ("wait", "team/app:1.0", "--destination", "west", "--timeout", "0.1")
    office.run("pause", "--destination", "west")
    told = office.run(*arguments).stderr
    assert told.startswith("ecr-relay: team/app:1.0 is not at west after 0.1 s; it waits: west is paused since ")
    office.plane.mappings[MAPPING]["State"] = "Disabled"
    assert "after 0.1 s; it waits: the relay is paused; `ecr-relay resume`" in office.run(*arguments).stderr


def test_wait_says_that_it_was_given_up_before(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "GRACE_S", 0.1)
    _, event = office.world.push("team/app", "one", "1.0")
    office.world.skopeo.fail = [Permanent("manifest invalid")]
    office.bury(event)
    first, last = office.run("wait", "team/app:1.0", "--destination", "west").stderr.splitlines()
    assert first.startswith("ecr-relay: team/app:1.0 was given up before: Permanent: manifest invalid; waiting 0.1 s")
    assert last == "ecr-relay: team/app:1.0 was given up: Permanent: manifest invalid"


def test_wait_for_what_will_never_come(office: Office) -> None:
    for image, destination, status in (("team/app:9", "west", 1), ("team/app:9", "south", 2)):
        assert office.run("wait", image, "--destination", destination).exit_code == status
    assert office.run("wait", "team/app:1.0").exit_code == 2


def test_verify_proves_that_both_sides_are_equal(office: Office) -> None:
    digest = copied(office)
    office.world.source.push("team/app", "dev", "1.0-dev")
    assert office.json("verify") == {
        "repositories": 1,
        "images": 1,
        "different": [],
        "unverified": [],
        "absent": [],
    }
    other = office.world.source.push("team/app", "two", "1.0")
    answer = office.json("verify", "--repository", "team/*", status=1)
    assert answer["different"] == [
        {
            **{"destination": "west", "repository": "team/app", "tag": "1.0", "digest": other, "there": digest},
            "archived": False,
        }
    ]
    shown = office.run("verify").stdout
    assert "1 image in 1 repository: 1 different, 0 not compared" in shown


def test_what_is_not_there_is_not_proved_to_be_equal(office: Office) -> None:
    copied(office)
    result = office.run("verify", "--repository", "tema/app")
    assert (result.exit_code, result.stderr) == (
        1,
        "ecr-relay: 'tema/app' matches no repository that a rule may select; `ecr-relay config show`\n",
    )
    named = json.loads(office.world.config.to_parameter()) | {"rules": [{"repositories": ["team/*", "tema/app"]}]}
    office.ssm.put_parameter(Name="/relay/config", Value=json.dumps(named), Overwrite=True)
    answer = office.json("verify", status=1)
    assert (answer["repositories"], answer["absent"], answer["unverified"]) == (1, ["tema/app"], [])
    lines = office.run("verify").stdout.splitlines()
    assert lines[-1] == "1 image in 1 repository: 0 different, 0 not compared; 1 repository not at the source"
    assert lines[-2].startswith("tema/app is named by a rule")
    assert office.run("verify", "--repository", "team/app").exit_code == 0


def test_what_is_archived_there_is_not_equal_and_comes_back_by_force(office: Office) -> None:
    digest = copied(office)
    office.world.west.archived = {digest}
    [difference] = office.json("verify", status=1)["different"]
    assert (difference["there"], difference["archived"]) == (digest, True)
    assert "archived" in office.run("verify").stdout
    says = place(office, "team/app:1.0")["next"]
    assert says == (
        f"nothing: team/app@{digest}: the image is archived; or `ecr-relay copy team/app:1.0 --force` brings it back"
    )
    assert "1 archived there" in office.run("sync").stdout
    office.json("copy", "team/app:1.0", "--force")
    office.consume()
    assert office.json("verify")["different"] == []


def test_verify_misses_no_signature(office: Office) -> None:
    digest = copied(office)
    signed = office.world.source.push("team/app", "signature", subject=digest)
    tag = digest.replace(":", "-") + ".sig"
    by_tag = office.world.source.push("team/app", "cosign", tag)
    answer = office.json("verify", status=1)
    assert answer["images"] == 1
    assert {(each["tag"], each["digest"]) for each in answer["different"]} == {(None, signed), (tag, by_tag)}


def test_verify_asks_no_source_for_repositories_that_the_rules_name(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most registries that are no ECR cannot be asked."""

    def refused() -> None:
        raise Permanent("_catalog: 401 Unauthorized")

    copied(office)
    monkeypatch.setattr(office.world.source, "repositories", refused)
    assert office.run("verify").exit_code == 1
    named = json.loads(office.world.config.to_parameter()) | {"rules": [{"repositories": ["team/app"]}]}
    office.ssm.put_parameter(Name="/relay/config", Value=json.dumps(named), Overwrite=True)
    assert office.json("verify")["repositories"] == 1


def test_what_cannot_be_compared_is_not_proved(office: Office) -> None:
    copied(office)
    office.world.west.fail = [Transient("throttled")]
    answer = office.json("verify", status=1)
    assert answer["unverified"] == [{"destination": "west", "repository": "team/app", "error": "Transient: throttled"}]
    office.world.source.fail = [RegistryDown("no credentials")]
    result = office.run("verify")
    assert (result.exit_code, result.stderr) == (1, "ecr-relay: no credentials\n")


def test_pause_and_resume(office: Office) -> None:
    def answer(consuming: bool, state: str) -> dict[str, Any]:
        return {
            "destination": None,
            "consuming": consuming,
            "changed": True,
            "state": state,
            "paused_destinations": [],
        }

    assert office.json("pause") == answer(False, "Disabled")
    assert office.plane.mappings[MAPPING]["State"] == "Disabled"
    assert office.run("pause").stdout == "paused, as before; the event source mapping is disabled\n"
    assert office.json("resume") == answer(True, "Enabled")


def test_a_destination_is_paused_by_itself_and_loses_nothing(office: Office) -> None:
    digest, event = office.world.push("team/app", "one", "1.0")
    assert office.json("pause", "--destination", "west") == {
        "destination": "west",
        "consuming": False,
        "changed": True,
        "state": None,
        "paused_destinations": ["west"],
    }
    assert office.run("pause", "--destination", "west").stdout == "west is paused, as before\n"
    office.send(event)
    office.consume(rounds=5)
    assert office.world.skopeo.copied == []
    assert (office.depth(office.queue_url), office.depth(office.dlq_url)) == (1, 0)
    assert [entry["destination"] for entry in office.json("status")["paused"]] == ["west"]
    assert "west PAUSED" in office.run("status").stdout
    assert "west is paused by itself" in office.run("resume").stdout
    assert office.run("resume", "--destination", "west").stdout == "west is on\n"
    assert office.run("resume", "--destination", "west").stdout == "west is on, as before\n"
    office.consume()
    assert office.world.west.content["team/app"].tags == {"1.0": digest}
    [image] = office.json("images")["images"]
    assert image["first_seen"] == "2027-01-15T08:00:00Z"  # the event's own, however often it was deferred
    assert office.json("status")["paused"] == []


def test_only_what_is_configured_can_be_paused(office: Office) -> None:
    result = office.run("pause", "--destination", "south")
    assert (result.exit_code, "'south' is not a destination" in result.stderr) == (2, True)


def test_a_mapping_that_is_gone(office: Office) -> None:
    office.plane.mappings.clear()
    result = office.run("pause")
    assert (result.exit_code, "has no event source mapping" in result.stderr) == (1, True)
