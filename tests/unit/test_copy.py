"""The copier: what one run leaves in the ledger and at the destination, and how it is stopped."""

import threading

import pytest
from botocore.exceptions import EndpointConnectionError

from ecr_relay.copy import Copier, copy_all
from ecr_relay.copy.lease import Lease
from ecr_relay.errors import Permanent, RegistryDown, TokenExpired, Transient
from ecr_relay.ledger import Job, Run, Target, WantedTag, slots
from tests.unit.conftest import ACCOUNT, REGION, World

SOURCE = f"{ACCOUNT}.{REGION}"


def job(world: World, repository: str, content: str, *tags: str) -> Job:
    digest = world.source.push(repository, content, *tags)
    wanted = tuple(WantedTag(name=tag, seen_at=world.clock()) for tag in tags)
    return Job(repository=repository, digest=digest, tags=wanted)


def begin(world: World, *jobs: Job) -> tuple[Run, Copier]:
    """A run whose slot and claims are taken, as the consumer leaves it."""
    world.ledger.slots.take("run", "west", "push", 10)
    for one in jobs:
        world.ledger.digests.claim(world.ledger.digests.get(target(one), one.digest), "run", 0)
    run = world.ledger.runs.put("run", SOURCE, "west", "push", jobs)
    return run, Copier(world.relay, run, world.config.destinations[0], world.skopeo)  # type: ignore[arg-type]


def target(one: Job) -> Target:
    return Target(SOURCE, "west", one.repository)


def status(world: World, one: Job) -> tuple[str, int]:
    record = world.ledger.digests.get(target(one), one.digest)
    return record.status, record.attempts


def test_every_job_has_its_own_outcome(world: World) -> None:
    good, bad, worse = (job(world, f"team/{name}", name, "1") for name in ("good", "bad", "worse"))
    world.skopeo.outcome = {bad.digest: Transient("reset by peer"), worse.digest: Permanent("schema 1")}
    world.skopeo.bytes = 7
    run, copier = begin(world, good, bad, worse)
    copy_all(copier, run.jobs)
    assert copier.moved == 21
    assert [status(world, one) for one in (good, bad, worse)] == [("copied", 0), ("failed", 1), ("exhausted", 1)]
    assert world.west.content["team/good"].tags == {"1": good.digest}


def test_an_index_whose_child_is_gone_fails_for_good_before_a_layer_moves(world: World) -> None:
    child, lost = world.source.push("team/app", "amd64"), world.source.push("team/app", "arm64")
    digest = world.source.push("team/app", "index", "1", children=(child, lost))
    del world.source.content["team/app"].manifests[lost]
    one = Job(repository="team/app", digest=digest)
    run, copier = begin(world, one)
    copy_all(copier, run.jobs)
    assert world.skopeo.copied == []
    assert status(world, one) == ("exhausted", 1)
    assert f"it lists {lost}, which the source does not have" in str(
        world.ledger.digests.get(target(one), digest).error
    )


REFUSED = 'Manifest list must be converted to type "…", but we cannot modify it: "Instructed to preserve digests"'


def test_an_index_that_skopeo_does_not_write_as_it_is_is_put_when_its_children_are_there(world: World) -> None:
    child = world.source.push("team/app", "zstd")
    digest = world.source.push("team/app", "index", "1", children=(child,))
    one = Job(repository="team/app", digest=digest, tags=(WantedTag(name="1", seen_at=0),))
    world.skopeo.outcome = {digest: Permanent(REFUSED)}

    def bring_children(_image: str) -> None:
        world.west.put("team/app", world.source.content["team/app"].manifests[child])

    world.skopeo.during = bring_children
    run, copier = begin(world, one)
    copy_all(copier, run.jobs)
    assert status(world, one) == ("copied", 0)
    assert world.west.content["team/app"].manifests[digest] == world.source.content["team/app"].manifests[digest]
    assert world.west.content["team/app"].tags == {"1": digest}


@pytest.mark.parametrize(
    ("said", "index", "brought"), [(REFUSED, True, False), (REFUSED, False, True), ("denied", True, True)]
)
def test_what_skopeo_refuses_otherwise_is_refused(world: World, said: str, index: bool, brought: bool) -> None:
    child = world.source.push("team/app", "one")
    digest = world.source.push("team/app", "index", children=(child,)) if index else child
    one = Job(repository="team/app", digest=digest)
    world.skopeo.outcome = {digest: Permanent(said)}

    def bring_children(_image: str) -> None:
        if brought and index:
            world.west.put("team/app", world.source.content["team/app"].manifests[child])

    world.skopeo.during = bring_children
    run, copier = begin(world, one)
    copy_all(copier, run.jobs)
    assert status(world, one) == ("exhausted", 1)
    assert "put_manifest" not in world.west.calls


