"""The composition: a changed parameter is seen within a minute, and a broken one stops nothing that works."""

import json

import boto3
import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.errors import ConfigError
from ecr_relay.relay import CONFIG_AGE_S, RENEW_S, Composer
from ecr_relay.settings import CommonSettings
from tests.unit.conftest import CONFIG, make_table


def put(config: object) -> None:
    boto3.client("ssm").put_parameter(Name="/relay", Value=json.dumps(config), Type="String", Overwrite=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("ecr_relay.relay.time.monotonic", lambda: now[0])
    monkeypatch.setattr("ecr_relay.relay.now_ms", lambda: round(now[0] * 1000))
    return now


@pytest.fixture
def reads(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the parameter was read."""
    session = boto3.Session()
    found: list[float] = []
    session.events.register("before-call.ssm.GetParameter", lambda **_: found.append(clock[0]))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    return found


@pytest.fixture
def composer(clock: list[float], reads: list[float]) -> Composer:
    make_table()
    settings = CommonSettings(stack="ecr-relay", ledger_table="ledger", config_parameter="/relay")

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    return Composer(settings, sleep)


def test_a_changed_rule_is_seen_after_a_minute(composer: Composer, clock: list[float]) -> None:
    put(CONFIG)
    first = composer.relay()
    assert first.config == RelayConfig.model_validate_json(json.dumps(CONFIG))
    put(CONFIG | {"rules": [{"tags": ["v*"]}]})
    assert composer.relay() is first
    clock[0] += CONFIG_AGE_S + 1
    assert composer.relay().config.rules[0].tags == ("v*",)
    clock[0] += CONFIG_AGE_S + 1
    again = composer.relay()
    clock[0] += CONFIG_AGE_S + 1
    assert composer.relay() is again


def test_a_broken_one_leaves_the_last_at_work(composer: Composer, clock: list[float]) -> None:
    put(CONFIG)
    first = composer.relay()
    put({"source": {}})
    clock[0] += CONFIG_AGE_S + 1
    assert composer.relay() is first


def test_without_any_there_is_nothing_to_go_by(composer: Composer) -> None:
    with pytest.raises(ConfigError, match="SSM parameter /relay: cannot be read"):
        composer.relay()


def test_rules_are_as_new_as_a_message_and_read_once_a_second_at_the_most(
    composer: Composer, clock: list[float], reads: list[float]
) -> None:
    put(CONFIG)
    clock[0] = 10.0
    first = composer.relay()
    put(CONFIG | {"rules": [{"tags": ["v*"]}]})
    # Of before the reading, or here by then: nothing newer is needed.
    assert composer.relay_since(8_000, received=30.0) is first
    assert composer.relay_since(9_900, received=10.0) is first
    clock[0] = 30.0
    newer = composer.relay_since(20_000, received=30.0)
    assert newer.config.rules[0].tags == ("v*",)
    # The other nine of the same batch were here by then, too.
    assert composer.relay_since(29_999, received=30.0) is newer
    clock[0] = 30.2
    assert composer.relay_since(30_100, received=30.2) is newer
    assert clock[0] == 30.0 + RENEW_S
    assert reads == [10.0, 30.0, 30.0 + RENEW_S]


def test_a_broken_one_is_no_newer_rule_and_an_unread_one_is_an_error(composer: Composer, clock: list[float]) -> None:
    put(CONFIG)
    first = composer.relay()
    put({"source": {}})
    clock[0] = 30.0
    assert composer.relay_since(29_000, received=30.0) is first
    boto3.client("ssm").delete_parameter(Name="/relay")
    clock[0] = 100.0
    assert composer.relay() is first
    with pytest.raises(ConfigError, match="cannot be read"):
        composer.relay_since(99_000, received=100.0)
