"""Random programs against the whole relay in one process. See `world` for what is real in it.

Invariants, after every step: at most ten tasks; nobody copies a digest that another copies; reconcile work keeps to its
slots. At the end, when nothing more goes wrong: every push is at the destination or in the dead-letter queue, no slot
is held; and after one reconcile the destination equals the source, whatever happened before.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ecr_relay.ledger import slots
from tests.fakes.registry import Repository
from tests.model.world import Interruption, World

UNTOUCHED = "c/three"
"""No program tampers with it and no event of it is lost: nothing about it is ever excused."""
TOUCHED = st.sampled_from(["a/one", "b/two"])
REPOSITORIES = st.sampled_from(["a/one", "a/one", "b/two", UNTOUCHED, UNTOUCHED])
AHEAD_MS = st.sampled_from([0, 0, -3000, 3000])
TAGS = st.sampled_from(["latest", "v1"])
CONTENTS = st.sampled_from(["x", "y"])
SECONDS = st.sampled_from([1, 15, 61, 125, 400])
INDEX = st.integers(0, 2)
AT = st.integers(1, 24)
SIMPLE = st.none() | st.builds(Interruption, AT, st.sampled_from(["crash", "throttle", "lose"]))


DONE: Counter[str] = Counter()
"""What the programs did altogether, for the long run's report."""


PUSHES = ("push", "push", "push two tags", "push, its event lost")
WORK = ("consume", "consume", "run a task", "run a task", "reconcile", "wait")
TROUBLE = (
    *("repeat a message", "reorder the queue", "lose a task"),
    *("tamper with the destination", "remove a tag at the source"),
)
RACES = ("consume while others act", "run a task while others act")


class Relay(RuleBasedStateMachine):
    """One rule that draws what it does: several would be switched off by turns, and most programs do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(consumer_ms=AHEAD_MS, copier_ms=AHEAD_MS, scarce=st.booleans())
    def begin(self, consumer_ms: int, copier_ms: int, scarce: bool) -> None:
        self.world = World(consumer_ms, copier_ms, scarce=scarce)

    @rule(data=st.data(), kind=st.sampled_from([*PUSHES, *WORK, *WORK, *TROUBLE, *RACES, *RACES]))
    def step(self, data: st.DataObject, kind: str) -> None:
        world, draw = self.world, data.draw
        match kind:
            case "push":
                world.push(draw(REPOSITORIES), draw(TAGS), draw(CONTENTS))
            case "push, its event lost":
                world.push(draw(TOUCHED), draw(TAGS), draw(CONTENTS), lost=True)
            case "push two tags":
                repository, content = draw(REPOSITORIES), draw(CONTENTS)
                world.push(repository, "latest", content)
                world.push(repository, "v1", content)
            case "repeat a message":
                if messages := list(world.queue.messages.values()):
                    world.queue.put(draw(st.sampled_from(messages)).body, draw(SECONDS))
            case "reorder the queue":
                world.queue.messages = dict(reversed(world.queue.messages.items()))
            case "remove a tag at the source":
                world.source.content.get(draw(REPOSITORIES), Repository()).tags.pop(draw(TAGS), None)
            case "tamper with the destination":
                self._tamper(draw(TOUCHED), whole=draw(st.booleans()))
            case "consume":
                world.deliver(draw(st.integers(1, 10)), draw(SIMPLE), draw(st.sampled_from([0, 10])))
            case "run a task":
                world.run_task(draw(INDEX), draw(SIMPLE))
            case "consume while others act":
                world.deliver(10, self._race(data), 0)
            case "run a task while others act":
                world.run_task(draw(INDEX), self._race(data))
            case "lose a task":
                world.lose_task(draw(INDEX), draw(st.sampled_from(["vanish", "never-started", "spot"])))
            case "wait":
                world.tick(draw(SECONDS))
            case "reconcile":
                world.reconcile(draw(SIMPLE))

    def _tamper(self, repository: str, *, whole: bool) -> None:
        if repository not in self.world.west.content:
            return
        self.world.unsure.add(repository)
        place = self.world.west.content[repository]
        for tag in list(place.tags)[:1]:
            if whole:
                self.world.west.delete(repository, place.tags[tag])
            else:
                del place.tags[tag]

    def _race(self, data: st.DataObject) -> Interruption:
        """In the middle of an operation, at one of its calls, up to four others happen."""
        world, draw = self.world, data.draw

        def act() -> None:
            for kind in draw(st.lists(st.sampled_from([*PUSHES, *WORK]), min_size=1, max_size=4), label="meanwhile"):
                match kind:
                    case "push" | "push two tags" | "push, its event lost":
                        world.push(draw(REPOSITORIES), draw(TAGS), draw(CONTENTS))
                    case "consume":
                        world.deliver(10, draw(SIMPLE), 0)
                    case "run a task":
                        world.run_task(draw(INDEX), draw(SIMPLE))
                    case "wait":
                        world.tick(draw(SECONDS))
                    case "reconcile":
                        world.reconcile()

        return Interruption(draw(AT), draw(st.sampled_from(["meanwhile", "frozen"])), act)

    def teardown(self) -> None:
        world = self.world
        world.settle()
        done = {"tasks": len(world.tasks.started), "faults": world.faults, "kills": world.kills}
        DONE.update(done, programs=1, calls=world.calls, dead_letters=len(world.queue.dead))
        assert world.dead_letters_are_justified(), f"a dead letter, but {world.faults} faults, {world.kills} kills"
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
            database=None,
            deadline=None,
            phases=[phase for phase in Phase if phase is not Phase.explain],
            report_multiple_bugs=False,
            derandomize="ECR_RELAY_MODEL_PROGRAMS" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print("model:", ", ".join(f"{count:,} {what}" for what, count in DONE.items()))
