"""The schedules at the end of the protocol, each of which broke an earlier version of it."""

from collections.abc import Callable

import pytest

from ecr_relay.errors import RegistryDown, Transient
from ecr_relay.ledger import DigestRecord, Target
from ecr_relay.ledger.digests import ATTEMPTS, INTERRUPTIONS
from ecr_relay.ledger.slots import RECONCILE_SLOTS, SLOTS
from tests.model.world import Crash, Interruption, World

SOURCE = "000000000000.us-east-1"
HOURS = 3600


@pytest.fixture
def world() -> World:
    return World()


def record(world: World, repository: str, digest: str) -> DigestRecord:
    return world.ledger.digests.get(Target(SOURCE, "west", repository), digest)


def tags(world: World, repository: str = "a/one") -> dict[str, str]:
    return world.west.content[repository].tags if repository in world.west.content else {}


def go_on(world: World, seconds: float, each: Callable[[], None] = lambda: None) -> None:
    """Time passes, and whatever is delivered meanwhile is consumed."""
    ends = world.now + seconds * 1000
    while world.now < ends:
        while world.deliver(10, seconds=0):
            each()
        due = [message.visible_at for message in world.queue.messages.values()]
        world.tick(max(1, min(600, (min(due, default=ends) - world.now) / 1000 + 1)))


def test_1_a_copy_of_forty_hours(world: World) -> None:
    digest = world.push("a/one", "latest", "x")
    world.deliver(10, seconds=240)
    run = world.begin_to_last()
    go_on(world, 40 * HOURS)
    assert len(world.tasks.started) == 1
    world.finish(run)
    go_on(world, 120)
    assert tags(world) == {"latest": digest}
    assert world.queue.dead == []
    assert not world.queue.messages


def test_1_ten_of_them_while_pushes_arrive(world: World) -> None:
    for number in range(SLOTS):
        world.push(f"long/{number}x", "latest", "x")
        world.deliver(1, seconds=0)
        world.begin_to_last()
    digest = world.push("a/one", "latest", "y")
    go_on(world, 3 * HOURS)
    assert len(world.tasks.started) == SLOTS
    assert world.queue.dead == []
    world.finish(next(iter(world.lasting)))
    go_on(world, 120)
    world.run_task(0)
    assert tags(world) == {"latest": digest}


def test_1_a_copy_that_dies_in_its_second_hour(world: World) -> None:
    digest = world.push("a/one", "latest", "x")
    world.deliver(10, seconds=0)
    run = world.begin_to_last()
    go_on(world, 80 * 60)
    world.kill(run)
    go_on(world, 300)
    assert (record(world, "a/one", digest).attempts, record(world, "a/one", digest).interruptions) == (1, 1)
    world.settle()
    assert tags(world) == {"latest": digest}


def test_2_a_backfill_fills_its_slots_and_a_push_and_a_skip_arrive(world: World) -> None:
    skipped = world.push("b/two", "latest", "y")
    world.settle()
    for number in range(2 * SLOTS):
        world.push(f"old/{number}x", "latest", "x", lost=True)
    world.reconcile()
    for _ in range(2 * SLOTS):  # one by one, as while others are under way: ten in a batch would be one task
        world.deliver(1, seconds=0)
        if world.waiting_tasks():
            world.begin_to_last()
    assert len(world.tasks.alive) == RECONCILE_SLOTS
    digest = world.push("a/one", "latest", "x")
    world.queue.put(world.event("b/two", skipped, "latest"))
    before = len(world.queue.messages)
    world.deliver(10, seconds=0)
    assert len(world.tasks.alive) == RECONCILE_SLOTS + 1
    assert len(world.queue.messages) == before - 1  # the skip is done, the push deferred while it is copied
    for run in list(world.lasting):
        world.finish(run)
    world.settle()
    assert tags(world) == {"latest": digest}


def test_3_an_image_deleted_at_the_destination_is_copied_again_by_the_reconcile(world: World) -> None:
    digest = world.push("a/one", "latest", "x")
    world.settle()
    world.west.delete("a/one", digest)
    world.reconcile()
    world.settle()
    assert tags(world) == {"latest": digest}


