"""`ecr-relay dlq`: what lies there and why, back with it, or away."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.errors import Missing, Permanent, Transient
from ecr_relay.ledger import now_ms
from ecr_relay.messages import Envelope
from ecr_relay.operate import redrive
from tests.unit.conftest import ACCOUNT, CONFIG, REGION
from tests.unit.office import LOG_GROUP, Office, opened, refused

SOURCE = f"{ACCOUNT}.{REGION}"


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    with opened(RelayConfig.model_validate_json(json.dumps(CONFIG)), monkeypatch) as office:
        yield office


def bury_image(office: Office, repository: str = "team/app", tag: str = "1.0", error: str = "blob lost") -> str:
    """A push whose copy fails three times; its message's id."""
    _, event = office.world.push(repository, f"{repository}:{tag}", tag)
    office.world.skopeo.fail = [Transient(error)] * 3
    return office.bury(event)[0]


def test_an_empty_queue_is_said_to_be_empty(office: Office) -> None:
    result = office.run("dlq", "list")
    assert (result.exit_code, result.stdout) == (0, "no dead letters\n")
    answer = office.json("dlq", "list")
    assert answer == {"total": 0, "hidden": 0, "others": 0, "letters": [], "next": None}


def test_the_list_joins_each_message_with_the_ledger(office: Office) -> None:
    message_id = bury_image(office)
    [letter] = office.json("dlq", "list")["letters"]
    record = office.world.ledger.digests.get(
        office.world.relay.target(office.world.config.destination("west"), "team/app"), letter["digest"]
    )
    task = office.world.ledger.runs.get(record.run or "")
    assert task is not None
    assert task.task is not None
    assert letter == {
        "id": message_id,
        "kind": "push",
        "lane": "push",
        "repository": "team/app",
        "tag": "1.0",
        "digest": record.digest,
        "destination": "west",
        "attempts": 3,
        "receives": letter["receives"],
        "first_seen": "2027-01-15T08:00:00Z",
        "sent_at": letter["sent_at"],
        "failed_at": letter["failed_at"],
        "error_class": "Transient",
        "error": "blob lost",
        "reason": "Transient: blob lost",
        "run": record.run,
        "task": task.task.rpartition("/")[2],
        "log_stream": f"copier/copier/{task.task.rpartition('/')[2]}",
        "newest": message_id,
        "times": 1,
    }
    assert letter["sent_at"] < letter["failed_at"]


def test_the_table_fits_80_columns_and_says_why(office: Office) -> None:
    bury_image(office, "team/a-very-long-repository-name/of-some/depth", error="initializing source: " + "x" * 300)
    office.bury("not json")
    result = office.run("dlq", "list")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    words = result.stdout.split()
    assert words[:6] == ["ID", "IMAGE", "TO", "TRIES", "FIRST", "LAST"]
    assert {"Transient:", "Malformed:", "3", "west"} <= set(words)
    assert "\x1b" not in result.stdout


def test_what_nobody_understands_is_listed_with_its_reason(office: Office) -> None:
    office.bury("not json")
    [letter] = office.json("dlq", "list")["letters"]
    assert (letter["kind"], letter["error_class"]) == ("malformed", "Malformed")
    assert letter["error"].startswith("not JSON")
    assert (letter["repository"], letter["attempts"], letter["log_stream"]) == (None, None, None)


def test_an_envelope_is_listed_by_its_own_destination(office: Office) -> None:
    digest = office.world.source.push("team/app", "one", "1.0")
    office.world.skopeo.fail = [Permanent("manifest invalid")]
    envelope = Envelope(
        lane="reconcile",
        source=SOURCE,
        destination="west",
        repository="team/app",
        tag="1.0",
        digest=digest,
        first_seen=1_800_000_000_000,
    )
    office.bury(envelope.body())
    [letter] = office.json("dlq", "list")["letters"]
    assert (letter["kind"], letter["lane"], letter["destination"]) == ("envelope", "reconcile", "west")
    assert (letter["attempts"], letter["error_class"], letter["error"]) == (1, "Permanent", "manifest invalid")


def test_an_immutable_tag_is_the_tags_own_fault(office: Office) -> None:
    digest, event = office.world.push("team/app", "one", "1.0")
    office.send(event)
    office.consume()
    office.world.west.content["team/app"].settings = office.world.west.content["team/app"].settings.model_copy(
        update={"immutable_tags": True}
    )
    other, event = office.world.push("team/app", "two", "1.0")
    office.bury(event)
    [letter] = office.json("dlq", "list")["letters"]
    assert (letter["digest"], letter["error_class"]) == (other, "TagTaken")
    assert digest != other


