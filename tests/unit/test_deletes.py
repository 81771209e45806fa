"""Deletes that are propagated, evictions that are not fought, and rules that only observe: through the reconcile."""

import json
import logging
from typing import Any

import pytest

from ecr_relay.absences import DAY_MS
from ecr_relay.config import RelayConfig
from ecr_relay.errors import Transient
from tests.unit.conftest import CONFIG, World

PROPAGATE = {"deletes": "propagate"}


def a_world(rule: dict[str, Any], **destination: Any) -> World:
    [west] = CONFIG["destinations"]
    config = {**CONFIG, "destinations": [{**west, **destination}], "rules": [rule]}  # type: ignore[dict-item]
    return World(RelayConfig.model_validate_json(json.dumps(config)))


def relayed(world: World, *tags: str) -> dict[str, str]:
    """An image for each of these tags, at both sides, and one that stays."""
    digests = {}
    for tag in (*tags, "stays"):
        digests[tag], event = world.push("team/app", f"image {tag}", tag)
        assert world.consume(world.delivery(event)) == []
    return digests


def reconcile(world: World) -> dict[str, int]:
    """One, and the copies that it asks for; its counts."""
    world.queue.sent.clear()
    counts = world.reconcile().counts
    world.consume(*(world.delivery(envelope.body()) for envelope in world.queue.sent))
    return counts


def a_day_later(world: World) -> dict[str, int]:
    world.clock.tick(DAY_MS / 1000)
    return reconcile(world)


def there(world: World) -> set[str]:
    return set(world.west.content["team/app"].tags)


def test_what_two_listings_a_day_apart_do_not_have_is_removed() -> None:
    world = a_world(PROPAGATE)
    digests = relayed(world, "old")
    world.source.delete("team/app", digests["old"], "old")
    assert reconcile(world)["deleted"] == 0
    world.clock.tick(DAY_MS / 2000)
    assert reconcile(world)["deleted"] == 0
    assert there(world) == {"old", "stays"}
    assert a_day_later(world)["deleted"] == 1
    assert there(world) == {"stays"}
    assert digests["old"] not in world.west.content["team/app"].manifests
    # And a push brings it back as if it had never been there.
    _, event = world.push("team/app", "image old", "old")
    assert world.consume(world.delivery(event)) == []
    assert there(world) == {"old", "stays"}


def test_deletes_are_ignored_unless_a_rule_says_otherwise() -> None:
    world = a_world({})
    world.source.delete("team/app", relayed(world, "old")["old"], "old")
    reconcile(world)
    assert a_day_later(world)["deleted"] == 0
    assert there(world) == {"old", "stays"}


def test_what_came_back_in_between_starts_over() -> None:
    world = a_world(PROPAGATE)
    world.source.delete("team/app", relayed(world, "old")["old"], "old")
    reconcile(world)
    world.push("team/app", "image old", "old")
    reconcile(world)
    world.source.delete("team/app", world.source.content["team/app"].tags["old"], "old")
    assert a_day_later(world)["deleted"] == 0
    assert a_day_later(world)["deleted"] == 1


def test_a_repository_that_looks_empty_removes_nothing() -> None:
    world = a_world(PROPAGATE)
    relayed(world, "old")
    kept = world.source.content.pop("team/app")
    world.source.content["team/app"] = type(kept)()
    for _ in range(3):
        assert a_day_later(world)["deleted"] == 0
    assert there(world) == {"old", "stays"}


def test_a_source_that_does_not_answer_removes_nothing() -> None:
    world = a_world(PROPAGATE)
    world.source.delete("team/app", relayed(world, "old")["old"], "old")
    reconcile(world)
    world.clock.tick(DAY_MS / 1000)
    images = world.source.images
    world.source.images = lambda *_, **__: (_ for _ in ()).throw(Transient("denied"))  # type: ignore[method-assign]
    assert reconcile(world)["failures"] == 1
    assert there(world) == {"old", "stays"}
    world.source.images = images  # type: ignore[method-assign]


def test_a_rule_that_was_narrowed_removes_nothing() -> None:
    world = a_world(PROPAGATE)
    relayed(world, "old")
    rules = [{**PROPAGATE, "exclude_tags": ["old"]}]
    world.relay.config = world.config = RelayConfig.model_validate_json(json.dumps({**CONFIG, "rules": rules}))
    reconcile(world)
    assert a_day_later(world)["deleted"] == 0
    # Nor when the source loses it as well: no rule speaks of it any more.
    world.source.delete("team/app", world.source.content["team/app"].tags["old"], "old")
    reconcile(world)
    assert a_day_later(world)["deleted"] == 0