@pytest.mark.parametrize(("consumer_ms", "copier_ms"), [(0, 3000), (-3000, 0), (-2000, 2000)])
def test_3_a_copiers_clock_that_is_ahead_keeps_nothing_from_being_healed(consumer_ms: int, copier_ms: int) -> None:
    """Copied, deleted, listed, all within the difference of the clocks: to the ledger it was verified after that."""
    world = World(consumer_ms, copier_ms)
    digest = world.push("a/one", "latest", "x")
    world.deliver(10, seconds=0)
    world.run_task(0)
    world.west.delete("a/one", digest)
    world.reconcile()
    world.settle()
    assert tags(world) == {"latest": digest}


@pytest.mark.parametrize("at", range(1, 12))
def test_4_away_and_back_while_one_stalls(world: World, at: int) -> None:
    """E2(v2) stalls at any of its calls, for longer than its lock lasts; the source goes back to v1; E3(v1) arrives."""
    v1 = world.push("a/one", "latest", "x")
    world.settle()
    world.push("a/one", "other", "y")  # so that v2 is copied, and the stalled one is a retag
    world.settle()
    world.push("a/one", "latest", "y")

    stalls = Interruption(at, "meanwhile")

    def back() -> None:
        stalls.what = "over"
        world.push("a/one", "latest", "x")
        world.tick(200)
        world.deliver(10, seconds=0)

    stalls.meanwhile = back
    world.deliver(1, stalls, seconds=0)
    assert stalls.what == "over", f"a retag makes fewer than {at} calls"
    world.settle()
    assert tags(world)["latest"] == v1
    assert world.queue.dead == []


def test_5_two_tags_of_a_digest_the_second_arriving_as_the_copy_commits(world: World) -> None:
    for at in range(1, 16):
        world = World()
        digest = world.push("a/one", "one", "x")
        world.deliver(10, seconds=0)

        def second(world: World = world) -> None:
            world.push("a/one", "two", "x")
            world.deliver(10, seconds=0)

        world.run_task(0, Interruption(at, "meanwhile", second))
        world.settle()
        assert tags(world) in ({"one": digest, "two": digest}, {"one": digest}), at
        assert not world.differences()
        assert len(world.tasks.started) == 1, at


@pytest.mark.parametrize("at", range(1, 30))
def test_6_an_answer_is_lost(world: World, at: int) -> None:
    """Of any call, RunTask among them: one task all the same."""
    digest = world.push("a/one", "latest", "x")
    world.deliver(10, Interruption(at, "lose"), seconds=0)
    world.settle()
    assert len(world.tasks.started) == 1
    assert tags(world) == {"latest": digest}
    assert world.queue.dead == []


def test_6_the_answer_of_run_task_is_lost(world: World) -> None:
    lost = [at for at in range(1, 30) if answer_lost(at)]
    assert len(lost) == 1, "one of the calls is RunTask"


def answer_lost(at: int) -> bool:
    """Whether the consumer did not learn the task's ARN."""
    world = World()
    world.push("a/one", "latest", "x")
    world.deliver(10, Interruption(at, "lose"), seconds=0)
    (arn,) = world.tasks.started
    run = world.ledger.runs.get(arn.rsplit("/", 1)[1])
    return run is not None and run.task is None


def test_6_fargate_takes_longer_than_the_lease(world: World) -> None:
    digest = world.push("a/one", "latest", "x")
    world.deliver(10, seconds=0)
    go_on(world, 300)
    assert len(world.tasks.started) == 1
    world.run_task(0)
    go_on(world, 120)
    assert tags(world) == {"latest": digest}


def test_6_a_task_that_is_pending_for_ever_is_stopped_and_the_image_copied_by_another(world: World) -> None:
    digest = world.push("a/one", "latest", "x")
    world.deliver(10, seconds=0)
    go_on(world, 900)
    assert len(world.tasks.stopped) == 1
    world.settle()
    assert tags(world) == {"latest": digest}
    assert len(world.tasks.started) == 2