def test_a_tag_that_somebody_else_moved_is_a_conflict_wherever_it_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    config["destinations"][0]["on_conflict"] = "fail"
    with opened(RelayConfig.model_validate_json(json.dumps(config)), monkeypatch) as office:
        office.world.west.push("team/app", "theirs", "1.0")
        _, event = office.world.push("team/app", "ours", "1.0")
        office.bury(event)
        [letter] = office.json("dlq", "list")["letters"]
        assert letter["error_class"] == "Conflict"
        assert letter["error"].startswith("somebody else has put ")
        assert "Conflict: somebody else has put" in office.run("dlq", "show", letter["id"]).stdout
        classes = [vars(record)["class"] for record in caplog.records if record.message == "failed"]
        assert classes == ["Conflict"] * 3  # of each receive, which the metrics count by
        failures = office.json("status")["failures"]
        assert failures["exhausted"] == 1
        [failure] = failures["latest"]
        assert (failure["tag"], failure["digest"], failure["error_class"]) == ("1.0", None, "Conflict")
        assert office.json("status", "--repository", "team/other")["failures"]["latest"] == []
        shown = office.run("status").stdout
        assert "1 given up" in shown
        assert "team/app:1.0" in shown
        [place] = office.json("explain", "team/app:1.0")["places"]
        assert place["tag_error_class"] == "Conflict"
        assert "Conflict: somebody else" in office.run("wait", "team/app:1.0", "--destination", "west").stderr


def test_a_message_that_no_one_could_note_a_reason_for(office: Office) -> None:
    event = office.world.event("team/app", "sha256:" + "0" * 64, "1.0")
    office.sqs.send_message(QueueUrl=office.dlq_url, MessageBody=event)
    [letter] = office.json("dlq", "list")["letters"]
    assert (letter["reason"], letter["error"], letter["failed_at"]) == (None, None, None)
    assert "no reason was noted" in " ".join(office.run("dlq", "list").stdout.split())


def test_looking_changes_nothing(office: Office) -> None:
    ids = {bury_image(office, tag=f"{number}.0") for number in range(3)}
    for _ in range(3):
        assert {letter["id"] for letter in office.json("dlq", "list")["letters"]} == ids
    assert office.depth(office.dlq_url) == 3
    assert office.run("dlq", "show", "nothing").exit_code == 2
    assert office.depth(office.dlq_url) == 3


def test_all_of_many_are_seen_once(office: Office) -> None:
    for start in range(0, 70, 10):
        office.sqs.send_message_batch(
            QueueUrl=office.dlq_url,
            Entries=[{"Id": str(number), "MessageBody": f"junk {start + number}"} for number in range(10)],
        )
    answer = office.json("dlq", "list")
    assert len({letter["id"] for letter in answer["letters"]}) == len(answer["letters"]) == answer["total"] == 70
    assert office.depth(office.dlq_url) == 70
    few = office.json("dlq", "list", "--limit", "15")
    assert (len(few["letters"]), few["total"]) == (15, 70)
    listed = office.run("dlq", "list", "--limit", "15")
    assert "15 of about 70" in listed.stdout, listed.output
    paged: list[str] = []
    after: list[str] = []
    while True:
        page = office.json("dlq", "list", "--limit", "30", *after)
        paged += [letter["id"] for letter in page["letters"]]
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert paged == [letter["id"] for letter in answer["letters"]]
    for nonsense in ("nonsense", "12", "12."):
        assert office.run("dlq", "list", "--after", nonsense).exit_code == 2


def test_one_repository_only(office: Office) -> None:
    wanted = bury_image(office, "team/app")
    bury_image(office, "team/other")
    answer = office.json("dlq", "list", "--repository", "team/app")
    assert [letter["id"] for letter in answer["letters"]] == [wanted]


def test_a_glob_names_repositories_as_it_does_everywhere(office: Office) -> None:
    ids = {bury_image(office, f"team/bad{number}") for number in range(2)}
    other = bury_image(office, "other")
    office.bury("junk")
    answer = office.json("dlq", "list", "--repository", "team/*")
    assert ({letter["id"] for letter in answer["letters"]}, answer["others"]) == (ids, 2)
    assert office.json("dlq", "list", "--repository", "*")["others"] == 1  # what nobody can read is of no repository
    assert office.json("status", "--repository", "team/b*")["failures"]["exhausted"] == 2
    assert office.json("dlq", "redrive", "--repository", "team/bad[0]")["moved"] == 1
    assert office.json("dlq", "purge", "--repository", "team/*", "--yes") == {"deleted": 1, "along": 0}
    assert office.json("dlq", "purge", "--repository", "*", "--yes")["deleted"] == 1
    [left] = office.json("dlq", "list")["letters"]
    assert left["id"] != other