def test_what_somebody_else_put_there_stays() -> None:
    world = a_world(PROPAGATE)
    digests = relayed(world, "old")
    world.west.push("team/app", "theirs", "theirs")
    world.west.push("team/app", "moved by them", "old")
    world.source.delete("team/app", digests["old"], "old")
    reconcile(world)
    a_day_later(world)
    assert there(world) == {"old", "stays", "theirs"}


def test_what_was_there_before_stays_though_it_is_equal() -> None:
    world = a_world(PROPAGATE)
    relayed(world)
    theirs, event = world.push("team/app", "theirs too", "theirs")
    assert world.west.push("team/app", "theirs too", "theirs") == theirs
    _, ours = world.push("team/app", "theirs too", "ours")
    assert world.consume(world.delivery(event), world.delivery(ours)) == []
    untagged = world.source.push("team/app", "theirs, without a tag", "named")
    world.west.push("team/app", "theirs, without a tag")
    assert world.consume(world.delivery(world.event("team/app", untagged, "named"))) == []
    world.source.delete("team/app", theirs)
    world.source.delete("team/app", untagged)
    reconcile(world)
    a_day_later(world)
    # A tag that we put goes; not theirs, nor the image with its last tag, which was there before we tagged it.
    assert there(world) == {"stays", "theirs", "named"}
    assert {theirs, untagged} < set(world.west.content["team/app"].manifests)


def test_a_child_that_somebody_has_tagged_stays() -> None:
    world = a_world(PROPAGATE)
    relayed(world)
    child, other = world.source.push("team/app", "amd64"), world.source.push("team/app", "arm64")
    index = world.source.push("team/app", "index", "1.0", children=(child, other))
    assert world.consume(world.delivery(world.event("team/app", index, "1.0"))) == []
    world.west.push("team/app", "amd64", "1.0-amd64")
    world.source.delete("team/app", index)
    for digest in (child, other):
        world.source.delete("team/app", digest)
    reconcile(world)
    a_day_later(world)
    assert there(world) == {"stays", "1.0-amd64"}
    # And a child is no more in a hurry than its index was.
    assert {child, other} < set(world.west.content["team/app"].manifests)
    a_day_later(world)
    manifests = world.west.content["team/app"].manifests
    assert child in manifests
    assert other not in manifests


def test_what_an_index_of_somebody_else_lists_stays_and_stops_nothing() -> None:
    world = a_world(PROPAGATE)
    digests = relayed(world, "listed", "old")
    world.west.push("team/app", "their index", "theirs", children=(digests["listed"],))
    for tag in ("listed", "old"):
        world.source.delete("team/app", digests[tag])
    reconcile(world)
    counts = a_day_later(world)
    assert (counts["deleted"], counts["failures"]) == (1, 0)
    assert there(world) == {"listed", "stays", "theirs"}