def test_6_the_ledger_is_out_of_a_tasks_reach_for_longer_than_its_lease(world: World) -> None:
    """Whatever it still does, no other begins before ECS has shown that it is no more."""
    digest = world.push("a/one", "latest", "x")
    world.deliver(10, seconds=0)
    run = world.begin_to_last()
    world.lasting[run].frozen = True  # it renews nothing, and runs on
    world.tick(300)
    world.deliver(10, seconds=0)
    assert len(world.tasks.started) == 1
    assert len(world.tasks.stopped) == 1
    del world.lasting[run]
    world.settle()
    assert tags(world) == {"latest": digest}
    assert len(world.tasks.started) == 2
    assert world.queue.dead == []


def test_7_a_tag_that_moves_faster_than_a_copy_takes(world: World) -> None:
    """Pushed every 20 minutes, copies of 40: the destination moves, and is never further behind than two copies."""
    pushed: list[str] = []
    seen: list[str] = []
    began: dict[str, int] = {}
    for minute in range(0, 400, 10):
        if minute % 20 == 0:
            pushed.append(world.push("a/one", "latest", f"content {minute}"))
        go_on(world, 600)
        for run in list(world.lasting):
            if world.now - began[run] >= 40 * 60_000:
                world.finish(run)
        while world.waiting_tasks():
            began[world.begin_to_last()] = world.now
        if there := tags(world).get("latest"):
            if there not in seen:
                seen.append(there)
            assert len(pushed) - 1 - pushed.index(there) <= 5, "further behind than two copies"
    assert len(seen) >= 5
    assert seen == sorted(seen, key=pushed.index)
    assert world.queue.dead == []


def test_7_an_older_copy_that_ends_later_moves_no_tag_back(world: World) -> None:
    runs = []
    for content in ("x", "y", "z"):
        pushed = world.push("a/one", "latest", content)
        world.deliver(10, seconds=0)
        runs.append((world.begin_to_last(), pushed))
    (older, _), (newer, y), (newest, z) = runs
    world.finish(newer)
    assert tags(world) == {"latest": y}
    world.finish(older)
    assert tags(world) == {"latest": y}
    world.finish(newest)
    world.settle()
    assert tags(world) == {"latest": z}


def test_8_three_failures_a_dead_letter_the_image_mended_a_redrive(world: World) -> None:
    digest = world.push("a/one", "latest", "x")
    world.skopeo.fail = [Transient("blob unknown")] * 3
    world.settle()
    (dead,) = world.queue.dead
    assert record(world, "a/one", digest).status == "exhausted"
    assert digest in dead.body
    world.queue.put(dead.body)
    world.settle()
    assert tags(world) == {"latest": digest}
    assert len(world.queue.dead) == 1


def killed(world: World, times: int) -> int:
    """Whoever copies is killed, `times` times; how often it was."""
    kills = 0

    def kill() -> None:
        nonlocal kills
        while world.waiting_tasks() and kills < times:
            world.kill(world.begin_to_last())
            kills += 1

    for _ in range(20):
        go_on(world, 600, kill)
    return kills


@pytest.mark.parametrize("times", [1, ATTEMPTS, INTERRUPTIONS - 1])
def test_an_image_whose_copiers_are_killed_arrives_when_they_no_longer_are(world: World, times: int) -> None:
    digest = world.push("a/one", "latest", "x")
    assert killed(world, times) == times
    world.settle()
    assert tags(world) == {"latest": digest}
    assert world.queue.dead == []


def test_an_image_that_kills_its_copiers_is_a_dead_letter_in_the_end(world: World) -> None:
    digest = world.push("a/one", "latest", "x")
    assert killed(world, 100) == INTERRUPTIONS + ATTEMPTS - 1
    (dead,) = world.queue.dead
    assert record(world, "a/one", digest).status == "exhausted"
    assert not world.queue.messages
    world.queue.put(dead.body)
    world.settle()
    assert tags(world) == {"latest": digest}


def test_9_the_destination_is_out_of_order_for_an_hour(world: World) -> None:
    digests = [world.push(f"a/{number}x", "latest", "x") for number in range(20)]
    world.skopeo.fail = [RegistryDown("authorization token has expired")] * 10_000

    def run_all() -> None:
        while world.waiting_tasks():
            world.run_task(0)

    go_on(world, HOURS, run_all)
    assert world.queue.dead == []
    # The breaker lets a batch through a minute, not every message.
    assert len(world.tasks.started) <= 140
    world.skopeo.fail = []
    world.settle()
    assert [tags(world, f"a/{number}x") for number in range(20)] == [{"latest": digest} for digest in digests]
    assert world.queue.dead == []


