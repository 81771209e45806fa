"""Tags at a destination that somebody else moves, by what `on_conflict` says; and what is there already is adopted."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.images import Listed
from ecr_relay.ledger.lookups import Lookups
from tests.unit.conftest import CONFIG, World


def a_world(on_conflict: str) -> World:
    [destination] = CONFIG["destinations"]
    config = {**CONFIG, "destinations": [{**destination, "on_conflict": on_conflict}]}  # type: ignore[dict-item]
    return World(RelayConfig.model_validate_json(json.dumps(config)))


def relayed(world: World) -> tuple[str, str]:
    """1.0 was copied, and then moved to another image at the destination by somebody else: our digest, and theirs."""
    ours, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    theirs = world.west.push("team/app", "by somebody else", "1.0")
    return ours, theirs


def outcomes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "ecr_relay.consume.settle"]


def test_overwrite_puts_the_sources_digest_and_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world("overwrite")
    ours, theirs = relayed(world)
    two, event = world.push("team/app", "two", "1.0")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": theirs}  # the copier leaves it to the message
    [envelope] = world.queue.deferred
    world.consume(world.delivery(envelope.body()))
    assert world.west.content["team/app"].tags == {"1.0": two}
    assert outcomes(caplog)[-1] == "overwrote"
    assert ours != two


def test_keep_leaves_it_and_copies_nothing_for_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world("keep")
    _, theirs = relayed(world)
    two, event = world.push("team/app", "two", "1.0")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": theirs}
    assert two not in world.west.content["team/app"].manifests
    assert outcomes(caplog)[-1] == "kept"


def reconciled(world: World, caplog: pytest.LogCaptureFixture) -> tuple[list[str], list[str | None], int, int]:
    """What a dry run plans, the tags that the reconcile then enqueues, and how many conflicts it counts and logs."""
    caplog.clear()
    world.queue.sent.clear()
    plan: list[str] = [entry.action for entry in world.reconcile(dry_run=True).plan or ()]
    assert not world.queue.sent
    counts = world.reconcile().counts
    assert counts["enqueued"] == len(world.queue.sent)
    lines = sum(record.message == "conflict" for record in caplog.records)
    return plan, [envelope.tag for envelope in world.queue.sent], counts["conflicts"], lines


def test_the_reconcile_does_not_enqueue_what_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world("keep")
    ours, _ = relayed(world)
    for _ in range(2):
        assert reconciled(world, caplog) == (["keep"], [], 1, 1)
    # A tag of its own of the same digest is no conflict; nor is one that vanished there.
    world.source.push("team/app", "one", "stable")
    del world.west.content["team/app"].tags["1.0"]
    assert reconciled(world, caplog) == (["retag", "retag"], ["1.0", "stable"], 0, 0)
    assert ours in world.west.content["team/app"].manifests


def test_what_vanished_there_and_is_somebody_elses_stays_theirs() -> None:
    """It is no eviction, of which the ledger would forget what it had put."""
    world = a_world("keep")
    ours, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    world.west.delete("team/app", ours, "1.0")
    world.reconcile()
    world.consume(*(world.delivery(envelope.body()) for envelope in world.queue.sent))  # healed once
    world.west.delete("team/app", ours, "1.0")
    theirs = world.west.push("team/app", "by somebody else", "1.0")
    counts = world.reconcile().counts
    assert (counts["conflicts"], counts["evicted"]) == (1, 0)
    _, event = world.push("team/app", "two", "1.0")
    world.consume(world.delivery(event))
    assert world.west.content["team/app"].tags == {"1.0": theirs}


def test_the_reconcile_makes_one_dead_letter_of_what_is_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world("fail")
    ours, _ = relayed(world)
    assert reconciled(world, caplog) == (["conflict"], ["1.0"], 1, 1)
    [envelope] = world.queue.sent
    delivery = world.delivery(envelope.body())
    assert world.consume(delivery) == [delivery.message_id]
    assert reconciled(world, caplog) == (["conflict"], [], 1, 1)
    # And when theirs is gone, ours comes back.
    del world.west.content["team/app"].tags["1.0"]
    assert reconciled(world, caplog) == (["retag"], ["1.0"], 0, 0)
    world.consume(world.delivery(world.queue.sent[0].body()))
    assert world.west.content["team/app"].tags == {"1.0": ours}


def test_what_is_overwritten_costs_the_reconcile_no_read(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world("overwrite")
    relayed(world)
    monkeypatch.setattr(Lookups, "tag_records", None)
    assert reconciled(world, caplog) == (["retag"], ["1.0"], 0, 0)


def test_what_was_put_since_the_listing_is_left_to_its_message(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination was listed before a tag moved there, and the ledger is read after it: nobody else was at it."""
    world = a_world("keep")
    _, event = world.push("team/app", "one", "latest")
    world.consume(world.delivery(event))
    images = world.source.images

    def moved(repository: str, **options: Any) -> Iterator[Listed]:
        _, event = world.push("team/app", "two", "latest")
        world.consume(world.delivery(event))
        return images(repository, **options)

    monkeypatch.setattr(world.source, "images", moved)
    assert world.reconcile().counts["conflicts"] == 0


