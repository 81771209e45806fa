"""What the consumer reports of its messages: what is counted, and what is announced on the bus."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from ecr_relay.bus import Announcement
from ecr_relay.config import RelayConfig
from ecr_relay.consume import Delivery, Told, consume
from ecr_relay.consume.told import announcements, measure
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, Transient
from ecr_relay.metrics import Metric
from tests.unit.conftest import ACCOUNT, REGION, World


class Heard:
    """Consumes as the handler does, and keeps what was reported."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.told: list[Told] = []
        self.reports = 0

    def consume(self, *deliveries: Delivery, seconds: float = 0.1) -> list[str]:
        self.told = []
        world = self.world
        return consume(
            deliveries,
            world.relay,
            world.queue,  # type: ignore[arg-type]
            world.tasks,  # type: ignore[arg-type]
            seconds,
            world.clock.tick,
            report=self._report,
        )

    def _report(self, told: Sequence[Told]) -> None:
        self.reports += 1
        self.told += told

    @property
    def counts(self) -> dict[str, float]:
        """Sums, by name or name@destination; durations are left out, and what is zero."""
        found: dict[str, float] = {}
        for destination, samples in measure(self.told).rows():
            for name, values in samples.items():
                if name not in {"lag", "age"} and any(values):
                    found[f"{name}@{destination}" if destination else name] = sum(values)
        return found

    def values(self, name: Metric) -> list[float]:
        return [value for _, samples in measure(self.told).rows() for value in samples.get(name, [])]

    @property
    def announced(self) -> list[Announcement]:
        return announcements(self.told, self.world.config)


@pytest.fixture
def heard(world: World) -> Heard:
    return Heard(world)