# Found by random programs, and kept.


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("at", range(1, 30))
def test_a_claim_is_not_taken_from_a_live_run_by_one_that_looked_while_the_old_run_died(
    world: World, at: int, moved: bool
) -> None:
    x = world.push("a/one", "latest", "x", lost=True)
    world.push("a/one", "latest", "y")
    world.deliver(1, seconds=0)
    world.tick(125)
    world.lose_task(0, "never-started")
    # A message about y itself, or one about x, whose tag has moved on to y.
    if moved:
        world.queue.put(world.event("a/one", x, "latest"))
    else:
        world.push("a/one", "v1", "y")

    def another() -> None:
        world.push("a/one", "v2", "y")
        world.deliver(10, seconds=0)

    world.deliver(10, Interruption(at, "meanwhile", another), seconds=0)  # and `check` finds two tasks for one image
    world.settle()
    assert not world.differences()


@pytest.mark.parametrize("at", range(1, 20))
def test_a_run_that_began_after_one_had_looked_is_alive(world: World, at: int) -> None:
    """Whose first message waits for a run has read the slots; another begins, and claims its second one's image."""
    world.push("a/one", "latest", "x")
    world.deliver(10, seconds=0)
    lasting = world.begin_to_last()
    world.push("a/one", "v1", "x")
    digest = world.push("b/two", "latest", "y")

    def another() -> None:
        world.push("b/two", "v1", "y")
        world.deliver(10, seconds=0)

    world.deliver(2, Interruption(at, "meanwhile", another), seconds=0)  # and `check` finds two tasks for one image
    assert record(world, "b/two", digest).interruptions == 0
    world.finish(lasting)
    world.settle()
    assert not world.differences()


@pytest.mark.parametrize("at", range(1, 25))
def test_a_claim_is_not_forgotten_by_one_that_found_the_image_gone_before(world: World, at: int) -> None:
    digest = world.push("a/one", "latest", "y")
    world.settle()
    world.west.delete("a/one", digest)
    for tag in ("v1", "v2"):
        world.push("a/one", tag, "y")

    def another() -> None:
        world.deliver(1, seconds=0)

    world.deliver(1, Interruption(at, "meanwhile", another), seconds=0)
    world.settle()
    assert tags(world).keys() >= {"v1", "v2"}


@pytest.mark.parametrize("at", range(1, 16))
def test_a_put_that_lands_after_its_lock_was_broken_is_doubted(world: World, at: int) -> None:
    """An old event of x is at work while the source has y, and stalls; the source goes back to x, and that commits."""
    stalls_while_the_source_goes_back(world, at)


def test_it_is_doubted_also_if_it_dies_as_soon_as_it_has_said_so() -> None:
    died = 0
    for at in range(1, 16):
        world = World()
        doubt = world.ledger.tags.doubt

        def doubt_and_die(target: Target, tag: str, doubt: Callable[[Target, str], None] = doubt) -> None:
            nonlocal died
            doubt(target, tag)
            died += 1
            raise Crash

        world.ledger.tags.doubt = doubt_and_die  # type: ignore[method-assign]
        stalls_while_the_source_goes_back(world, at)
    assert died, "no put lands after its lock was broken"


def stalls_while_the_source_goes_back(world: World, at: int) -> None:
    x = world.push("a/one", "latest", "x")
    world.push("a/one", "other", "y")
    world.settle()
    old = world.event("a/one", x, "latest")
    world.push("a/one", "latest", "y")
    world.settle()
    world.push("a/one", "latest", "y", lost=True)
    world.west.content["a/one"].tags["latest"] = x  # somebody meddled: y has to be put again
    world.queue.put(old)

    def back() -> None:
        world.push("a/one", "latest", "x")
        world.tick(200)
        world.deliver(10, seconds=0)

    world.deliver(1, Interruption(at, "meanwhile", back), seconds=0)
    world.settle()
    if world.source.content["a/one"].tags["latest"] == x:
        assert tags(world)["latest"] == x