def test_fail_is_permanent_and_told_before_any_layer_moves() -> None:
    world = a_world("fail")
    _, theirs = relayed(world)
    two, event = world.push("team/app", "two", "1.0")
    delivery = world.delivery(event)
    assert world.consume(delivery) == [delivery.message_id]
    assert world.west.content["team/app"].tags == {"1.0": theirs}
    assert two not in world.skopeo.copied
    reason = world.ledger.notes.refusal(delivery.message_id)
    assert reason is not None
    assert reason.startswith("Conflict: somebody else has put")
    assert world.consume(delivery) == [delivery.message_id]  # and SQS, which hides it for 0 s, moves it


@pytest.mark.parametrize("on_conflict", ["overwrite", "keep", "fail"])
def test_our_own_moves_are_no_conflict(on_conflict: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world(on_conflict)
    for content in ("one", "two", "one", "three"):
        digest, event = world.push("team/app", content, "latest")
        assert world.consume(world.delivery(event)) == []
        assert world.west.content["team/app"].tags == {"latest": digest}
    assert not {"overwrote", "kept"} & set(outcomes(caplog))


@pytest.mark.parametrize("on_conflict", ["keep", "fail"])
def test_a_put_of_ours_whose_commit_was_lost_is_no_conflict(on_conflict: str) -> None:
    world = a_world(on_conflict)
    _, event = world.push("team/app", "one", "latest")
    world.consume(world.delivery(event))
    two, event = world.push("team/app", "two", "next")
    world.consume(world.delivery(event))
    # Two is there already, so that latest is only put; and the process dies right after the put.
    world.source.push("team/app", "two", "latest")
    commit = world.ledger.tags.commit
    world.ledger.tags.commit = lambda *_: (_ for _ in ()).throw(RuntimeError("killed"))  # type: ignore[method-assign]
    world.consume(world.delivery(world.event("team/app", two, "latest")))
    assert world.west.content["team/app"].tags["latest"] == two
    world.ledger.tags.commit = commit  # type: ignore[method-assign]
    world.clock.tick(300)  # until its lock is over
    three, event = world.push("team/app", "three", "latest")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags["latest"] == three


def test_what_is_there_already_is_adopted_without_a_task() -> None:
    world = a_world("fail")
    digest, event = world.push("team/app", "one", "1.0")
    assert world.west.push("team/app", "one", "1.0") == digest
    assert world.consume(world.delivery(event)) == []
    assert not world.tasks.started
    _, event = world.push("team/app", "one", "stable")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest, "stable": digest}
    assert not world.tasks.started