def test_a_manifest_is_read_once(world: World) -> None:
    """A registry may count each time as a pull."""
    digest = world.source.push("team/app", "index", "1", children=(world.source.push("team/app", "amd64"),))
    one = Job(repository="team/app", digest=digest)
    _, copier = begin(world, one)
    world.source.calls.clear()
    assert copier._bring(world.relay.place(world.config.destinations[0], "team/app"), one)
    assert [call for call in world.source.calls if call in ("manifest", "children")] == ["manifest"]


def test_what_is_there_already_is_not_copied_again(world: World) -> None:
    one = job(world, "team/app", "one", "1")
    world.west.push("team/app", "one")
    run, copier = begin(world, one)
    copy_all(copier, run.jobs)
    assert world.skopeo.copied == []
    assert status(world, one) == ("copied", 0)
    assert world.west.content["team/app"].tags == {"1": one.digest}


def test_a_success_that_the_destination_does_not_confirm_is_none(world: World) -> None:
    one = job(world, "team/app", "one", "1")
    run, copier = begin(world, one)
    world.skopeo.swallow = True
    copy_all(copier, run.jobs)
    record = world.ledger.digests.get(target(one), one.digest)
    assert record.status == "failed"
    assert "is not at the destination" in (record.error or "")


def test_what_is_no_registrys_error_is_an_attempt_too(world: World) -> None:
    one, other = job(world, "team/app", "one", "1"), job(world, "other/app", "two", "2")
    run, copier = begin(world, one, other)

    def full(image: str) -> None:
        if one.digest in image:
            raise OSError(28, "No space left on device")

    world.skopeo.during = full
    copy_all(copier, run.jobs)
    assert [status(world, each) for each in (one, other)] == [("failed", 1), ("copied", 0)]


def test_stopped_in_the_middle_no_attempt_counts(world: World) -> None:
    one, other = job(world, "team/app", "one", "1"), job(world, "team/app", "two", "2")
    run, copier = begin(world, one, other)
    world.skopeo.during = lambda _: copier.stop()
    copy_all(copier, run.jobs)
    assert [status(world, each) for each in (one, other)] == [("waiting", 0), ("waiting", 0)]


def test_a_registry_that_is_down_opens_the_breaker_and_counts_no_attempt(world: World) -> None:
    one = job(world, "team/app", "one", "1")
    run, copier = begin(world, one)
    world.skopeo.outcome = {one.digest: RegistryDown("token has expired")}
    copy_all(copier, run.jobs)
    assert status(world, one) == ("waiting", 0)
    breaker = world.ledger.notes.breaker("west")
    assert breaker is not None
    assert breaker.reason == "token has expired"


def test_a_copy_that_outlasts_its_token_logs_in_anew_and_goes_on(world: World) -> None:
    one = job(world, "team/app", "one", "1")
    run, copier = begin(world, one)
    world.skopeo.fail = [TokenExpired("denied: Your authorization token has expired.")]
    copy_all(copier, run.jobs)
    assert status(world, one) == ("copied", 0)
    assert world.skopeo.logins == len(world.skopeo.copied) == 2
    assert world.ledger.notes.breaker("west") is None
    assert world.west.content["team/app"].tags == {"1": one.digest}


def test_a_login_that_is_over_at_once_is_a_registry_that_is_down(world: World) -> None:
    one = job(world, "team/app", "one", "1")
    run, copier = begin(world, one)
    world.skopeo.fail = [TokenExpired("denied: Your authorization token has expired.")] * 3
    copy_all(copier, run.jobs)
    assert len(world.skopeo.copied) == 2
    assert status(world, one) == ("waiting", 0)
    assert world.ledger.notes.breaker("west") is not None


def test_an_index_takes_its_turn_for_all_its_manifests(world: World) -> None:
    children = tuple(world.source.push("team/app", f"child {number}") for number in range(4))
    digest = world.source.push("team/app", "index", children=children)
    destination = world.config.destinations[0].model_copy(update={"put_image_per_second": 1.0})
    run, _ = begin(world, Job(repository="team/app", digest=digest))
    copy_all(Copier(world.relay, run, destination, world.skopeo), run.jobs)  # type: ignore[arg-type]
    # Five puts, of which a second's worth is free at once: whoever comes next waits for the others.
    turn = world.ledger.quota.reserve(destination.id, 1, 1.0, 60)
    assert turn is not None
    assert 3 < turn <= 4