def test_a_repository_without_dead_letters_is_said_beside_the_others(office: Office) -> None:
    office.bury("junk 1", "junk 2")
    listed = office.run("dlq", "list", "--repository", "team/*")
    assert (listed.exit_code, listed.stdout) == (0, "no dead letters of team/*; 2 others\n")
    for command in (("redrive",), ("purge", "--yes")):
        result = office.run("dlq", *command, "--repository", "team/*")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "ecr-relay: no dead letters of team/*; 2 others: `ecr-relay dlq list`\n"
    assert office.depth(office.dlq_url) == 2


def test_show_has_the_message_the_record_and_the_log(office: Office) -> None:
    message_id = bury_image(office)
    [letter] = office.json("dlq", "list")["letters"]
    office.logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=letter["log_stream"])
    lines = [
        {"level": "INFO", "message": "begin", "run": letter["run"]},
        {"level": "WARNING", "message": "copy failed", "digest": letter["digest"], "error": "blob lost"},
        {"level": "INFO", "message": "copied", "digest": "sha256:" + "1" * 64},
    ]
    office.logs.put_log_events(
        logGroupName=LOG_GROUP,
        logStreamName=letter["log_stream"],
        logEvents=[{"timestamp": now_ms(), "message": json.dumps(line)} for line in lines],
    )
    answer = office.json("dlq", "show", message_id[:6])
    same = letter.keys() - {"receives", "newest", "times"}
    assert {name: answer[name] for name in same} == {name: letter[name] for name in same}
    assert json.loads(answer["body"])["detail"]["repository-name"] == "team/app"
    assert answer["status"] == "exhausted"
    assert [line["message"] for line in answer["log"]] == ["begin", "copy failed"]
    shown = office.run("dlq", "show", message_id)
    assert shown.exit_code == 0
    assert "copy failed error=blob lost" in shown.stdout
    assert shown.stdout.count("Transient: blob lost") == 1
    assert office.depth(office.dlq_url) == 1


def test_an_id_that_names_none_or_several_is_unusable(office: Office) -> None:
    office.bury("junk 1", "junk 2")
    result = office.run("dlq", "show", "")
    several = "ecr-relay: 2 dead letters begin with '': give more of the id\n"
    assert (result.exit_code, result.stderr) == (2, several)
    for command in ("show", "redrive", "purge"):
        options = ["--yes"] if command == "purge" else []
        result = office.run("dlq", command, "zzz", *options)
        assert (result.exit_code, "no dead letter 'zzz'" in result.stderr) == (2, True)
    assert office.depth(office.dlq_url) == 2


def test_redrive_starts_over_with_fresh_attempts(office: Office) -> None:
    message_id = bury_image(office)
    assert office.json("dlq", "redrive", message_id) == {"moved": 1, "failed": 0, "along": 0, "how": "one-by-one"}
    assert (office.depth(office.dlq_url), office.depth(office.queue_url)) == (0, 1)
    office.consume()  # it is mended by now
    assert office.world.west.content["team/app"].tags.keys() == {"1.0"}
    assert office.json("dlq", "list")["letters"] == []


def test_redrive_of_what_is_not_mended_fails_three_times_again(office: Office) -> None:
    bury_image(office)
    office.world.skopeo.fail = [Missing("manifest unknown")] * 3
    assert office.run("dlq", "redrive", "--all").exit_code == 0
    office.consume(rounds=4)
    [letter] = office.json("dlq", "list")["letters"]
    assert (letter["attempts"], letter["error_class"]) == (3, "Missing")


def test_redrive_all_goes_one_by_one_where_there_are_no_move_tasks(office: Office) -> None:
    office.bury(*(f"junk {number}" for number in range(10)))
    office.bury(*(f"junk {number}" for number in range(10, 13)))
    assert office.json("dlq", "redrive", "--all") == {"moved": 13, "failed": 0, "along": 0, "how": "one-by-one"}
    assert (office.depth(office.dlq_url), office.depth(office.queue_url)) == (0, 13)


