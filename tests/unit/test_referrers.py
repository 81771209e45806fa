"""Signatures, SBOMs and attestations: they go with their image, whenever they come, and never fail it."""

import json
import logging
from typing import Any

import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.consume.decide import SUBJECT_MS, UNTAGGED_MS
from ecr_relay.errors import Permanent
from ecr_relay.ledger import Target
from tests.unit.conftest import ACCOUNT, CONFIG, REGION, World

TARGET = Target(f"{ACCOUNT}.{REGION}", "west", "team/app")
HERE = 1_800_000_000_000
"""When the world's clock begins; its events are as old."""


def a_world(*rules: dict[str, Any], **rule: Any) -> World:
    """By these rules, and one more of these keys."""
    each = [*rules, *([rule] if rule or not rules else [])]
    return World(RelayConfig.model_validate_json(json.dumps({**CONFIG, "rules": each})))


def signature(world: World, subject: str, content: str = "signature") -> tuple[str, str]:
    """By a referrer: its digest, and its event."""
    digest = world.source.push("team/app", content, subject=subject)
    return digest, world.event("team/app", digest, None)


def cosign(world: World, subject: str, content: str = "cosign") -> tuple[str, str]:
    """By a tag: the tag, and its event."""
    tag = subject.replace(":", "-") + ".sig"
    digest = world.source.push("team/app", content, tag)
    return tag, world.event("team/app", digest, tag)


def test_what_refers_to_an_image_comes_along_with_it() -> None:
    world = a_world()
    child = world.source.push("team/app", "child")
    digest = world.source.push("team/app", "index", "1.0", children=(child,))
    signed, _ = signature(world, digest)
    of_child, _ = signature(world, child, "sbom of the child")
    of_signature, _ = signature(world, signed, "signature of the signature")
    tag, _ = cosign(world, child)
    assert world.consume(world.delivery(world.event("team/app", digest, "1.0"))) == []
    place = world.west.content["team/app"]
    assert {digest, child, signed, of_child, of_signature} < set(place.manifests)
    assert place.tags[tag] == world.source.content["team/app"].tags[tag]
    assert world.ledger.digests.get(TARGET, of_signature).subject == signed
    assert len(world.tasks.started) == 1


def test_one_that_fails_fails_no_image_and_is_told_apart() -> None:
    world = a_world()
    digest, event = world.push("team/app", "one", "1.0")
    signed, _ = signature(world, digest)
    world.skopeo.outcome[signed] = Permanent("manifest invalid")
    assert world.consume(world.delivery(event)) == []
    assert world.west.content["team/app"].tags == {"1.0": digest}
    record = world.ledger.digests.get(TARGET, signed)
    assert (record.status, record.subject) == ("exhausted", digest)


def test_without_referrers_none_is_looked_for() -> None:
    world = a_world(referrers=False)
    digest, event = world.push("team/app", "one", "1.0")
    signed, late = signature(world, digest)
    tag, by_tag = cosign(world, digest)
    assert world.consume(world.delivery(event), world.delivery(late), world.delivery(by_tag)) == []
    assert "referrers" not in world.source.calls
    assert signed not in world.west.content["team/app"].manifests
    assert tag not in world.west.content["team/app"].tags


@pytest.mark.parametrize("kind", [signature, cosign])
def test_one_that_comes_later_is_copied_by_its_own_event(kind: Any) -> None:
    world = a_world(tags=["1.*"])
    digest, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    _, late = kind(world, digest)
    assert world.consume(world.delivery(late)) == []
    signed = json.loads(late)["detail"]["image-digest"]
    assert world.ledger.digests.get(TARGET, signed).subject == digest  # as such it is told apart in the ledger
    source, there = world.source.content["team/app"], world.west.content["team/app"]
    assert (source.manifests, source.tags) == (there.manifests, there.tags)


