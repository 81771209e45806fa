"""The ledger's records: each transition is one conditional write. Over moto's DynamoDB, and over the model's table."""

import json
from typing import Any

import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.errors import Conflict, Permanent, Transient
from ecr_relay.ledger import Job, Target, WantedTag
from ecr_relay.ledger.slots import LEASE_MS, RECONCILE_SLOTS, SLOTS
from ecr_relay.ledger.tags import LOCK_MS
from tests.fakes.table import FakeTable
from tests.unit.conftest import CONFIG, World, make_table

TARGET = Target("s", "west", "team/app")
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(params=["moto", "fake"])
def world(request: pytest.FixtureRequest) -> World:
    table: Any = make_table() if request.param == "moto" else FakeTable()
    return World(RelayConfig.model_validate_json(json.dumps(CONFIG)), table=table)


def test_of_two_that_claim_one_wins(world: World) -> None:
    digests = world.ledger.digests
    seen = digests.get(TARGET, DIGEST)
    assert digests.claim(seen, "one", 0) is not None
    assert digests.claim(seen, "two", 0) is None
    assert digests.get(TARGET, DIGEST).run == "one"


def test_only_the_claimer_ends_a_claim(world: World) -> None:
    digests = world.ledger.digests
    digests.claim(digests.get(TARGET, DIGEST), "one", 0)
    assert digests.copied(TARGET, DIGEST, "two") is None
    assert digests.fail(TARGET, DIGEST, "two", Transient("late")) is None
    assert digests.copied(TARGET, DIGEST, "one") is not None
    assert digests.fail(TARGET, DIGEST, "one", Transient("late")) is None
    assert digests.get(TARGET, DIGEST).believed(None)


def test_attempts_count_claims_but_not_the_released_ones(world: World) -> None:
    digests = world.ledger.digests
    for attempts in (1, 1, 2):
        record = digests.claim(digests.get(TARGET, DIGEST), "run", 0)
        assert record is not None
        assert record.attempts == attempts
        if attempts == 1 and record.version < 3:
            digests.release(TARGET, DIGEST, "run", Transient("spot"))
        else:
            digests.fail(TARGET, DIGEST, "run", Transient("broken"))
    digests.claim(digests.get(TARGET, DIGEST), "run", 0)
    digests.fail(TARGET, DIGEST, "run", Transient("broken"))
    assert digests.get(TARGET, DIGEST).status == "exhausted"


def test_a_permanent_error_is_the_last_attempt(world: World) -> None:
    digests = world.ledger.digests
    digests.claim(digests.get(TARGET, DIGEST), "run", 0)
    sent_at = world.clock()
    digests.fail(TARGET, DIGEST, "run", Permanent("schema 1"))
    record = digests.get(TARGET, DIGEST)
    assert record.given_up(sent_at)
    assert not record.given_up(world.clock())


def test_only_what_runs_or_failed_is_in_the_index(world: World) -> None:
    digests = world.ledger.digests
    digests.claim(digests.get(TARGET, DIGEST), "run", 0)

    def states() -> list[object]:
        return [item.get("state") for item in world.table.scan(IndexName="by-state")["Items"]]

    assert states() == ["copying"]
    digests.copied(TARGET, DIGEST, "run")
    assert states() == []


def test_what_was_forgotten_is_absent_unless_it_changed(world: World) -> None:
    digests = world.ledger.digests
    digests.claim(digests.get(TARGET, DIGEST), "run", 0)
    seen = digests.get(TARGET, DIGEST)
    digests.copied(TARGET, DIGEST, "run")
    assert not digests.forget(seen)
    assert digests.forget(digests.get(TARGET, DIGEST))
    assert digests.get(TARGET, DIGEST).status == "absent"


def test_a_tag_has_one_owner(world: World) -> None:
    tags = world.ledger.tags
    held = tags.acquire(TARGET, "latest", "one")
    assert held is not None
    assert tags.acquire(TARGET, "latest", "two") is None
    assert not tags.get(TARGET, "latest").says(None, None)
    assert tags.commit(TARGET, "latest", held, DIGEST, world.clock())
    assert tags.get(TARGET, "latest").says(DIGEST, None)
    tags.doubt(TARGET, "latest")
    assert not tags.get(TARGET, "latest").says(DIGEST, None)


def test_a_lock_is_broken_only_when_it_is_over_for_long(world: World) -> None:
    tags = world.ledger.tags
    held = tags.acquire(TARGET, "latest", "one")
    assert held is not None
    world.clock.tick(LOCK_MS / 1000)
    assert not tags.held(held)
    assert tags.acquire(TARGET, "latest", "two") is None
    world.clock.tick(LOCK_MS / 1000 + 1)
    assert tags.acquire(TARGET, "latest", "two") is not None
    assert not tags.commit(TARGET, "latest", held, DIGEST, world.clock())