def test_more_than_the_limit_are_held(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world(PROPAGATE, max_deletes=1)
    digests = relayed(world, "a", "b")
    for tag in "ab":
        world.source.delete("team/app", digests[tag], tag)
    reconcile(world)
    counts = a_day_later(world)
    assert (counts["deleted"], counts["held"]) == (0, 2)
    assert there(world) == {"a", "b", "stays"}
    assert "max_deletes" in caplog.text


def test_an_index_goes_before_its_children_and_shared_ones_stay() -> None:
    world = a_world(PROPAGATE)
    relayed(world)
    mine, shared = world.source.push("team/app", "mine"), world.source.push("team/app", "shared")
    first = world.source.push("team/app", "first", "first", children=(mine, shared))
    second = world.source.push("team/app", "second", "second", children=(shared,))
    for digest, tag in ((first, "first"), (second, "second")):
        assert world.consume(world.delivery(world.event("team/app", digest, tag))) == []
    world.source.delete("team/app", first, "first")
    world.source.delete("team/app", mine)
    reconcile(world)
    a_day_later(world)
    assert mine in world.west.content["team/app"].manifests
    a_day_later(world)
    manifests = world.west.content["team/app"].manifests
    assert first not in manifests
    assert mine not in manifests
    assert {second, shared} < set(manifests)


def test_a_dry_run_says_what_would_be_removed_and_removes_nothing() -> None:
    world = a_world(PROPAGATE)
    world.source.delete("team/app", relayed(world, "old")["old"], "old")
    reconcile(world)
    world.clock.tick(DAY_MS / 1000)
    answer = world.reconcile(dry_run=True)
    assert [(entry.action, entry.tag) for entry in answer.plan or ()] == [("delete", "old")]
    assert there(world) == {"old", "stays"}


def test_what_a_lifecycle_policy_removes_again_is_not_fought() -> None:
    world = a_world({})
    digest = relayed(world, "old")["old"]
    world.west.delete("team/app", digest, "old")
    assert reconcile(world)["enqueued"] == 1  # healed once
    assert there(world) == {"old", "stays"}
    world.west.delete("team/app", digest, "old")
    counts = a_day_later(world)
    assert (counts["enqueued"], counts["evicted"]) == (0, 1)
    assert there(world) == {"stays"}
    world.clock.tick(400 * DAY_MS / 1000)
    assert reconcile(world)["evicted"] == 1
    # Until it is pushed again.
    assert world.consume(world.delivery(world.event("team/app", digest, "old"))) == []
    assert there(world) == {"old", "stays"}
    assert reconcile(world)["evicted"] == 0


def test_a_tag_that_is_rolled_back_again_is_no_eviction() -> None:
    """A policy that expires what has no tag takes the image each time that its tag moves away."""
    world = a_world({})
    first = relayed(world, "old")["old"]
    for number in range(2):
        _, event = world.push("team/app", f"newer {number}", "old")
        assert world.consume(world.delivery(event)) == []
        world.west.delete("team/app", first)
        world.source.push("team/app", "image old", "old")  # and its event is lost
        world.clock.tick(DAY_MS / 1000)
        counts = reconcile(world)
        assert (counts["enqueued"], counts["evicted"]) == (1, 0)
        assert world.west.content["team/app"].tags["old"] == first


def test_what_was_removed_after_the_source_is_no_eviction_when_it_comes_back() -> None:
    world = a_world(PROPAGATE)
    digest = relayed(world, "old")["old"]
    world.west.delete("team/app", digest, "old")
    assert reconcile(world)["enqueued"] == 1  # healed once
    world.source.delete("team/app", digest, "old")
    reconcile(world)
    assert a_day_later(world)["deleted"] == 1
    world.source.push("team/app", "image old", "old")  # and its event is lost
    counts = a_day_later(world)
    assert (counts["enqueued"], counts["evicted"]) == (1, 0)
    assert there(world) == {"old", "stays"}


def test_what_an_archive_policy_archives_is_reported_and_not_fought(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world({})
    digest = relayed(world, "old")["old"]
    world.west.archived = {digest}
    signature = world.source.push("team/app", "signature", subject=digest)
    dry = world.reconcile(dry_run=True)
    assert [(entry.action, entry.tag, entry.there) for entry in dry.plan or ()] == [("archived", "old", digest)]
    assert (dry.counts["images"], dry.counts["equal"]) == (2, 1)
    for counts in (reconcile(world), a_day_later(world)):
        assert {name: counts[name] for name in ("archived", "enqueued", "evicted")} == {
            "archived": 1,
            "enqueued": 0,  # nor its signature, which would wait for it
            "evicted": 0,
        }
    assert caplog.messages.count("archived") == 2
    # Another tag of it is a push of it, which brings it back, and with it all that refers to it.
    world.source.push("team/app", "image old", "again")
    assert [entry.action for entry in world.reconcile(dry_run=True).plan or ()] == ["copy", "archived"]
    assert (reconcile(world)["enqueued"], world.west.archived) == (1, set())
    assert signature in world.west.content["team/app"].manifests
    assert reconcile(world)["archived"] == 0


def test_nor_is_one_that_counts_many_days() -> None:
    world = a_world({})
    digest = relayed(world, "old")["old"]
    found = []
    for _ in range(3):
        world.clock.tick(90 * DAY_MS / 1000)
        world.west.delete("team/app", digest, "old")
        found.append(reconcile(world)["enqueued"])
    assert found == [1, 0, 0]


def test_a_rule_that_observes_copies_nothing_and_says_what_it_would(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world({"mode": "observe"})
    digest, event = world.push("team/app", "one", "1.0")
    assert world.consume(world.delivery(event)) == []
    assert not world.tasks.started
    assert "observed" in caplog.messages
    counts = reconcile(world)
    assert (counts["observed"], counts["enqueued"]) == (1, 0)
    plan = world.reconcile(dry_run=True).plan or []
    [entry] = plan
    assert (entry.action, entry.digest) == ("observe", digest)
    world.west.push("team/app", "one", "1.0")
    caplog.clear()
    world.consume(world.delivery(event))
    assert "skipped" in caplog.messages
    assert reconcile(world)["observed"] == 0


def test_a_plan_tells_copies_from_retags_with_their_puts_and_bytes() -> None:
    world = a_world({})
    child = world.source.push("team/app", "child")
    digest = world.source.push("team/app", "index", "1.0", "latest", children=(child,))
    plan = {entry.tag: entry for entry in world.reconcile(dry_run=True).plan or ()}
    assert (plan["1.0"].action, plan["1.0"].puts) == ("copy", 3)  # the child, the index, the tag
    assert (plan["latest"].action, plan["latest"].puts, plan["latest"].bytes) == ("retag", 1, None)
    assert plan["1.0"].bytes
    assert plan["1.0"].rule == 0
    assert {entry.digest for entry in plan.values()} == {digest}


@pytest.mark.parametrize("other", ["propagate", "ignore"])
def test_a_signature_is_removed_only_where_all_rules_for_its_repository_say_so(other: str) -> None:
    rules = [{"tags": ["1.*"], **PROPAGATE}, {"tags": ["stays"], "deletes": other}]
    world = World(RelayConfig.model_validate_json(json.dumps({**CONFIG, "rules": rules})))
    digests = relayed(world)
    signature = world.source.push("team/app", "signature", subject=digests["stays"])
    world.consume(world.delivery(world.event("team/app", signature, None)))
    place = world.west.content["team/app"]
    assert signature in place.manifests
    world.source.delete("team/app", signature)
    reconcile(world)
    a_day_later(world)
    assert (signature in place.manifests) is (other == "ignore")


@pytest.mark.parametrize("other", [{"repositories": ["base/*"]}, {"repositories": ["team/*"], "tags": ["dev-*"]}])
def test_a_rule_for_other_images_removes_nothing(other: dict[str, Any]) -> None:
    rules = [{"repositories": ["team/*"], "tags": ["stays", "moves"]}, {**PROPAGATE, **other}]
    world = World(RelayConfig.model_validate_json(json.dumps({**CONFIG, "rules": rules})))
    old = relayed(world, "moves")["moves"]
    _, event = world.push("team/app", "a newer one", "moves")
    assert world.consume(world.delivery(event)) == []
    # It lost its tag on both sides, and then its source.
    world.source.delete("team/app", old)
    reconcile(world)
    assert a_day_later(world)["deleted"] == 0
    assert old in world.west.content["team/app"].manifests


def test_an_image_that_was_there_before_does_not_go_with_the_last_of_several_tags() -> None:
    world = a_world(PROPAGATE)
    relayed(world)
    digest = world.source.push("team/app", "theirs", "a", "b")
    world.west.push("team/app", "theirs")
    for tag in "ab":
        assert world.consume(world.delivery(world.event("team/app", digest, tag))) == []
    assert there(world) == {"a", "b", "stays"}
    world.source.delete("team/app", digest)
    reconcile(world)
    a_day_later(world)
    assert digest in world.west.content["team/app"].manifests


def test_what_was_removed_before_a_failure_counts() -> None:
    world = a_world(PROPAGATE)
    digests = relayed(world, "a", "b")
    for tag in "ab":
        world.source.delete("team/app", digests[tag], tag)
    reconcile(world)
    delete = world.west.delete

    def once(repository: str, digest: str, tag: str | None = None) -> None:
        delete(repository, digest, tag)
        world.west.delete = lambda *_: (_ for _ in ()).throw(Transient("throttled"))  # type: ignore[method-assign]

    world.west.delete = once  # type: ignore[method-assign]
    counts = a_day_later(world)
    assert (counts["deleted"], counts["failures"]) == (1, 1)
    assert len(there(world)) == 2


def test_a_child_that_is_tagged_while_it_is_about_to_go_stays() -> None:
    world = a_world(PROPAGATE)
    relayed(world)
    child = world.source.push("team/app", "amd64")
    index = world.source.push("team/app", "index", "1.0", children=(child,))
    assert world.consume(world.delivery(world.event("team/app", index, "1.0"))) == []
    world.source.delete("team/app", index)
    world.source.delete("team/app", child)
    reconcile(world)
    a_day_later(world)
    has = world.source.has

    def tagged_meanwhile(repository: str, digest: str) -> bool:
        world.west.push("team/app", "amd64", "theirs")
        return has(repository, digest)

    world.source.has = tagged_meanwhile  # type: ignore[method-assign]
    counts = a_day_later(world)
    assert (counts["deleted"], counts["failures"]) == (0, 0)
    assert there(world) == {"stays", "theirs"}
