"""Tags at a destination that somebody else moves, by what `on_conflict` says; and what is there already is adopted."""

import json
import logging

import pytest

from ecr_relay.config import RelayConfig
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