def test_who_has_lost_the_lock_changes_nothing(world: World) -> None:
    tags = world.ledger.tags
    held = tags.acquire(TARGET, "latest", "one")
    assert held is not None
    world.clock.tick(2 * LOCK_MS / 1000 + 1)
    assert tags.acquire(TARGET, "latest", "two") is not None
    before = tags.get(TARGET, "latest")
    assert not tags.intend(TARGET, "latest", held, DIGEST)
    assert not tags.put_for_now(TARGET, "latest", held, DIGEST, 5)
    assert not tags.commit(TARGET, "latest", held, DIGEST, 5)
    tags.release(TARGET, "latest", held)
    tags.forget(TARGET, "latest", held)
    assert tags.get(TARGET, "latest") == before


def test_what_is_put_for_now_is_no_commit(world: World) -> None:
    tags = world.ledger.tags
    held = tags.acquire(TARGET, "latest", "one")
    assert held is not None
    assert tags.put_for_now(TARGET, "latest", held, DIGEST, 5)
    record = tags.get(TARGET, "latest")
    assert (record.digest, record.seen_at, record.owner) == (DIGEST, 5, None)
    assert not record.says(DIGEST, None)


def test_ten_slots(world: World) -> None:
    slots = world.ledger.slots
    taken = [slots.take(f"run-{number}", "west", "push", 10) for number in range(SLOTS + 1)]
    assert [slot.number for slot in taken if slot] == list(range(SLOTS))
    assert taken[-1] is None
    slots.free("somebody else's", 3)
    assert len(slots.held()) == SLOTS
    slots.free("run-3", 3)
    assert slots.take("new", "west", "push", 10) is not None


@pytest.mark.parametrize(("lane", "max_tasks", "most"), [("reconcile", 10, RECONCILE_SLOTS), ("push", 2, 2)])
def test_shares(world: World, lane: str, max_tasks: int, most: int) -> None:
    slots = world.ledger.slots
    for number in range(SLOTS):
        slots.take(f"run-{number}", "west", lane, max_tasks)
    assert len(slots.held()) == most
    assert slots.take("other", "east", "push", 10) is not None


def test_a_run_is_begun_once_and_renewed_by_its_holder(world: World) -> None:
    slots = world.ledger.slots
    slots.take("run", "west", "push", 10)
    slot = slots.begin("run", "one")
    assert slot is not None
    assert slots.begin("run", "two") is None
    world.clock.tick(30)
    renewed = slots.renew(slot, "one")
    assert renewed is not None
    assert renewed.until > world.clock() + LEASE_MS - 1000
    assert slots.renew(slot, "two") is None
    slots.end(slot, "one")
    (ended,) = slots.held()
    assert not ended.owns("run")


def test_no_slot_no_run(world: World) -> None:
    assert world.ledger.slots.begin("run", "one") is None


def test_progress_moves_from_where_it_is(world: World) -> None:
    progress = world.ledger.progress
    record = progress.start("s", "run", ())
    assert progress.start("s", "other", ()).run == "run"
    moved = progress.advance("s", record, "a", {"repositories": 1, "images": 5})
    assert moved is not None
    assert (moved.cursor, moved.counts["images"], moved.again) == ("a", 5, True)
    assert progress.advance("s", record, "b", {"repositories": 1}) is None
    finished = progress.finish("s", moved)
    assert finished is not None
    assert finished.status == "done"
    assert progress.finish("s", moved) is None
    assert progress.start("s", "next", ("a/*",)).only == ("a/*",)


def test_a_run_keeps_its_jobs_and_its_task(world: World) -> None:
    job = Job(repository="team/app", digest=DIGEST, tags=(WantedTag(name="1", seen_at=1),))
    run = world.ledger.runs.put("run", "s", "west", "push", [job])
    world.ledger.runs.launched("run", "arn:task")
    assert world.ledger.runs.get("run") == run.model_copy(update={"task": "arn:task"})
    world.ledger.runs.launched("never put", "arn:task")
    assert world.ledger.runs.get("never put") is None


def test_a_breaker_closes_by_itself(world: World) -> None:
    notes = world.ledger.notes
    notes.open_breaker("west", "expired")
    breaker = notes.breaker("west")
    assert breaker is not None
    assert breaker.reason == "expired"
    world.clock.tick(61)
    assert notes.breaker("west") is None


