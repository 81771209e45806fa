"""Rules: globs on repositories and tags, excludes, untagged images, destinations."""

import json

import pytest

from ecr_relay import rules
from ecr_relay.config import RelayConfig

TWO = {
    "source": {"region": "us-east-1", "account": "111111111111"},
    "destinations": [
        {"name": "west", "region": "eu-west-1", "account": "111111111111"},
        {"name": "east", "region": "us-east-2", "account": "111111111111"},
    ],
}


def config(*given: dict[str, object]) -> RelayConfig:
    return RelayConfig.model_validate_json(json.dumps(TWO | ({"rules": list(given)} if given else {})))


def names(given: RelayConfig, repository: str, tag: str | None) -> list[str]:
    return [destination.name for destination in rules.destinations(given, repository, tag)]


def test_no_rule_means_everything_that_has_a_tag() -> None:
    assert names(config(), "team/app", "1.0") == ["west", "east"]
    assert names(config(), "team/app", None) == []


@pytest.mark.parametrize(
    ("rule", "repository", "tag", "selected"),
    [
        ({"repositories": ["team/*"]}, "team/app", "1", True),
        ({"repositories": ["team/*"]}, "other/app", "1", False),
        ({"exclude_repositories": ["team/*"]}, "team/app", "1", False),
        ({"tags": ["v*"]}, "app", "v1", True),
        ({"tags": ["v*"]}, "app", "V1", False),
        ({"tags": ["v*"], "exclude_tags": ["*-rc*"]}, "app", "v1-rc2", False),
        ({"untagged": True}, "app", None, True),
        ({"untagged": True, "repositories": ["team/*"]}, "app", None, False),
    ],
)
def test_a_rule(rule: dict[str, object], repository: str, tag: str | None, selected: bool) -> None:
    assert bool(names(config(rule), repository, tag)) is selected


def test_rules_add_up_and_each_has_its_destinations() -> None:
    given = config(
        {"repositories": ["a/*"], "destinations": ["east"]}, {"repositories": ["*/x"], "destinations": ["west"]}
    )
    assert names(given, "a/x", "1") == ["west", "east"]
    assert names(given, "a/y", "1") == ["east"]
    assert names(given, "b/y", "1") == []
    assert rules.concerns(given, "a/y")
    assert not rules.concerns(given, "b/y")