def late(world: World, event: str, seconds: float) -> str:
    """The event, as one that happened so long ago."""
    when = (world.clock.now // 1000 - int(seconds)) * 1000
    data = json.loads(event)
    data["time"] = datetime.fromtimestamp(when / 1000, UTC).isoformat()
    return json.dumps(data)


def test_a_copy(heard: Heard) -> None:
    digest, event = heard.world.push("team/app", "one", "1.0")
    delivery = heard.world.delivery(late(heard.world, event, 60))
    assert heard.consume(delivery) == []
    assert heard.counts == {"pushes": 1, "copied": 1, "arrived@west": 1}
    (lag,) = heard.values(Metric.LAG)
    assert 60_000 <= lag <= 62_000
    assert heard.values(Metric.AGE) == [lag]
    (announced,) = heard.announced
    assert announced.detail_type == "Image Relayed"
    run = next(iter(heard.world.tasks.started)).rpartition("/")[2]
    assert announced.model_dump(exclude={"first_seen", "lag_milliseconds"}) == {
        "how": "copied",
        "lane": "push",
        "source": f"{ACCOUNT}.{REGION}",
        "destination": "west",
        "repository": "team/app",
        "destination_repository": "team/app",
        "tag": "1.0",
        "digest": digest,
        "run": run,
        "message_id": delivery.message_id,
        "error_class": None,
        "error": None,
    }
    assert announced.lag_milliseconds == lag


def test_a_retag_has_no_run(heard: Heard) -> None:
    world = heard.world
    _, event = world.push("team/app", "one", "1.0")
    heard.consume(world.delivery(event))
    _, event = world.push("team/app", "one", "stable")
    heard.consume(world.delivery(event))
    assert heard.counts == {"pushes": 1, "retagged": 1, "arrived@west": 1}
    (announced,) = heard.announced
    assert (announced.how, announced.tag, announced.run) == ("retagged", "stable", None)


def test_a_signature_by_tag_is_announced_as_any_image(heard: Heard) -> None:
    """No rule selects its tag: it goes where its image is."""
    world = heard.world
    digest, event = world.push("team/app", "one", "1.0")
    heard.consume(world.delivery(event))
    signature, event = world.push("team/app", "signature", digest.replace(":", "-") + ".sig")
    world.west.push("team/app", "signature")
    heard.consume(world.delivery(event))
    assert heard.counts == {"pushes": 1, "retagged": 1, "arrived@west": 1}
    assert [(one.how, one.digest) for one in heard.announced] == [("retagged", signature)]


def test_a_skip_is_counted_and_announced_to_nobody(heard: Heard) -> None:
    _, event = heard.world.push("team/app", "one", "1.0")
    heard.consume(heard.world.delivery(event))
    heard.consume(heard.world.delivery(event))
    assert heard.counts == {"pushes": 1, "skipped": 1}
    assert heard.announced == []
    assert heard.values(Metric.LAG) == []


def test_a_copy_that_outlasts_its_invocation_arrives_when_its_message_finds_it(heard: Heard) -> None:
    world = heard.world
    digest, event = world.push("team/app", "one", "1.0")
    world.tasks.at_once = False
    heard.consume(world.delivery(late(world, event, 5)))
    assert heard.counts == {"pushes": 1, "deferred": 1}
    assert heard.announced == []
    world.clock.tick(100)  # the lease holds
    (waiting,) = world.queue.deferred
    heard.consume(world.delivery(waiting.body()))
    assert heard.counts == {"deferred": 1}
    assert min(heard.values(Metric.AGE)) >= 100_000, "the age grows while nothing arrives"
    run = next(iter(world.tasks.started)).rpartition("/")[2]
    world.tasks.run(run)
    heard.consume(world.delivery(waiting.body()))
    assert heard.counts == {"joined": 1, "arrived@west": 1}
    (lag,) = heard.values(Metric.LAG)
    assert lag >= 100_000
    (announced,) = heard.announced
    assert (announced.how, announced.digest, announced.run) == ("joined", digest, run)


def test_what_was_told_to_nobody_since_the_invocation_died_is_told_when_the_message_comes_back(heard: Heard) -> None:
    world = heard.world
    _, event = world.push("team/app", "one", "1.0")
    world.consume(world.delivery(event))  # and the function dies before it can announce it
    heard.consume(world.delivery(event, receives=2))
    assert heard.counts == {"joined": 1, "arrived@west": 1}
    assert [announced.how for announced in heard.announced] == ["joined"]


@pytest.mark.parametrize(
    ("error", "metric"),
    [
        (Transient("blob unknown"), "failed_transient"),
        (Permanent("schema 1"), "failed_permanent"),
        (Missing("no such layer"), "failed_missing"),
    ],
)
def test_failures_are_counted_by_class_and_announced_once_when_given_up(
    heard: Heard, error: CopyError, metric: str
) -> None:
    world = heard.world
    digest, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [error] * 3
    sent_at = world.clock()
    said = []
    for receives in (1, 2, 3):
        delivery = world.delivery(event, sent_at=sent_at, receives=receives)
        assert heard.consume(delivery) == [delivery.message_id]
        assert heard.counts == {"failed@west": 1, metric: 1} | ({"pushes": 1} if receives == 1 else {})
        said += heard.announced
    (announced,) = said
    assert announced.detail_type == "Image Relay Failed"
    assert (announced.how, announced.digest) == ("failed", digest)
    assert (announced.error_class, announced.error) == (type(error).__name__, str(error))
    assert announced.run is not None
    assert announced.message_id == delivery.message_id


def test_an_immutable_tag(heard: Heard) -> None:
    world = heard.world
    settings = world.config.destinations[0].new_repository
    world.west.ensure_repository("team/app", settings.model_copy(update={"immutable_tags": True}))
    world.west.push("team/app", "other", "1.0")
    _, event = world.push("team/app", "one", "1.0")
    heard.consume(world.delivery(event, receives=3))
    assert heard.counts == {"failed@west": 1, "failed_tag_taken": 1}
    (announced,) = heard.announced
    assert announced.error_class == "TagTaken"
    assert "immutable" in (announced.error or "")


@pytest.mark.parametrize(
    ("on_conflict", "counts", "how"),
    [
        ("overwrite", {"retagged": 1, "conflicts": 1, "arrived@west": 1}, ["overwrote"]),
        ("keep", {"skipped": 1, "conflicts": 1}, []),
        ("fail", {"failed@west": 1, "failed_conflict": 1, "conflicts": 1}, ["failed"]),
    ],
)
def test_a_tag_that_somebody_else_has_moved(
    heard: Heard, on_conflict: str, counts: dict[str, float], how: list[str]
) -> None:
    config = heard.world.config.model_dump(mode="json")
    config["destinations"][0]["on_conflict"] = on_conflict
    one = Heard(World(RelayConfig.model_validate_json(json.dumps(config)), table=heard.world.table))
    world = one.world
    world.consume(world.delivery(world.push("team/app", "one", "1.0")[1]))
    world.consume(world.delivery(world.push("team/app", "two", "2.0")[1]))
    world.west.push("team/app", "by somebody else", "1.0")
    _, event = world.push("team/app", "two", "1.0")  # which is there already, so that it takes no copy
    one.consume(world.delivery(event, receives=3))
    assert one.counts == counts
    assert [announced.how for announced in one.announced] == how


def test_a_destination_that_is_down(heard: Heard) -> None:
    world = heard.world
    _, event = world.push("team/app", "one", "1.0")
    world.skopeo.fail = [RegistryDown("authorization token has expired")]
    heard.consume(world.delivery(event))
    assert heard.counts == {"pushes": 1, "deferred": 1, "breaker_open@west": 1}
    (waiting,) = world.queue.deferred
    heard.consume(world.delivery(waiting.body()))
    assert heard.counts == {"deferred": 1, "breaker_open@west": 1}


def test_a_breaker_that_the_consumer_opens(heard: Heard) -> None:
    world = heard.world
    _, event = world.push("team/app", "one", "1.0")
    world.source.fail = [RegistryDown("unauthorized")]
    heard.consume(world.delivery(event))
    assert heard.counts == {"pushes": 1, "deferred": 1, "breaker_open@west": 1}


def test_what_nobody_can_read(heard: Heard) -> None:
    heard.consume(heard.world.delivery("no json", receives=3))
    assert heard.counts == {"failed": 1, "failed_malformed": 1}
    assert heard.values(Metric.AGE) == []
    assert heard.announced == []


def test_a_bug_is_counted_as_one(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(heard.world.source, "resolve", broken)
    _, event = heard.world.push("team/app", "one", "1.0")
    heard.consume(heard.world.delivery(event))
    assert heard.counts == {"pushes": 1, "failed@west": 1, "failed_unexpected": 1}


def test_the_other_ends(heard: Heard) -> None:
    config = heard.world.config.model_dump(mode="json")
    config["destinations"].append({"name": "east", "region": "us-east-2", "account": ACCOUNT})
    two = Heard(World(RelayConfig.model_validate_json(json.dumps(config)), table=heard.world.table))
    _, event = two.world.push("team/app", "one", "1.0")
    child = two.world.event("team/app", "sha256:" + "0" * 64, None)
    two.consume(two.world.delivery(event), two.world.delivery(child))
    assert two.counts == {"pushes": 2, "split": 1, "dropped": 1}
    two.consume(*[two.world.delivery(envelope.body()) for envelope in two.world.queue.sent])
    assert two.counts == {"copied": 2, "arrived@west": 1, "arrived@east": 1}


def test_reconcile_work_has_no_lag(heard: Heard) -> None:
    heard.world.source.push("team/app", "one", "1.0")
    heard.world.reconcile()
    (envelope,) = heard.world.queue.sent
    heard.consume(heard.world.delivery(envelope.body()))
    assert heard.counts == {"copied": 1, "arrived@west": 1}
    assert heard.values(Metric.LAG) == heard.values(Metric.AGE) == []
    assert [announced.lane for announced in heard.announced] == ["reconcile"]


def test_what_was_decided_is_reported_before_anything_is_copied(heard: Heard) -> None:
    world = heard.world
    _, event = world.push("team/app", "one", "1.0")
    heard.consume(world.delivery(event))
    _, retag = world.push("team/app", "one", "stable")
    _, new = world.push("team/app", "two", "2.0")
    heard.reports = 0
    seen: list[int] = []
    world.skopeo.during = lambda _: seen.append(heard.reports)
    heard.consume(world.delivery(retag), world.delivery(new))
    assert seen == [1]
    assert heard.reports == 2


def test_a_report_that_fails_fails_no_message(world: World) -> None:
    def report(_: object) -> None:
        raise ZeroDivisionError

    _, event = world.push("team/app", "one", "1.0")
    failed = consume(
        [world.delivery(event)],
        world.relay,
        world.queue,  # type: ignore[arg-type]
        world.tasks,  # type: ignore[arg-type]
        0.1,
        world.clock.tick,
        report=report,
    )
    assert failed == []
    assert "team/app" in world.west.content


def test_without_any_success_arrived_is_a_zero_and_no_gap() -> None:
    rows = dict(measure([]).rows())
    assert rows == {"": {"arrived": [0], "failed": [0]}}