def test_redrive_all_is_the_queues_own_move_task_where_there_is_one(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    states = iter(([], [{"Status": "RUNNING"}], [{"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 7}]))
    office.calls["StartMessageMoveTask"] = lambda arguments: asked.append(arguments) or {"TaskHandle": "handle"}  # type: ignore[func-returns-value]
    office.calls["ListMessageMoveTasks"] = lambda _arguments: {"Results": next(states)}
    monkeypatch.setattr(redrive, "MOVE_POLL_S", 0)
    assert office.json("dlq", "redrive", "--all") == {"moved": 7, "failed": 0, "along": 0, "how": "move-task"}
    arn = f"arn:aws:sqs:{REGION}:123456789012:relay"
    assert asked == [{"SourceArn": f"{arn}-dead", "DestinationArn": f"{arn}-copy"}]


def test_a_move_task_that_fails_says_how_far_it_got(office: Office) -> None:
    failed = {"Status": "FAILED", "ApproximateNumberOfMessagesMoved": 2, "FailureReason": "AccessDenied"}
    office.calls["StartMessageMoveTask"] = lambda _arguments: {"TaskHandle": "handle"}
    office.calls["ListMessageMoveTasks"] = lambda _arguments: {"Results": [failed]}
    result = office.run("dlq", "redrive", "--all")
    assert result.exit_code == 1
    assert result.stderr == "ecr-relay: SQS's move task is FAILED after 2 messages: AccessDenied\n"


def test_a_move_task_that_is_not_allowed_is_an_error(office: Office) -> None:
    office.calls["StartMessageMoveTask"] = refused("AccessDenied", "StartMessageMoveTask")
    result = office.run("dlq", "redrive", "--all")
    assert (result.exit_code, "no permission for StartMessageMoveTask" in result.stderr) == (1, True)


def test_redrive_of_a_repository_leaves_the_others(office: Office) -> None:
    bury_image(office, "team/app")
    other = bury_image(office, "team/other")
    assert office.json("dlq", "redrive", "--repository", "team/app")["moved"] == 1
    assert [letter["id"] for letter in office.json("dlq", "list")["letters"]] == [other]


def test_a_reconcile_message_stays_in_its_group(office: Office) -> None:
    office.sqs.send_message(QueueUrl=office.dlq_url, MessageBody="junk", MessageGroupId="reconcile")
    office.run("dlq", "redrive", office.json("dlq", "list")["letters"][0]["id"])
    [message] = office.sqs.receive_message(QueueUrl=office.queue_url, AttributeNames=["All"])["Messages"]
    assert message["Attributes"]["MessageGroupId"] == "reconcile"


@pytest.mark.parametrize("command", ["redrive", "purge"])
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "name the dead letters: give IDs, --repository, or --all"),
        ([""], "an empty ID names no dead letter"),
        (["--repository", ""], "an empty --repository names no dead letter"),
        (["--all", "abc"], "give only one of IDs, --repository and --all"),
        (["--all", "--repository", "x"], "give only one of IDs, --repository and --all"),
        (["--repository", "x", "abc"], "give only one of IDs, --repository and --all"),
    ],
)
def test_redrive_and_purge_want_to_know_which(office: Office, command: str, arguments: list[str], why: str) -> None:
    office.bury("junk")
    result = office.run("dlq", command, *arguments, *(["--yes"] if command == "purge" else []))
    assert (result.exit_code, why in result.stderr) == (2, True)
    assert office.depth(office.dlq_url) == 1


def test_what_sqs_does_not_take_stays_a_dead_letter(office: Office) -> None:
    office.bury("junk 1", "junk 2")
    office.calls["SendMessageBatch"] = lambda arguments: {
        "Failed": [{"Id": entry["Id"], "Code": "InternalError", "SenderFault": False} for entry in arguments["Entries"]]
    }
    answer = {"moved": 0, "failed": 2, "along": 0, "how": "one-by-one"}
    assert office.json("dlq", "redrive", "--all", status=1) == answer
    assert office.depth(office.dlq_url) == 2


def test_purge_asks_and_takes_no_for_an_answer(office: Office) -> None:
    office.bury("junk 1", "junk 2")
    for arguments in ([], ["--all"]):
        result = office.run("dlq", "purge", *arguments, input="n\n")
        assert result.exit_code == 1
        assert "ecr-relay: delete 2 dead letters for good?" in result.stderr
    assert office.depth(office.dlq_url) == 2
    assert office.run("dlq", "purge", "--all", input="").exit_code == 1
    assert office.run("dlq", "purge", "--all", input="y\n").stdout == "2 dead letters deleted\n"
    assert office.depth(office.dlq_url) == 0
    result = office.run("dlq", "purge", "--all")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "0 dead letters deleted\n", "")


def test_purge_asks_with_the_number_and_deletes_no_more_than_that(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        bury_image(office, f"team/bad{number}")
    office.bury("junk")
    asked: list[str] = []

    def confirm(text: str, **_: object) -> bool:
        asked.append(text)
        bury_image(office, "team/bad2")  # comes while the operator thinks
        return True

    monkeypatch.setattr("click.confirm", confirm)
    assert office.json("dlq", "purge", "--repository", "team/*")["deleted"] == 2
    assert asked == ["ecr-relay: delete 2 dead letters of team/* for good?"]
    assert len(office.json("dlq", "list")["letters"]) == 2


def test_purge_of_some(office: Office) -> None:
    kept = bury_image(office, "team/app")
    [junk] = office.bury("junk")
    assert office.json("dlq", "purge", junk, "--yes") == {"deleted": 1, "along": 0}
    assert [letter["id"] for letter in office.json("dlq", "list")["letters"]] == [kept]
    assert office.json("dlq", "purge", "--repository", "team/app", "--yes")["deleted"] == 1


def bury_again(office: Office, times: int, repository: str = "team/app") -> list[str]:
    """What as many reconciles leave of one image that fails each time; the ids, the oldest first."""
    ids = []
    digest = office.world.source.push(repository, f"{repository}:1.0", "1.0")
    for number in range(times):
        office.world.skopeo.fail = [Permanent("manifest invalid")]
        envelope = Envelope(
            lane="reconcile",
            source=SOURCE,
            destination="west",
            repository=repository,
            tag="1.0",
            digest=digest,
            first_seen=1_800_000_000_000 + number,
        )
        ids += office.bury(envelope.body())
    return ids


def test_the_letters_of_one_image_are_one_row(office: Office) -> None:
    pushed, other = bury_image(office), bury_image(office, "team/other")
    again = bury_again(office, 2)
    [junk] = office.bury("junk")
    ids = [pushed, *again]
    letters = office.json("dlq", "list")["letters"]
    assert [(letter["id"], letter["newest"], letter["times"]) for letter in letters] == [
        (pushed, again[-1], 3),
        (other, other, 1),
        *((message_id, again[-1], 3) for message_id in again),
        (junk, junk, 1),
    ]
    shown = office.run("dlq", "list").stdout
    rows = [line[:8] for line in shown.splitlines()[1:] if line[:1].strip()]
    assert rows == [message_id[:8] for message_id in (other, again[-1], junk)]
    assert "team/app:1.0 (3 letters)" in shown
    page = office.json("dlq", "list", "--limit", "1")
    assert ([letter["id"] for letter in page["letters"]], page["total"]) == ([other], 5)
    page = office.json("dlq", "list", "--limit", "1", "--after", page["next"])
    assert [letter["id"] for letter in page["letters"]] == ids


def test_the_letters_of_one_image_go_together(office: Office) -> None:
    ids = bury_again(office, 3)
    kept = bury_again(office, 2, "team/other")
    tried = len(office.world.skopeo.copied)
    result = office.run("dlq", "redrive", ids[1])
    assert result.stdout == "3 messages back in the copy queue, one by one, 2 of them taken along as the same image's\n"
    office.consume()  # it is mended by now: one is copied, the others join or skip
    assert (office.depth(office.queue_url), len(office.world.skopeo.copied)) == (0, tried + 1)
    assert [letter["id"] for letter in office.json("dlq", "list")["letters"]] == kept
    result = office.run("dlq", "purge", kept[0], input="y\n")
    assert "delete 2 dead letters, 1 of them taken along as the same image's, for good?" in result.stderr
    assert result.stdout == "2 dead letters deleted, 1 of them taken along as the same image's\n"
    ids = bury_again(office, 2, "team/third")
    answer = {"moved": 2, "failed": 0, "along": 0, "how": "one-by-one"}
    assert office.json("dlq", "redrive", *ids) == answer


def test_a_letter_of_another_destination_is_of_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    [west] = CONFIG["destinations"]
    config = {**CONFIG, "destinations": [west, {**west, "name": "south", "region": "eu-south-1"}]}  # type: ignore[dict-item]
    with opened(RelayConfig.model_validate_json(json.dumps(config)), monkeypatch) as office:
        _, event = office.world.push("team/app", "one", "1.0")
        office.sqs.send_message(QueueUrl=office.dlq_url, MessageBody=event)
        for name in ("west", "south", "west"):
            digest = office.world.source.push("team/app", "one", "1.0")
            envelope = Envelope(
                lane="push",
                source=SOURCE,
                destination=name,
                repository="team/app",
                tag="1.0",
                digest=digest,
                first_seen=1,
            )
            office.sqs.send_message(QueueUrl=office.dlq_url, MessageBody=envelope.body())
        letters = office.json("dlq", "list")["letters"]
        found = sorted((letter["destination"] or "", letter["times"]) for letter in letters)
        assert found == [("", 1), ("south", 1), ("west", 2), ("west", 2)]