@pytest.mark.parametrize("kind", [signature, cosign])
def test_one_whose_image_is_not_wanted_waits_for_a_while_and_is_dropped(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ecr_relay.consume")
    world = a_world(tags=["1.*"])
    digest, _ = world.push("team/app", "one", "dev")
    _, event = kind(world, digest)
    assert world.consume(world.delivery(event)) == []
    [envelope] = world.queue.deferred
    assert "not there yet" in caplog.records[-1].reason  # type: ignore[attr-defined]
    world.clock.tick(SUBJECT_MS / 1000)
    assert world.consume(world.delivery(envelope.body())) == []
    assert caplog.messages[-1] == "dropped"
    assert not world.tasks.started


def test_an_images_own_children_cost_no_look_at_the_source() -> None:
    world = a_world()
    child = world.source.push("team/app", "child")
    event = json.loads(world.event("team/app", child, None))
    event["detail"]["artifact-media-type"] = "application/vnd.oci.image.config.v1+json"
    assert world.consume(world.delivery(json.dumps(event))) == []
    assert world.source.calls == world.west.calls == []


def test_the_reconcile_finds_those_that_no_event_told_of() -> None:
    world = a_world(tags=["1.*"])
    digest, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))
    other, _ = world.push("team/app", "other", "dev")
    signed, _ = signature(world, digest)
    tag, _ = cosign(world, digest)
    unwanted, _ = signature(world, other, "of what no rule wants")
    world.reconcile()
    assert {envelope.digest for envelope in world.queue.sent} == {signed, world.source.content["team/app"].tags[tag]}
    world.consume(*(world.delivery(envelope.body()) for envelope in world.queue.sent))
    place = world.west.content["team/app"]
    assert signed in place.manifests
    assert tag in place.tags
    assert unwanted not in place.manifests
    world.queue.sent.clear()
    world.reconcile()
    assert world.queue.sent == []


def test_an_untagged_image_waits_for_its_index_which_takes_it_along() -> None:
    world = a_world(untagged=True)
    child = world.source.push("team/app", "child")
    digest = world.source.push("team/app", "index", "1.0", children=(child,))
    assert world.consume(world.delivery(world.event("team/app", child, None))) == []
    [envelope] = world.queue.deferred
    world.consume(world.delivery(world.event("team/app", digest, "1.0")))
    world.clock.tick(UNTAGGED_MS / 1000)
    assert world.consume(world.delivery(envelope.body())) == []
    assert world.skopeo.copied == [digest]
    assert len(world.tasks.started) == 1


def test_an_untagged_image_of_no_index_is_copied_in_the_end() -> None:
    world = a_world(untagged=True)
    digest = world.source.push("team/app", "alone")
    world.consume(world.delivery(world.event("team/app", digest, None)))
    world.clock.tick(UNTAGGED_MS / 1000)
    world.consume(world.delivery(world.queue.deferred[0].body()))
    assert digest in world.west.content["team/app"].manifests


@pytest.mark.parametrize("kind", [signature, cosign])
def test_a_signature_is_no_untagged_image(kind: Any) -> None:
    """It goes where its subject is, whatever a rule says about images without a tag."""
    world = a_world(tags=["1.*"], untagged=True)
    digest, _ = world.push("team/app", "one", "dev")
    _, event = kind(world, digest)
    world.consume(world.delivery(event))
    world.clock.tick(SUBJECT_MS / 1000)
    world.consume(*(world.delivery(envelope.body()) for envelope in world.queue.deferred))
    assert not world.tasks.started
    world.reconcile()
    assert world.queue.sent == []


RELEASES = {"tags": ["1.*"]}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("how", [{"referrers": False}, {"mode": "observe"}])
def test_where_rules_disagree_a_referrer_goes_as_its_own_subject(how: dict[str, Any], first: bool) -> None:
    """By its event as by the reconcile, and what refers to it in turn, too."""
    rules = [RELEASES, {"tags": ["dev"], **how}]
    world = a_world(*(rules if first else reversed(rules)))
    for tag, wanted in (("1.0", True), ("dev", False)):
        digest, event = world.push("team/app", tag, tag)
        world.west.push("team/app", tag)  # by another tool: so it is there though we only observe
        world.consume(world.delivery(event))
        signed, late = signature(world, digest, f"signature of {tag}")
        by_tag, later = cosign(world, digest, f"cosign of {tag}")
        of_signature, last = signature(world, signed, f"signature of the signature of {tag}")
        assert world.consume(*(world.delivery(each) for each in (late, later, last))) == []
        there = world.west.content["team/app"]
        assert [signed in there.manifests, of_signature in there.manifests, by_tag in there.tags] == [wanted] * 3
    world.reconcile()
    assert world.queue.sent == []


def test_an_image_whose_rule_leaves_them_behind_brings_none_along() -> None:
    world = a_world(RELEASES, tags=["dev"], referrers=False)
    for tag, wanted in (("dev", False), ("1.0", True)):
        digest = world.source.push("team/app", tag)
        signed, _ = signature(world, digest, f"signature of {tag}")
        world.source.push("team/app", tag, tag)
        world.consume(world.delivery(world.event("team/app", digest, tag)))
        assert (signed in world.west.content["team/app"].manifests) is wanted
    # Of several tags the one that does the most decides.
    digest = world.source.push("team/app", "both", "dev", "1.1")
    signed, _ = signature(world, digest, "signature of both")
    world.consume(world.delivery(world.event("team/app", digest, "dev")))
    assert signed in world.west.content["team/app"].manifests
