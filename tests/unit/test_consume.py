"""The consumer, from a message to its outcome: what is copied, skipped, retagged, deferred, failed."""

import json
import logging
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from ecr_relay.config import RelayConfig
from ecr_relay.consume import consume
from ecr_relay.errors import Permanent, RegistryDown, RelayError, Transient
from ecr_relay.ledger import Target
from ecr_relay.ledger.digests import ATTEMPTS, INTERRUPTIONS, REST_MAX_MS, REST_MS
from ecr_relay.ledger.slots import RECONCILE_SLOTS, SLOTS
from ecr_relay.tasks import LaunchRefused, LaunchUnknown
from tests.unit.conftest import ACCOUNT, REGION, World

TARGET = Target(f"{ACCOUNT}.{REGION}", "west", "team/app")


def test_a_push_arrives_with_its_tag(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    assert len(world.tasks.started) == 1
    assert world.queue.deferred == []


def test_two_tags_of_one_digest_make_one_copy(world: World) -> None:
    digest, first = world.push("team/app", "one", "1.0")
    _, second = world.push("team/app", "one", "latest")
    assert world.consume(world.delivery(first), world.delivery(second)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest, "latest": digest}
    assert world.skopeo.copied == [digest]


def test_what_is_copied_already_costs_one_read_and_no_task(world: World) -> None:
    _, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    world.source.calls.clear()
    world.west.calls.clear()
    calls: list[str] = []
    world.table.meta.client.meta.events.register("before-call.dynamodb", lambda model, **_: calls.append(model.name))
    assert world.consume(world.delivery(event)) == []
    assert calls == ["GetItem"]
    assert world.source.calls == world.west.calls == []
    assert len(world.tasks.started) == 1


def test_a_new_tag_of_a_copied_digest_is_put_without_a_task(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    _, event = world.push("team/app", "one", "stable")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest, "stable": digest}
    assert len(world.tasks.started) == 1


def test_no_tag_is_put_when_its_lock_is_nearly_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow source, and then a turn that is long in coming: what is put now could land when another has the lock."""
    digest, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    _, event = world.push("team/app", "one", "stable")
    [destination] = world.config.destinations
    rate = destination.put_image_per_second
    world.ledger.quota.reserve(destination.id, round(34 * rate), rate, 60)
    resolve = world.source.resolve

    def slow(repository: str, tag: str) -> str | None:
        world.clock.tick(25)
        return resolve(repository, tag)

    monkeypatch.setattr(world.source, "resolve", slow)
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    monkeypatch.setattr(world.source, "resolve", resolve)
    [waiting] = world.queue.deferred
    assert world.consume(world.delivery(waiting.body())) == []
    assert world.west.content["team/app"].tags == {"1.0": digest, "stable": digest}


def test_a_tag_that_moves_away_and_back_ends_where_the_source_is(world: World) -> None:
    first, event = world.push("team/app", "one", "latest")
    world.consume(world.delivery(event))
    second, event = world.push("team/app", "two", "latest")
    world.consume(world.delivery(event))
    assert world.west.content["team/app"].tags == {"latest": second}
    _, event = world.push("team/app", "one", "latest")
    world.consume(world.delivery(event))
    assert world.west.content["team/app"].tags == {"latest": first}


def test_an_old_event_that_comes_last_changes_nothing(world: World) -> None:
    _, old = world.push("team/app", "one", "latest")
    second, new = world.push("team/app", "two", "latest")
    world.consume(world.delivery(new))
    world.consume(world.delivery(old))
    assert world.west.content["team/app"].tags == {"latest": second}


def test_an_image_that_fails_comes_back_and_is_given_up_after_three_attempts(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [Transient("blob unknown")] * 4
    sent_at = world.clock()
    backoffs = []
    for receives in (1, 2, 3):
        delivery = world.delivery(event, sent_at=sent_at, receives=receives)
        assert world.consume(delivery) == [delivery.message_id]
        backoffs.append(world.queue.hidden[delivery.receipt_handle])
        assert world.ledger.notes.refusal(delivery.message_id) == "Transient: blob unknown"
    assert 5 <= backoffs[0] <= 10
    assert 15 <= backoffs[1] <= 30
    assert backoffs[2] == 0
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts, record.error) == ("exhausted", 3, "blob unknown")
    # Delivered once more, it launches nothing.
    delivery = world.delivery(event, sent_at=sent_at, receives=4)
    assert world.consume(delivery) == [delivery.message_id]
    assert len(world.tasks.started) == 3


def test_a_redrive_after_giving_up_starts_over(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [Permanent("schema 1")]
    delivery = world.delivery(event)
    assert world.consume(delivery) == [delivery.message_id]
    assert world.queue.hidden[delivery.receipt_handle] == 0
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}


def test_a_redrive_of_what_sqs_gave_up_early_has_fresh_attempts_and_waiting_gives_none(world: World) -> None:
    """Two attempts and a consumer that died are three receives, so SQS moves it; the image is not given up."""
    digest, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [Transient("blob unknown")] * 10
    sent_at = world.clock()
    for receives in (1, 3):
        world.consume(world.delivery(event, sent_at=sent_at, receives=receives))
    assert world.ledger.digests.get(TARGET, digest).attempts == 2
    # Waiting is no new beginning: what is deferred goes on with the attempts that are left.
    world.clock.tick(10)
    world.ledger.notes.open_breaker("west", "expired")
    assert world.consume(world.delivery(event, sent_at=sent_at)) == []
    (waiting,) = world.queue.deferred
    world.clock.tick(70)
    # Redriven, it starts over, and it does not matter whether it had been deferred.
    for body in (event, waiting.body()):
        assert world.consume(world.delivery(body)) != []
        assert world.ledger.digests.get(TARGET, digest).attempts == 1
        world.clock.tick(70)
    for attempts in (2, 3):
        assert world.consume(world.delivery(waiting.deferred(world.clock()).body())) != []
        assert world.ledger.digests.get(TARGET, digest).attempts == attempts
        world.clock.tick(70)
    assert world.ledger.digests.get(TARGET, digest).status == "exhausted"


def test_one_bad_image_harms_no_other(world: World) -> None:
    _, bad = world.push("bad/app", "bad", "1.0")
    good, event = world.push("team/app", "good", "1.0")
    world.source.delete("bad/app", world.source.content["bad/app"].tags["1.0"])
    world.source.content["bad/app"].tags["1.0"] = json.loads(bad)["detail"]["image-digest"]
    delivery = world.delivery(bad)
    assert world.consume(delivery, world.delivery(event)) == [delivery.message_id]
    assert world.west.content["team/app"].tags == {"1.0": good}


KILLED = "EssentialContainerExited: OutOfMemoryError: exit code 137"


def ending(world: World, reason: str, **how: bool) -> None:
    """Every task from now on begins, and ends without an outcome."""
    world.tasks.at_once = False
    real = world.tasks.launch

    def launch(run: str) -> str:
        arn = real(run)
        if how.get("started", True):
            world.ledger.slots.begin(run, "holder")
        world.tasks.end(run, reason, **how)
        return arn

    world.tasks.launch = launch  # type: ignore[method-assign]


def test_a_task_that_is_killed_is_no_attempt(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    ending(world, KILLED)
    assert world.consume(world.delivery(event), seconds=4) == []
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts, record.interruptions) == ("waiting", 0, 1)
    assert KILLED in (record.error or "")
    assert world.ledger.slots.held() == []
    # It is left alone for a while, whoever asks for it.
    (waiting,) = world.queue.deferred
    assert world.consume(world.delivery(waiting.body()), world.delivery(event)) == []
    assert len(world.tasks.started) == 1


def test_an_image_that_kills_its_copier_is_a_dead_letter_after_all_and_starts_over_with_a_redrive(
    world: World,
) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    ending(world, KILLED)
    sent_at, failures = world.clock(), 0
    while failures < ATTEMPTS:
        failures += len(world.consume(world.delivery(event, sent_at=sent_at), seconds=4))
        world.clock.tick(REST_MAX_MS / 1000)
        assert len(world.tasks.started) < 20, "it never comes to an end"
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts) == ("exhausted", ATTEMPTS)
    assert record.interruptions == len(world.tasks.started) == INTERRUPTIONS + ATTEMPTS - 1
    delivery = world.delivery(event, sent_at=sent_at)
    assert world.consume(delivery) == [delivery.message_id]
    assert KILLED in (world.ledger.notes.refusal(delivery.message_id) or "")
    assert len(world.tasks.started) == INTERRUPTIONS + ATTEMPTS - 1
    assert world.consume(world.delivery(event), seconds=4) == []
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts, record.interruptions) == ("waiting", 0, 1)


def test_an_image_that_kills_its_copier_takes_no_other_along(world: World) -> None:
    killer, event = world.push("bad/app", "killer", "1.0")
    events = {"bad/app": event} | {f"team/{n}x": world.push(f"team/{n}x", f"good {n}", "1.0")[1] for n in range(3)}
    begun: list[set[str]] = []

    def runner(run: str) -> None:
        found = world.ledger.runs.get(run)
        assert found is not None
        begun.append({job.repository for job in found.jobs})
        if killer in {job.digest for job in found.jobs}:
            raise MemoryError
        world.run_copier(run)

    world.tasks.runner = runner
    sent_at = world.clock()
    for _ in range(INTERRUPTIONS + ATTEMPTS):
        for batch in (list(events.values()), list(events.values())):  # each is also delivered twice
            world.consume(*(world.delivery(one, sent_at=sent_at) for one in batch), seconds=4)
        world.clock.tick(REST_MAX_MS / 1000)
    assert world.ledger.digests.get(Target(f"{ACCOUNT}.{REGION}", "west", "bad/app"), killer).status == "exhausted"
    assert all(world.west.content[repository].tags for repository in events if repository != "bad/app")
    assert begun[0] == set(events)
    assert {"bad/app"} in begun


@pytest.mark.parametrize(
    ("reason", "how", "status", "attempts"),
    [
        ("TaskFailedToStart: CannotPullContainerError", {"started": False}, "failed", 1),
        ("TaskFailedToStart: Capacity is unavailable", {"started": False, "passing": True}, "waiting", 0),
        ("SpotInterruption: exit code 143", {"passing": True}, "waiting", 0),
    ],
)
def test_what_never_started_is_an_attempt_and_what_ecs_took_away_is_nothing(
    world: World, reason: str, how: dict[str, bool], status: str, attempts: int
) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    ending(world, reason, **how)
    delivery = world.delivery(event)
    assert world.consume(delivery, seconds=4) == ([delivery.message_id] if attempts else [])
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts, record.interruptions) == (status, attempts, 0)
    assert reason in (record.error or "")


def test_a_claim_whose_run_has_no_record_is_not_kept_for_ever(world: World) -> None:
    """Its consumer died between the claim and the record: no task was launched, and the slot is given back."""
    digest, event = world.push("team/app", "one", "1.0")
    world.ledger.slots.take("run", "west", "push", 10)
    world.ledger.digests.claim(world.ledger.digests.get(TARGET, digest), "run", 0)
    assert world.consume(world.delivery(event)) == []
    assert world.tasks.started == {}
    world.clock.tick(400)
    assert world.consume(world.delivery(event)) == []
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts, record.interruptions) == ("waiting", 0, 1)
    assert world.ledger.slots.held() == []
    world.clock.tick(REST_MS / 1000)
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}


def test_a_copy_that_lasts_is_deferred_and_not_started_twice(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.tasks.at_once = False
    assert world.consume(world.delivery(event)) == []
    (waiting,) = world.queue.deferred
    run = world.ledger.digests.get(TARGET, digest).run
    assert run is not None
    assert world.consume(world.delivery(waiting.body())) == []
    assert len(world.tasks.started) == 1
    world.tasks.run(run)
    assert world.consume(world.delivery(waiting.body())) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    assert world.ledger.digests.get(TARGET, digest).attempts == 0
    assert len(world.tasks.started) == 1


def test_no_eleventh_task(world: World) -> None:
    world.tasks.at_once = False
    for number in range(SLOTS + 2):
        _, event = world.push(f"team/app{number}", "one", "1.0")
        assert world.consume(world.delivery(event), seconds=0) == []
    assert len(world.tasks.alive) == SLOTS
    assert len(world.queue.deferred) == SLOTS + 2


def test_a_backfill_leaves_slots_for_pushes(world: World) -> None:
    world.tasks.at_once = False
    for number in range(SLOTS):
        world.source.push(f"old/app{number}", "one", "1.0")
    world.reconcile()
    for envelope in world.queue.sent:
        world.consume(world.delivery(envelope.body()), seconds=0)
    assert len(world.tasks.alive) == RECONCILE_SLOTS
    _, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event), seconds=0)
    assert len(world.tasks.alive) == RECONCILE_SLOTS + 1


def test_of_a_batch_the_push_takes_the_last_slot(world: World) -> None:
    world.tasks.at_once = False
    world.source.push("old/app", "one", "1.0")
    world.reconcile()
    [old] = world.queue.sent
    digest, event = world.push("team/app", "two", "1.0")
    for number in range(SLOTS - 1):
        world.ledger.slots.take(f"other-{number}", "west", "push", SLOTS)
    world.consume(world.delivery(old.body()), world.delivery(event), seconds=0)
    assert len(world.tasks.started) == 1
    assert world.ledger.digests.get(TARGET, digest).status == "copying"


def test_a_batch_of_two_lanes_is_two_tasks(world: World) -> None:
    """Or what a backfill brings would be in a slot that is kept for pushes."""
    world.tasks.at_once = False
    world.source.push("old/app", "one", "1.0")
    world.reconcile()
    [old] = world.queue.sent
    _, event = world.push("team/app", "two", "1.0")
    world.consume(world.delivery(old.body()), world.delivery(event), seconds=0)
    assert sorted(slot.lane for slot in world.ledger.slots.held()) == ["push", "reconcile"]


def test_a_launch_that_is_refused_for_now_waits(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.tasks.refuse = [LaunchRefused("RunTask: no task: Capacity is unavailable at this time", passing=True)]
    assert world.consume(world.delivery(event)) == []
    assert len(world.queue.deferred) == 1
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts) == ("waiting", 0)
    assert world.ledger.slots.held() == []


def test_a_launch_that_is_refused_for_good_is_an_attempt(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.tasks.refuse = [LaunchRefused("RunTask: AccessDeniedException", passing=False)]
    delivery = world.delivery(event)
    assert world.consume(delivery) == [delivery.message_id]
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts, record.error) == ("failed", 1, "RunTask: AccessDeniedException")


def test_a_lost_answer_starts_nothing_twice(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.tasks.lose = [LaunchUnknown("RunTask: read timeout")]
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    assert len(world.tasks.started) == 1


def test_a_launch_that_never_was_gives_its_slot_and_claim_back(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.tasks.refuse = [LaunchUnknown("RunTask: read timeout")]
    assert world.consume(world.delivery(event)) == []
    (waiting,) = world.queue.deferred
    world.clock.tick(200)
    assert world.consume(world.delivery(waiting.body())) == []
    assert len(world.ledger.slots.held()) == 1  # ECS may yet come to know it
    assert world.tasks.started == {}
    world.clock.tick(200)
    assert world.consume(world.delivery(waiting.body())) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}


def test_a_launch_whose_image_another_has_claimed_meanwhile_holds_no_slot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, event = world.push("team/app", "one", "1.0")
    monkeypatch.setattr(world.ledger.digests, "claim", lambda *_, **__: None)
    assert world.consume(world.delivery(event)) == []
    assert len(world.queue.deferred) == 1
    assert world.ledger.slots.held() == []
    assert world.tasks.started == {}


def test_a_host_that_vanishes_is_found_by_its_lease(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.tasks.at_once = False
    world.consume(world.delivery(event), seconds=0)
    (waiting,) = world.queue.deferred
    run = world.ledger.digests.get(TARGET, digest).run
    assert run is not None
    world.ledger.slots.begin(run, "holder")
    world.tasks.begin(run)
    world.clock.tick(130)
    # ECS still believes that it runs: it is stopped, and nothing else is started before it is over.
    world.consume(world.delivery(waiting.body()), seconds=0)
    assert len(world.tasks.started) == 1
    assert len(world.tasks.stopped) == 1
    world.tasks.at_once = True
    world.consume(world.delivery(waiting.body()))
    assert world.ledger.digests.get(TARGET, digest).interruptions == 1
    world.clock.tick(REST_MS / 1000)
    world.consume(world.delivery(waiting.body()))
    assert world.west.content["team/app"].tags == {"1.0": digest}
    assert len(world.tasks.started) == 2


def test_a_destination_that_is_down_fails_nothing_and_is_left_alone_for_a_while(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [RegistryDown("authorization token has expired")]
    assert world.consume(world.delivery(event)) == []
    (waiting,) = world.queue.deferred
    assert world.consume(world.delivery(waiting.body())) == []
    assert len(world.tasks.started) == 1
    world.clock.tick(61)
    assert world.consume(world.delivery(waiting.body())) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("no json", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "not a JSON object, but list"),
        ("{}", "neither an event (no 'detail-type') nor an envelope (no 'v')"),
        ('{"v": 2}', "v: 2 is an unknown version; this release knows 1"),
        ('{"v": 1}', "lane: Field required"),
        (
            '{"detail-type": "ECR Image Scan"}',
            "detail-type: 'ECR Image Scan' is unknown; known: 'ECR Image Action'",
        ),
        ("[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        (
            '{"detail-type": "ECR Image Action", "source": "aws.ecr", "account": "000000000000", '
            '"region": "us-east-1", "time": "9999-12-31T23:59:59-01:00", "detail": {}}',
            "time: ",
        ),
    ],
)
def test_what_nobody_can_act_on_fails_alone_and_its_reason_is_kept(world: World, body: str, reason: str) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    delivery = world.delivery(body)
    assert world.consume(delivery, world.delivery(event)) == [delivery.message_id]
    assert world.queue.hidden == {delivery.receipt_handle: 0}
    assert (world.ledger.notes.refusal(delivery.message_id) or "").startswith(f"malformed: {reason}")
    assert world.west.content["team/app"].tags == {"1.0": digest}


def test_an_event_without_a_digest_is_refused(world: World) -> None:
    event = json.loads(world.event("team/app", "sha256:0", "1.0"))
    del event["detail"]["image-digest"]
    delivery = world.delivery(json.dumps(event))
    assert world.consume(delivery) == [delivery.message_id]
    assert world.ledger.notes.refusal(delivery.message_id) == "malformed: detail.image-digest: Field required"


def test_children_deletes_and_other_registries_are_dropped(world: World) -> None:
    digest = world.source.push("team/app", "child")
    child = world.event("team/app", digest, None)
    other = world.event("team/app", digest, "1.0", region="eu-west-1")
    deleted = json.loads(world.event("team/app", digest, "1.0"))
    deleted["detail"]["action-type"] = "DELETE"
    assert world.consume(*map(world.delivery, (child, other, json.dumps(deleted)))) == []
    assert world.tasks.started == {}
    assert world.queue.deferred == []


def test_an_index_brings_its_children(world: World) -> None:
    child = world.source.push("team/app", "child")
    index = world.source.push("team/app", "index", "1.0", children=(child,))
    assert world.consume(world.delivery(world.event("team/app", index, "1.0"))) == []
    assert set(world.west.content["team/app"].manifests) == {child, index}


def test_a_tag_that_moves_while_its_digest_is_copied_moves_on(world: World) -> None:
    first, event = world.push("team/app", "one", "latest")
    moved: list[str] = []
    world.skopeo.during = lambda _: moved.append(world.source.push("team/app", "two", "latest")) if not moved else None
    assert world.consume(world.delivery(event)) == []
    # For now, what was just copied; and a message that goes on with what the source has.
    assert world.west.content["team/app"].tags == {"latest": first}
    (waiting,) = world.queue.deferred
    assert world.consume(world.delivery(waiting.body())) == []
    assert world.west.content["team/app"].tags == {"latest": moved[0]}


def test_an_immutable_tag_with_another_digest_is_told_before_a_layer_moves(world: World) -> None:
    world.west.ensure_repository(
        "team/app", world.config.destinations[0].new_repository.model_copy(update={"immutable_tags": True})
    )
    other = world.west.push("team/app", "other", "1.0")
    _, event = world.push("team/app", "one", "1.0")
    delivery = world.delivery(event)
    assert world.consume(delivery) == [delivery.message_id]
    assert world.queue.hidden[delivery.receipt_handle] == 0
    assert world.skopeo.copied == []
    assert world.west.content["team/app"].tags == {"1.0": other}
    assert "immutable" in (world.ledger.notes.refusal(delivery.message_id) or "")


def test_a_tag_that_is_taken_gives_up_no_other_tag_of_its_digest(world: World) -> None:
    world.west.ensure_repository(
        "team/app", world.config.destinations[0].new_repository.model_copy(update={"immutable_tags": True})
    )
    other = world.west.push("team/app", "other", "1.0")
    _, taken = world.push("team/app", "one", "1.0")
    digest, free = world.push("team/app", "one", "1.1")
    sent_at = world.clock()
    assert len(world.consume(world.delivery(taken, sent_at=sent_at))) == 1
    assert world.consume(world.delivery(free, sent_at=sent_at)) == []
    assert world.west.content["team/app"].tags == {"1.0": other, "1.1": digest}


def test_a_repository_that_is_deleted_while_it_is_copied_into_is_made_again_by_the_next_attempt(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    gone: list[object] = []
    world.skopeo.during = lambda _: None if gone else gone.append(world.west.content.pop("team/app"))
    delivery = world.delivery(event)
    assert world.consume(delivery) == [delivery.message_id]
    assert world.ledger.digests.get(TARGET, digest).attempts == 1
    assert world.consume(world.delivery(event, sent_at=delivery.sent_at, receives=2)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    # And when it is gone with all that is in it, the ledger is not believed for long.
    del world.west.content["team/app"]
    _, event = world.push("team/app", "one", "stable")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"stable": digest}


def test_a_push_for_two_destinations_is_split(world: World) -> None:
    config = world.config.model_dump(mode="json")
    config["destinations"].append({"name": "east", "region": "us-east-2", "account": ACCOUNT})
    two = World(RelayConfig.model_validate_json(json.dumps(config)), table=world.table)
    digest, event = two.push("team/app", "one", "1.0")
    assert two.consume(two.delivery(event)) == []
    assert [envelope.destination for envelope in two.queue.sent] == ["west", "east"]
    assert two.consume(*(two.delivery(envelope.body()) for envelope in two.queue.sent)) == []
    assert [registry.content["team/app"].tags for registry in two.destinations.values()] == [{"1.0": digest}] * 2
    assert len(two.tasks.started) == 2


def test_a_split_that_sqs_does_not_take_is_tried_again_and_uses_up_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = world.config.model_dump(mode="json")
    config["destinations"].append({"name": "east", "region": "us-east-2", "account": ACCOUNT})
    two = World(RelayConfig.model_validate_json(json.dumps(config)), table=world.table)
    _, event = two.push("team/app", "one", "1.0")
    monkeypatch.setattr(two.queue, "send", raising(RelayError("SQS refused 1 of 2 messages")))
    assert two.consume(two.delivery(event)) == []
    assert two.queue.repeated == [event]


def test_a_ledger_that_is_away_dead_letters_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    error = ClientError({"Error": {"Code": "InternalServerError", "Message": "try again"}}, "GetItem")
    with monkeypatch.context() as broken:
        broken.setattr(world.ledger.tags, "get", raising(error))
        assert world.consume(world.delivery(event)) == []
    assert world.queue.repeated == [event]
    with monkeypatch.context() as broken:
        broken.setattr(world.ledger.digests, "claim", raising(error))
        assert world.consume(world.delivery(event)) == []
    assert world.queue.repeated == [event, event]
    world.clock.tick(400)
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}


def test_a_ledger_that_was_away_gives_no_fresh_attempts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [Transient("blob unknown")] * 10
    assert world.consume(world.delivery(event)) != []
    world.clock.tick(30)
    error = ClientError({"Error": {"Code": "InternalServerError", "Message": "try again"}}, "GetItem")
    with monkeypatch.context() as broken:
        broken.setattr(world.ledger.tags, "get", raising(error))
        assert world.consume(world.delivery(event, receives=2)) == []
    world.clock.tick(30)
    assert world.consume(world.delivery(world.queue.repeated[0])) != []
    assert world.ledger.digests.get(TARGET, digest).attempts == 2


def test_an_event_without_a_tag_is_sent_again_as_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it goes is up to its manifest, too, and not to the rules for untagged images alone."""
    config = world.config.model_dump(mode="json") | {"rules": [{"untagged": True}]}
    two = World(RelayConfig.model_validate_json(json.dumps(config)), table=world.table)
    event = two.event("team/app", two.source.push("team/app", "signature", subject="sha256:" + "0" * 64), None)
    error = ClientError({"Error": {"Code": "InternalServerError", "Message": "try again"}}, "GetItem")
    monkeypatch.setattr(two.ledger.digests, "get", raising(error))
    assert two.consume(two.delivery(event, receives=2)) == []
    assert two.queue.repeated == [event]


def test_a_bug_fails_its_message_and_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, event = world.push("team/app", "one", "1.0")
    with monkeypatch.context() as broken:
        broken.setattr(world.ledger.tags, "get", raising(KeyError("oops")))
        delivery, ignored = world.delivery(event), world.delivery(world.event("team/app", "sha256:" + "0" * 64, None))
        assert world.consume(delivery, ignored) == [delivery.message_id]


def test_an_outcome_that_cannot_be_told_leaves_the_message_where_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, event = world.push("team/app", "one", "1.0")
    world.tasks.at_once = False
    monkeypatch.setattr(world.queue, "defer", raising(KeyError("sqs")))
    delivery = world.delivery(event)
    assert world.consume(delivery) == [delivery.message_id]


def raising(error: Exception) -> Callable[..., object]:
    def raise_it(*_: object, **__: object) -> object:
        raise error

    return raise_it


def test_a_task_that_says_it_ended_but_left_no_outcome_is_an_interruption(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")

    def crash(run: str) -> None:
        world.ledger.slots.begin(run, "holder")
        world.ledger.slots.end(world.ledger.slots.held()[0], "holder")

    world.tasks.runner = crash
    assert world.consume(world.delivery(event)) == []
    assert world.consume(world.delivery(event)) == []
    record = world.ledger.digests.get(TARGET, digest)
    assert (record.status, record.attempts, record.interruptions) == ("waiting", 0, 1)
    assert len(world.tasks.started) == 1


def test_what_is_given_up_is_not_deferred_by_an_open_breaker(world: World) -> None:
    _, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [Permanent("schema 1")]
    sent_at = world.clock()
    world.consume(world.delivery(event, sent_at=sent_at))
    world.ledger.notes.open_breaker("west", "expired")
    delivery = world.delivery(event, sent_at=sent_at, receives=2)
    assert world.consume(delivery) == [delivery.message_id]
    assert world.queue.deferred == []


def test_a_registry_that_answers_with_errors_for_a_while_uses_up_nothing(world: World) -> None:
    _, event = world.push("team/app", "one", "1.0")
    world.clock.now = 1_800_000_000_000  # the event's own time, and a little
    body = json.loads(event) | {"time": "2027-01-15T07:59:00Z"}
    world.source.fail = [Transient("500"), Transient("500")]
    assert world.consume(world.delivery(json.dumps(body))) == []
    assert world.queue.repeated == [json.dumps(body)]
    world.clock.tick(7200)
    delivery = world.delivery(json.dumps(body))
    assert world.consume(delivery) == [delivery.message_id]


def test_a_source_that_is_down_uses_up_nothing_of_what_must_be_read_to_be_known(world: World) -> None:
    """Whether an image without a tag refers to another, its manifest tells, before any destination is chosen."""
    event = world.event("team/app", world.source.push("team/app", "signature"), None)
    for seconds in (0, 7200):
        world.clock.tick(seconds)
        world.source.fail = [RegistryDown("the role may not be assumed")]
        assert world.consume(world.delivery(event, receives=3)) == []
    assert world.queue.repeated == [event, event]


def test_what_is_denied_while_deciding_does_not_wait(world: World) -> None:
    _, event = world.push("team/app", "one", "1.0")
    world.west.fail = [Permanent("AccessDeniedException: not authorized to perform: ecr:BatchGetImage")]
    delivery = world.delivery(event)
    assert world.consume(delivery) == [delivery.message_id]
    assert world.queue.hidden[delivery.receipt_handle] == 0


def test_no_time_left_decides_nothing(world: World) -> None:
    _, event = world.push("team/app", "one", "1.0")
    failed = consume(
        [world.delivery(event)],
        world.relay,
        world.queue,  # type: ignore[arg-type]
        world.tasks,  # type: ignore[arg-type]
        240,
        world.clock.tick,
        seconds_left=lambda: 0,
    )
    assert failed == []
    assert world.queue.repeated == [event]
    assert world.tasks.started == {}


def test_launches_that_take_long_leave_time_to_tell_and_the_rest_waits(world: World) -> None:
    """RunTask hangs for a minute each time: a function that is ended meanwhile uses up a receive of every message."""
    config = world.config.model_dump(mode="json")
    for region in ("us-east-2", "us-west-2"):
        config["destinations"].append({"name": region, "region": region, "account": ACCOUNT})
    slow = World(RelayConfig.model_validate_json(json.dumps(config)), table=world.table)
    slow.tasks.at_once = False
    launch = slow.tasks.launch

    def hangs(run: str) -> str:
        slow.clock.tick(60)
        return launch(run)

    slow.tasks.launch = hangs  # type: ignore[method-assign]
    _, event = slow.push("team/app", "one", "1.0")
    slow.consume(slow.delivery(event))
    deadline = slow.clock() + 180_000
    failed = consume(
        [slow.delivery(envelope.body()) for envelope in slow.queue.sent],
        slow.relay,
        slow.queue,  # type: ignore[arg-type]
        slow.tasks,  # type: ignore[arg-type]
        240,
        slow.clock.tick,
        seconds_left=lambda: (deadline - slow.clock()) / 1000,
    )
    assert failed == []
    assert slow.clock() < deadline + 3000  # one look of the supervisor
    assert len(slow.tasks.started) == 2
    assert len(slow.queue.deferred) == 3


def test_a_ring_is_dropped_by_its_name(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ecr_relay.consume")
    [west] = world.config.destinations
    mirrored = west.model_copy(update={"prefix": "mirror"})
    world.relay.config = world.config.model_copy(update={"destinations": (mirrored,)})
    _, event = world.push("mirror/app", "one", "1.0")
    assert world.consume(world.delivery(event)) == []
    assert not world.tasks.started
    assert "go round for ever" in caplog.records[-1].reason  # type: ignore[attr-defined]