@pytest.mark.parametrize(("reserved", "seconds"), [(4, 3), (30, 29)])
def test_a_copy_waits_for_its_turn(world: World, reserved: int, seconds: int) -> None:
    """Also when its turn is so far ahead that it cannot be reserved yet."""
    one = job(world, "team/app", "one", "1")
    destination = world.config.destinations[0].model_copy(update={"put_image_per_second": 1.0})
    run, _ = begin(world, one)
    began: list[int] = []
    world.skopeo.during = lambda _: began.append(world.clock())
    reserved_at = world.clock()
    world.ledger.quota.reserve(destination.id, reserved, 1.0, 60)
    copy_all(Copier(world.relay, run, destination, world.skopeo), run.jobs)  # type: ignore[arg-type]
    assert began[0] - reserved_at == pytest.approx(seconds * 1000, abs=100)


def test_one_immutable_tag_of_two_keeps_the_other_from_nothing(world: World) -> None:
    immutable = world.config.destinations[0].new_repository.model_copy(update={"immutable_tags": True})
    world.west.ensure_repository("team/app", immutable)
    other = world.west.push("team/app", "other", "taken")
    one = job(world, "team/app", "one", "taken", "free")
    run, copier = begin(world, one)
    copy_all(copier, run.jobs)
    assert world.west.content["team/app"].tags == {"taken": other, "free": one.digest}
    assert world.ledger.tags.get(target(one), "taken").failed_at is not None
    assert world.ledger.tags.get(target(one), "free").says(one.digest, None)


def test_siblings_wait_for_the_first_of_their_repository_and_for_no_other(world: World) -> None:
    first, second = job(world, "a/app", "1", "1"), job(world, "a/app", "2", "2")
    other = job(world, "b/app", "3", "3")
    run, copier = begin(world, first, second, other)
    arrived = threading.Event()

    def during(image: str) -> None:
        if first.digest in image:
            assert arrived.wait(10), "another repository's image waits for this one"
            assert second.digest not in world.skopeo.copied, "a sibling did not wait"
        elif other.digest in image:
            arrived.set()

    world.skopeo.during = during
    copy_all(copier, run.jobs)
    assert [status(world, each)[0] for each in (first, second, other)] == ["copied"] * 3


@pytest.mark.parametrize("lost", ["taken by another", "out of reach"])
def test_a_lease_that_cannot_be_kept_ends_the_copier_once(
    world: World, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr("ecr_relay.copy.lease.RENEW_S", 0.01)
    world.ledger.slots.take("run", "west", "push", 10)
    slot = world.ledger.slots.begin("run", "me")
    assert slot is not None
    reasons: list[str] = []
    ended = threading.Event()

    def on_lost(reason: str) -> None:
        reasons.append(reason)
        ended.set()

    tries: list[object] = []

    def unreachable(*_: object) -> None:
        tries.append(_)
        raise EndpointConnectionError(endpoint_url="https://dynamodb")

    if lost == "taken by another":
        world.ledger.slots.free("run", slot.number)
    else:
        monkeypatch.setattr(world.ledger.slots, "renew", unreachable)
        # Another try would come too late.
        world.clock.tick((slots.LEASE_MS - slots.LAST_WORDS_MS) / 1000 - 0.008)
    lease = Lease(world.ledger, slot, "me", on_lost)
    assert ended.wait(10)
    lease.end()
    assert len(reasons) == 1
    assert len(tries) <= 1


def test_a_lease_is_renewed_until_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecr_relay.copy.lease.RENEW_S", 0.01)
    world.ledger.slots.take("run", "west", "push", 10)
    slot = world.ledger.slots.begin("run", "me")
    assert slot is not None
    renewed = threading.Event()
    renew = world.ledger.slots.renew

    def seen(*arguments: object) -> object:
        renewed.set()
        return renew(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.ledger.slots, "renew", seen)
    lease = Lease(world.ledger, slot, "me", lambda reason: pytest.fail(reason), lambda: 12_345)
    assert renewed.wait(10)
    lease.end()
    (held,) = world.ledger.slots.held()
    assert (held.phase, held.moved) == ("ended", 12_345)
