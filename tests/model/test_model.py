"""Random programs against the whole relay in one process. See `world` for what is real in it.

Invariants, after every step: at most ten tasks; nobody copies a digest that another copies; reconcile work keeps to its
slots. At the end, when nothing more goes wrong: every push is at the destination or in the dead-letter queue, no slot
is held; and after one reconcile the destination equals the source, whatever happened before.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from ecr_relay.ledger import slots
from tests.model.world import RECEIVES, Interruption, World

logging.disable(logging.CRITICAL)

REPOSITORIES = st.sampled_from(["a/one", "a/one", "b/two"])
TAGS = st.sampled_from(["latest", "v1"])
CONTENTS = st.sampled_from(["x", "y"])
SECONDS = st.sampled_from([1, 15, 61, 125, 400])
INDEX = st.integers(0, 2)
AT = st.integers(1, 24)
SIMPLE = st.none() | st.builds(Interruption, AT, st.sampled_from(["crash", "throttle", "lose"]))


DONE: Counter[str] = Counter()
"""What the programs did altogether, for the long run's report."""


class Relay(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(repository=REPOSITORIES, tag=TAGS, content=CONTENTS)
    def push(self, repository: str, tag: str, content: str) -> None:
        self.world.push(repository, tag, content)

    @rule(repository=REPOSITORIES, tag=TAGS, content=CONTENTS)
    def push_with_its_event_lost(self, repository: str, tag: str, content: str) -> None:
        self.world.push(repository, tag, content, lost=True)

    @rule(repository=REPOSITORIES, content=CONTENTS)
    def push_two_tags(self, repository: str, content: str) -> None:
        self.world.push(repository, "latest", content)
        self.world.push(repository, "v1", content)

    @precondition(lambda self: self.world.queue.messages)
    @rule(index=INDEX, delay=SECONDS)
    def duplicate_or_reorder(self, index: int, delay: int) -> None:
        messages = list(self.world.queue.messages.values())
        self.world.queue.put(messages[index % len(messages)].body, delay)

    @rule(repository=REPOSITORIES, tag=TAGS)
    def remove_a_tag_at_the_source(self, repository: str, tag: str) -> None:
        if repository in self.world.source.content:
            self.world.source.content[repository].tags.pop(tag, None)

    @rule(repository=REPOSITORIES, whole=st.booleans())
    def tamper_with_the_destination(self, repository: str, whole: bool) -> None:
        if repository in self.world.west.content:
            self.world.unsure.add(repository)
            place = self.world.west.content[repository]
            for tag in list(place.tags)[:1]:
                if whole:
                    self.world.west.delete(repository, place.tags[tag])
                else:
                    del place.tags[tag]

    @rule(most=st.integers(1, 10), interruption=SIMPLE, seconds=st.sampled_from([0, 10]))
    def consume(self, most: int, interruption: Interruption | None, seconds: int) -> None:
        self.world.deliver(most, interruption, seconds)

    @rule(index=INDEX, interruption=SIMPLE)
    def run_a_task(self, index: int, interruption: Interruption | None) -> None:
        self.world.run_task(index, interruption)

    @rule(data=st.data(), at=AT, what=st.sampled_from(["meanwhile", "frozen"]))
    def consume_while_others_act(self, data: st.DataObject, at: int, what: str) -> None:
        self.world.deliver(10, Interruption(at, what, self._others(data)), 0)

    @rule(data=st.data(), index=INDEX, at=AT, what=st.sampled_from(["meanwhile", "frozen"]))
    def run_a_task_while_others_act(self, data: st.DataObject, index: int, at: int, what: str) -> None:
        self.world.run_task(index, Interruption(at, what, self._others(data)))

    def _others(self, data: st.DataObject) -> Callable[[], None]:
        """Up to four operations that happen in the middle of another."""
        world = self.world
        kinds = ["push", "consume", "task", "tick", "reconcile"]

        def act() -> None:
            for kind in data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4), label="meanwhile"):
                match kind:
                    case "push":
                        world.push(data.draw(REPOSITORIES), data.draw(TAGS), data.draw(CONTENTS))
                    case "consume":
                        world.deliver(10, data.draw(SIMPLE), 0)
                    case "task":
                        world.run_task(data.draw(INDEX), data.draw(SIMPLE))
                    case "tick":
                        world.tick(data.draw(SECONDS))
                    case "reconcile":
                        world.reconcile()

        return act

    @rule(index=INDEX, how=st.sampled_from(["vanish", "never-started", "spot"]))
    def lose_a_task(self, index: int, how: str) -> None:
        self.world.lose_task(index, how)

    @rule(seconds=SECONDS)
    def wait(self, seconds: int) -> None:
        self.world.tick(seconds)

    @rule(interruption=SIMPLE)
    def reconcile(self, interruption: Interruption | None) -> None:
        self.world.reconcile(interruption)

    def teardown(self) -> None:
        world = self.world
        DONE.update(programs=1, tasks=len(world.tasks.started), faults=world.faults, calls=world.calls)
        world.settle()
        assert world.faults >= RECEIVES or not world.queue.dead, "a dead letter without three faults"
        excused = world.unsure | world.dead()
        lost = {place: pair for place, pair in world.differences().items() if place[0] not in excused}
        assert not lost, f"lost: {lost}"
        world.reconcile_to_the_end()
        world.settle()
        assert not world.differences(), f"not healed: {world.differences()}"


def test_random_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two slots, one of them for the reconcile: what ten would need thirty operations to show, these show in six.
    monkeypatch.setattr(slots, "SLOTS", 2)
    monkeypatch.setattr(slots, "RECONCILE_SLOTS", 1)
    programs = int(os.environ.get("ECR_RELAY_MODEL_PROGRAMS", "200"))
    run_state_machine_as_test(
        Relay,
        settings=settings(
            max_examples=programs,
            stateful_step_count=50,
            deadline=None,
            phases=[phase for phase in Phase if phase is not Phase.explain],
            report_multiple_bugs=False,
            derandomize="ECR_RELAY_MODEL_PROGRAMS" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print("model:", ", ".join(f"{count:,} {what}" for what, count in DONE.items()))