def test_a_tag_that_is_refused_for_good_is_given_up_until_it_is_sent_again(world: World) -> None:
    tags = world.ledger.tags
    before = world.clock()
    tags.fail(TARGET, "1.0", Conflict("somebody else's"))
    record = tags.get(TARGET, "1.0")
    assert (record.error_class, record.error) == ("Conflict", "somebody else's")
    assert len(world.table.scan(IndexName="by-state")["Items"]) == 1
    assert record.given_up(before)
    assert not record.given_up(world.clock())
    held = tags.acquire(TARGET, "1.0", "one")
    assert held is not None
    assert tags.commit(TARGET, "1.0", held, DIGEST, world.clock())
    record = tags.get(TARGET, "1.0")
    assert (record.failed_at, record.error_class, record.error) == (None, None, None)
    assert world.table.scan(IndexName="by-state")["Items"] == []


def test_a_tag_that_an_older_release_saw_refused_has_a_class(world: World) -> None:
    world.table.put_item(Item={"pk": TARGET.pk, "sk": "T#1.0", "failed_at": 1, "error": "immutable"})
    assert world.ledger.tags.get(TARGET, "1.0").error_class == "TagTaken"


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem"])
def test_a_lost_answer_changes_nothing(operation: str) -> None:
    """The SDK repeats the call, and finds its own first write in the way."""
    table: Any = FakeTable()
    ledger = World(RelayConfig.model_validate_json(json.dumps(CONFIG)), table=table).ledger
    table.hook = lambda called: called == operation
    claimed = ledger.digests.claim(ledger.digests.get(TARGET, DIGEST), "run", 0)
    assert claimed == ledger.digests.get(TARGET, DIGEST)
    slot = ledger.slots.take("run", "west", "push", 10)
    assert [held.number for held in ledger.slots.held()] == [0]
    assert slot is not None
    assert ledger.slots.begin("run", "holder") is not None
    assert ledger.tags.acquire(TARGET, "latest", "me") is not None


def test_all_tasks_together_keep_to_the_rate_of_putting(world: World) -> None:
    begun = world.clock()
    reserve = world.ledger.quota.reserve
    turns = [(world.clock() - begun) / 1000 + (reserve("1.us", 1, 8.0, 60) or 0) for _ in range(40)]
    assert turns == sorted(turns)
    for second in range(5):
        most = 17 if second == 0 else 8  # the first second's, and the burst that came before it
        assert sum(second <= turn < second + 1 for turn in turns) <= most
    assert turns[-1] == pytest.approx(39 / 8 - 1, abs=0.1)
    assert reserve("2.us", 5, 8.0, 60) == 0
    world.clock.tick(60)
    assert reserve("1.us", 1, 8.0, 60) == 0


def test_of_two_that_take_a_slot_at_once_each_gets_its_own() -> None:
    table: Any = FakeTable()
    ledger = World(RelayConfig.model_validate_json(json.dumps(CONFIG)), table=table).ledger
    taken = []

    def meanwhile(operation: str) -> None:
        """The other takes its slot after the first has looked, and before it writes."""
        if operation == "UpdateItem":
            table.hook = lambda _: None
            taken.append(ledger.slots.take("other", "west", "push", 10))

    table.hook = meanwhile
    taken.append(ledger.slots.take("first", "west", "push", 10))
    assert {slot.run: slot.number for slot in taken if slot} == {"other": 0, "first": 1}


@pytest.mark.parametrize(("lane", "max_tasks"), [("reconcile", 10), ("push", 2)])
def test_of_two_that_take_the_last_of_a_share_at_once_none_exceeds_it(lane: str, max_tasks: int) -> None:
    table: Any = FakeTable()
    ledger = World(RelayConfig.model_validate_json(json.dumps(CONFIG)), table=table).ledger
    most = RECONCILE_SLOTS if lane == "reconcile" else max_tasks
    for number in range(most - 1):
        ledger.slots.take(f"run-{number}", "west", lane, max_tasks)

    def meanwhile(operation: str) -> None:
        if operation == "UpdateItem":
            table.hook = lambda _: None
            ledger.slots.take("other", "west", lane, max_tasks)

    table.hook = meanwhile
    ledger.slots.take("first", "west", lane, max_tasks)
    assert len(ledger.slots.held()) <= most


def test_who_gives_up_its_turn_has_reserved_nothing(world: World) -> None:
    reserve = world.ledger.quota.reserve
    while reserve("1.us", 8, 8.0, 10) is not None:
        pass
    assert [reserve("1.us", 1, 8.0, 5) for _ in range(100)] == [None] * 100
    world.clock.tick(8)
    assert reserve("1.us", 1, 8.0, 5) is not None
