"""Rules: globs on repositories and tags, excludes, untagged images, destinations."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from ecr_relay import rules, versions
from ecr_relay.config import Destination, RelayConfig
from ecr_relay.images import Listed
from ecr_relay.plan import Wanted, missing, wanted

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
        ({"untagged": True, "images": "app:1"}, "app", None, True),
        ({"untagged": True, "images": "app:1"}, "other", None, False),
        ({"untagged": True, "images": "app:1"}, "app", "2", False),
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


def listed(tag: str | None, number: int, days: int | None = None, subject: int | None = None) -> Listed:
    pushed = None if days is None else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)
    return Listed(tag, digest(number), subject=None if subject is None else digest(subject), pushed_at=pushed)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def newest(rule: dict[str, object], *images: Listed) -> set[str]:
    return set(rules.newest(config(rule).rules[0], "app", images))


def test_newest_by_the_push_and_by_the_name_if_that_is_equal() -> None:
    images = (listed("a", 1, 3), listed("b", 2, 5), listed("c", 3, 3), listed("d", 4), listed(None, 5, 9))
    assert newest({"newest": 1}, *images) == {"b"}
    assert newest({"newest": 2}, *images) == {"b", "c"}
    assert newest({"newest": 9}, *images) == {"a", "b", "c", "d"}
    assert newest({"newest": 2, "exclude_tags": ["b"]}, *images) == {"a", "c"}


def test_newest_by_the_version() -> None:
    tags = ("v1.9", "1.10", "1.10.0-rc1", "1.2", "latest", digest(7).replace(":", "-") + ".sig")
    images = [listed(tag, number) for number, tag in enumerate(tags)]
    by_version: dict[str, object] = {"newest_by": "version"}
    assert newest(by_version | {"newest": 2}, *images) == {"1.10", "1.10.0-rc1"}
    assert newest(by_version | {"newest": 2, "semver": ">=1"}, *images) == {"1.10", "v1.9"}
    assert newest(by_version | {"newest": 5}, *images) == {"1.10", "1.10.0-rc1", "v1.9", "1.2", "latest"}


def test_newest_is_of_the_backfill_and_another_rule_may_take_what_it_leaves() -> None:
    given = config({"newest": 1}, {"tags": ["old"], "destinations": ["west"]})
    images = (listed("new", 1, 9), listed("old", 2, 1), listed("older", 3, 0))
    taken = rules.backfill(given, "app", images)
    assert [one.index for one in rules.selections(given, "app", "old")] == [0, 0]
    assert [(one.destination.name, one.index) for one in rules.selections(given, "app", "old", taken)] == [("west", 1)]
    assert rules.selections(given, "app", "older", taken) == ()


def test_what_is_about_an_image_by_its_name_is_selected_by_no_key_for_tags() -> None:
    name = digest(1).replace(":", "-")
    for tag in (name, f"{name}.sig", f"{name}.att", f"{name}.sbom"):
        assert rules.selections(config(), "app", tag) == ()
        assert names(config({"tags": ["v*"]}), "app", tag) == ["west", "east"]
        assert names(config({"referrers": False}), "app", tag) == []
    assert rules.selections(config({"tags": ["v*"]}), "app", f"{name}.txt") == ()


def test_where_referrers_may_go() -> None:
    given = config(
        {"repositories": ["a/*"], "tags": ["dev*"], "mode": "observe"},
        {"repositories": ["a/*"], "tags": ["v*"], "destinations": ["east"]},
        {"repositories": ["b/*"], "referrers": False},
    )
    assert [(one.destination.name, one.index) for one in rules.referring(given, "a/x")] == [("west", 0), ("east", 1)]
    assert rules.referring(given, "b/x") == ()
    assert rules.referring(given, "c/x") == ()


def test_repositories_that_are_all_named() -> None:
    given = config({"repositories": ["bb", "aa"]}, {"images": "cc:1,aa:ALL_TAGS"})
    assert (sorted(rules.named(given)), rules.only_name(given)) == (["aa", "bb", "cc"], True)
    given = config({"repositories": ["b", "a"], "exclude_repositories": ["b*"]})
    assert (sorted(rules.named(given)), rules.only_name(given)) == (["a"], True)
    given = config({"repositories": ["a"]}, {"repositories": ["b*"]})
    assert (sorted(rules.named(given)), rules.only_name(given)) == (["a"], False)
    assert (sorted(rules.named(config())), rules.only_name(config())) == ([], False)


@pytest.mark.parametrize(
    ("key", "pattern", "repository", "ring"),
    [
        ("prefix", "p", "app", False),
        ("prefix", "p", "p/app", True),
        ("prefix", "p", "p/p/app", True),
        ("prefix", "p", "team/p/app", False),
        ("prefix", "p", "q/p/q/p/app", True),
        ("prefix", "p", "pp/app", False),
        ("prefix", "", "p/p/app", False),
        ("target", "hub/{repository}/copy", "hub/app/copy", True),
        ("target", "hub/{repository}/copy", "hub/app", False),
        ("target", "{repository}/copy", "app/copy", True),
        ("target", "{repository}/copy", "copy", False),
    ],
)
def test_a_name_that_would_go_round_for_ever_is_not_selected(
    key: str, pattern: str, repository: str, ring: bool
) -> None:
    given = RelayConfig.model_validate_json(
        json.dumps(TWO | {"destinations": [TWO["destinations"][0] | {key: pattern}]})  # type: ignore[index]
    )
    assert rules.is_ring(given.destinations[0], repository) is ring
    assert names(given, repository, "1") == ([] if ring else ["west"])
    assert rules.concerns(given, repository) is not ring
    assert bool(rules.referring(given, repository)) is not ring


def test_relays_that_face_each_other_come_to_an_end() -> None:
    """One relay copies from a to b, another from b to a, each everything below its own prefix."""
    there, back = (
        RelayConfig.model_validate_json(
            json.dumps(TWO | {"destinations": [TWO["destinations"][0] | {"prefix": prefix}]})  # type: ignore[index]
        ).destinations[0]
        for prefix in ("to-b", "to-a")
    )
    a, b = {"team/app"}, {"team/app"}
    for _ in range(10):
        b |= {there.repository(name) for name in a if not rules.is_ring(there, name)}
        a |= {back.repository(name) for name in b if not rules.is_ring(back, name)}
    assert max(len(name.split("/")) for name in a | b) <= 6


def difference(
    given: RelayConfig, destination: Destination, repository: str, source: Sequence[Listed], there: Sequence[Listed]
) -> Iterator[Wanted]:
    return missing(wanted(given, destination, repository, source, {one.digest for one in there}), there)


def test_a_plan_says_which_rule_how_big_and_what_is_brought_along() -> None:
    given = config({"tags": ["v*"]}, {"tags": ["dev"], "mode": "observe"})
    name = digest(1).replace(":", "-")
    source = (
        Listed("v1", digest(1), size=7),
        listed("dev", 2),
        listed("other", 3),
        listed(None, 4, subject=1),
        listed(f"{name}.sig", 5),
        listed("note", 6, subject=2),
        listed(None, 7, subject=3),
        listed(None, 8, subject=4),
    )
    west = given.destinations[0]
    plan = list(difference(given, west, "app", source, [listed("v1", 9)]))
    assert [(one.tag, one.digest, one.rule, one.mode, one.subject) for one in plan] == [
        ("v1", digest(1), 0, "copy", None),
        ("dev", digest(2), 1, "observe", None),
        (None, digest(4), 0, "copy", digest(1)),
        (f"{name}.sig", digest(5), 0, "copy", digest(1)),
        (None, digest(6), 1, "observe", digest(2)),
        (None, digest(8), 0, "copy", digest(4)),
    ]
    assert (plan[0].there, plan[0].size, plan[0].referrer, plan[2].referrer) == (digest(9), 7, False, True)
    # An image that is there without being selected has its referrers, too.
    plan = list(difference(given, west, "app", source, [listed("other", 3), *source[:2], *source[3:6]]))
    assert [(one.digest, one.subject) for one in plan] == [(digest(8), digest(4)), (digest(7), digest(3))]


def test_what_is_copied_under_one_tag_and_observed_under_another_is_copied_with_its_signature() -> None:
    given = config({"tags": ["dev"], "mode": "observe"}, {"tags": ["v*"]})
    for order in (("dev", "v1"), ("v1", "dev")):
        source = [*(listed(tag, 1) for tag in order), listed(None, 2, subject=1)]
        plan = list(difference(given, given.destinations[0], "app", source, []))
        assert {(one.tag, one.digest): one.mode for one in plan} == {
            ("dev", digest(1)): "observe",
            ("v1", digest(1)): "copy",
            (None, digest(2)): "copy",
        }


def test_a_referrer_that_a_tag_selects_is_no_second_entry() -> None:
    given = config({"tags": ["v*"]})
    source = [listed("v1", 1), listed("v1-sbom", 2, subject=1), listed("sbom", 2, subject=1)]
    plan = list(difference(given, given.destinations[0], "app", source, []))
    assert [(one.tag, one.digest, one.referrer) for one in plan] == [
        ("v1", digest(1), False),
        ("v1-sbom", digest(2), False),
    ]


@pytest.mark.parametrize(
    ("tag", "is_version"),
    [
        ("1.2.3", "1.2.3"),
        ("v1.2.3", "1.2.3"),
        ("1.2", "1.2.0"),
        ("v1", "1.0.0"),
        ("22.04", "22.4.0"),
        ("1.2.3_5", "1.2.3"),
        ("1.3.0-rc1", "1.3.0-rc1"),
        ("1.3-alpine", "1.3.0-alpine"),
        ("1.3.0-rc.01", "1.3.0-rc.1"),
        ("20260131", "20260131.0.0"),
        ("latest", None),
        ("1.2.3.4", None),
        ("1_2", None),
        ("1.2-", None),
        ("1" * 128, None),
    ],
)
def test_tags_that_are_versions(tag: str, is_version: str | None) -> None:
    found = versions.version(tag)
    assert (str(found) if found else None) == is_version
    assert versions.matches(tag, ">=1") is (is_version is not None and "-" not in is_version)


def test_a_prerelease_is_within_a_range_that_names_one_of_its_version() -> None:
    assert versions.matches("1.3.0-rc2", ">=1.3.0-rc1")
    assert not versions.matches("1.3.1-rc2", ">=1.3.0-rc1")
