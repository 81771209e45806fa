"""The composition: a changed parameter is seen within a minute, and a broken one stops nothing that works."""

import json

import boto3
import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.errors import ConfigError
from ecr_relay.relay import CONFIG_AGE_S, Composer
from ecr_relay.settings import CommonSettings
from tests.unit.conftest import CONFIG, make_table


def put(config: object) -> None:
    boto3.client("ssm").put_parameter(Name="/relay", Value=json.dumps(config), Type="String", Overwrite=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("ecr_relay.relay.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def composer(clock: list[float]) -> Composer:
    make_table()
    return Composer(CommonSettings(stack="ecr-relay", ledger_table="ledger", config_parameter="/relay"))


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
