"""The reconcile: what it finds, what it enqueues, and how it goes on."""

import json
from typing import Any

import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.errors import Permanent, RegistryDown, Transient
from ecr_relay.images import Listed
from ecr_relay.ledger import Target
from ecr_relay.reconcile import Reconciler, Request
from tests.unit.conftest import ACCOUNT, CONFIG, REGION, World

SOURCE = f"{ACCOUNT}.{REGION}"


def heal(world: World) -> list[str]:
    world.reconcile()
    failed = world.consume(*(world.delivery(envelope.body()) for envelope in world.queue.sent))
    world.queue.sent.clear()
    return failed


def test_what_is_missing_is_enqueued_and_what_is_equal_is_not(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    other, _ = world.push("team/app", "two", "2.0")
    answer = world.reconcile()
    assert answer.status == "done"
    seen = {name: count for name, count in answer.counts.items() if count}
    assert seen == {"repositories": 1, "images": 2, "enqueued": 1}
    assert [(envelope.tag, envelope.digest) for envelope in world.queue.sent] == [("2.0", other)]
    assert world.queue.sent[0].lane == "reconcile"
    assert digest != other


def test_settings_that_are_not_as_asked_are_told_with_their_place(caplog: pytest.LogCaptureFixture) -> None:
    west = {"name": "west", "region": "eu-west-1", "account": ACCOUNT, "new_repository": {"immutable_tags": True}}
    world = World(RelayConfig.model_validate_json(json.dumps({**CONFIG, "destinations": [west]})))
    world.west.push("team/app", "one", "1.0")
    world.source.push("team/app", "one", "1.0")
    assert world.reconcile().counts["differing"] == 1
    [line] = [record for record in caplog.records if record.message == "not as asked"]
    said = (line.destination, line.repository, line.reason)  # type: ignore[attr-defined]
    assert said == ("west", "team/app", "tags MUTABLE, asked IMMUTABLE")


def test_what_is_archived_at_the_source_is_not_enqueued_day_after_day(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.push("team/app", "two", "2.0")
    world.source.archived = {world.source.content["team/app"].tags["2.0"]}
    world.consume(world.delivery(event))
    answer = world.reconcile()
    assert (answer.counts["images"], answer.counts["enqueued"]) == (1, 0)
    assert world.west.content["team/app"].tags == {"1.0": digest}


OCI: dict[str, Any] = {
    **CONFIG,
    "source": {"type": "oci", "host": "registry.test"},
    "rules": [{"repositories": ["team/app"]}],
}


def polling(**rule: Any) -> World:
    """A relay whose source is polled, and tells of referrers only who asks for those of one image."""
    [usual] = OCI["rules"]
    world = World(RelayConfig.model_validate_json(json.dumps({**OCI, "rules": [usual | rule]})))
    world.source.push("team/app", "one", "1.0")
    heal(world)
    world.source.push("team/app", "two", "2.0")
    return world


def test_referrers_that_cannot_be_listed_hold_up_no_image(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise Permanent("403 Forbidden")

    world = polling()
    monkeypatch.setattr(world.source, "referrers", refused)
    assert world.reconcile().counts["failures"] == 0
    assert [envelope.tag for envelope in world.queue.sent] == ["2.0"]
    assert "referrers not listed" in caplog.messages


def test_referrers_that_nobody_wants_are_not_asked_for() -> None:
    world = polling(referrers=False)
    world.source.calls.clear()
    world.reconcile()
    assert "referrers" not in world.source.calls


@pytest.mark.parametrize("deletes", ["ignore", "propagate"])
def test_a_tag_that_no_rule_selects_is_asked_for_only_where_its_absence_would_count(
    deletes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = polling(tags=["1.*"], deletes=deletes)
    image = world.source.content["team/app"].tags["1.0"]
    listed: list[Listed] = []
    world.source.push("team/app", "signature", image.replace(":", "-") + ".sig")
    images = world.source.images

    def noted(*arguments: Any, **options: Any) -> list[Listed]:
        listed.extend(images(*arguments, **options))
        return listed

    monkeypatch.setattr(world.source, "images", noted)
    world.reconcile()
    named = {one.tag for one in listed} - {None}
    assert named == {"1.0", image.replace(":", "-") + ".sig", *(["2.0"] if deletes == "propagate" else [])}


def test_a_repository_that_a_rule_names_and_the_source_lacks_is_counted_once() -> None:
    config = json.loads(json.dumps(OCI))
    config["destinations"].append({**config["destinations"][0], "name": "east", "region": "eu-central-1"})
    config["rules"][0]["repositories"] = ["team/app", "tema/app"]
    world = World(RelayConfig.model_validate_json(json.dumps(config)))
    world.source.push("team/app", "one", "1.0")
    for answer in (world.reconcile(), world.reconcile(dry_run=True)):
        counts = answer.counts
        assert (counts["repositories"], counts["absent"], counts["failures"]) == (1, 1, 0)


def test_an_image_deleted_at_the_destination_is_copied_again(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    world.west.delete("team/app", digest)
    assert heal(world) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    assert len(world.tasks.started) == 2


def test_a_tag_deleted_at_the_destination_is_put_again_without_a_task(world: World) -> None:
    digest, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    del world.west.content["team/app"].tags["1.0"]
    assert heal(world) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    assert len(world.tasks.started) == 1


def test_a_dry_run_answers_the_plan_and_changes_nothing(world: World) -> None:
    digest, _ = world.push("team/app", "one", "1.0")
    answer = world.reconcile(dry_run=True)
    plan = answer.plan or []
    [entry] = plan
    assert (entry.action, entry.destination, entry.repository, entry.tag) == ("copy", "west", "team/app", "1.0")
    assert (entry.digest, entry.there) == (digest, None)
    assert world.queue.sent == []
    assert world.ledger.progress.get(SOURCE) is None


def test_it_resumes_where_it_stopped(world: World) -> None:
    for name in ("a/one", "b/two", "c/three"):
        world.source.push(name, name, "1.0")
    turns = iter([True, True, False])
    answer = Reconciler(world.relay, world.queue, lambda: next(turns)).run(Request())  # type: ignore[arg-type]
    assert (answer.status, answer.cursor) == ("running", "b/two")
    assert world.reconcile(action="resume").status == "running"  # that invocation may still be at it
    assert world.reconcile(action="resume").cursor == "b/two"
    world.clock.tick(121)
    answer = world.reconcile(action="resume")
    assert (answer.status, answer.counts["repositories"]) == ("done", 3)
    assert [envelope.repository for envelope in world.queue.sent] == ["a/one", "b/two", "c/three"]
    assert world.reconcile(action="resume").status == "idle"


def test_a_request_during_a_run_makes_another_follow(world: World) -> None:
    world.source.push("a/one", "one", "1.0")
    Reconciler(world.relay, world.queue, lambda: False).run(Request())  # type: ignore[arg-type]
    world.reconcile(repositories=["nothing/*"])
    assert world.ledger.progress.get(SOURCE) is not None
    world.clock.tick(121)
    assert world.reconcile(action="resume").status == "done"
    assert world.reconcile(action="resume").status == "done"  # the other one, for everything
    assert world.reconcile(action="resume").status == "idle"


def test_however_many_ask_during_a_run_one_more_follows(world: World) -> None:
    world.source.push("a/one", "one", "1.0")
    first = Reconciler(world.relay, world.queue, lambda: False).run(Request())  # type: ignore[arg-type]
    for repositories in ((), ("a/*",), ("b/*",)):
        answer = world.reconcile(repositories=repositories)
        assert (answer.status, answer.run) == ("running", first.run)
    runs = []
    for _ in range(4):
        world.clock.tick(121)
        runs.append(world.reconcile(action="resume").run)
    assert runs[0] == first.run
    assert runs[1] not in (None, first.run)
    assert runs[2:] == [None, None]


def test_it_waits_while_the_queue_is_full(world: World) -> None:
    world.source.push("a/one", "one", "1.0")
    world.queue.backlog = 10_001
    assert world.reconcile().status == "running"
    assert world.queue.sent == []


def test_one_repository_that_fails_keeps_no_other(world: World) -> None:
    world.source.push("a/one", "one", "1.0")
    world.source.push("b/two", "two", "1.0")
    world.west.fail = [Transient("throttled")]
    answer = world.reconcile()
    assert (answer.counts["failures"], answer.counts["enqueued"]) == (1, 1)


def test_targets_name_their_source() -> None:
    target = Target(SOURCE, "west", "team/app")
    assert Target.of(target.pk) == target


def test_a_source_that_cannot_be_listed_is_said_and_tried_again(world: World) -> None:
    world.source.push("a/one", "one", "1.0")
    world.source.fail = [RegistryDown("token expired")]
    with pytest.raises(RegistryDown):
        world.reconcile()
    record = world.ledger.progress.get(SOURCE)
    assert record is not None
    assert (record.status, record.error) == ("running", "RegistryDown: token expired")
    world.clock.tick(121)
    assert world.reconcile(action="resume").status == "done"
    record = world.ledger.progress.get(SOURCE)
    assert record is not None
    assert record.error is None
