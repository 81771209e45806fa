"""Rules and plans: whatever is configured and listed, they agree with each other."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import cast

import nodesemver
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecr_relay import globs, rules, versions
from ecr_relay.config import Destination, RelayConfig, Rule
from ecr_relay.images import Listed, subject_of_tag
from ecr_relay.ledger import Ledger
from ecr_relay.plan import Wanted, missing, wanted
from ecr_relay.relay import Relay
from tests.fakes.registry import FakeRegistry

ACCOUNT = "111111111111"
REPOSITORIES = ("team/app", "team/web", "base")
TAGS = ("v1.0", "v1.1", "v2", "1.2.3-rc1", "dev", "latest")


def base(source: str = "us-east-1") -> RelayConfig:
    return RelayConfig.model_validate(
        {
            "source": {"region": source, "account": ACCOUNT},
            "destinations": (
                {"name": "west", "region": "us-west-2", "account": ACCOUNT},
                {"name": "east", "region": "us-east-2", "account": ACCOUNT, "prefix": "mirror"},
            ),
        }
    )


def some(*values: str, least: int = 0) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=2, unique=True).map(tuple)


a_rule = st.builds(
    lambda some_newest, **keys: Rule(**some_newest, **keys),
    some_newest=st.just({})
    | st.fixed_dictionaries({"newest": st.integers(1, 2), "newest_by": st.sampled_from(["pushed", "version"])}),
    repositories=some("*", "team/*", "base", least=1),
    exclude_repositories=some("*/web", "ba?e"),
    tags=some("*", "v*", "latest", "v1.?", "ALL_TAGS", least=1),
    exclude_tags=some("*-rc*", "dev", "v2"),
    tag_regex=st.none() | st.sampled_from(["v.*", "[a-z]+"]),
    semver=st.none() | st.sampled_from([">=1.1", "1.x"]),
    untagged=st.booleans(),
    referrers=st.booleans(),
    mode=st.sampled_from(["copy", "copy", "observe"]),
    destinations=some("west", "east"),
)
# Each rule is valid; those that disagree are let in here, since what they decide must be clear all the same.
configs = st.lists(a_rule, min_size=1, max_size=3).map(lambda all_: base().model_copy(update={"rules": tuple(all_)}))


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


@st.composite
def listings(draw: st.DrawFn) -> tuple[Listed, ...]:
    """Of one repository: images, the children of the even ones among them, and what refers to any of these."""
    listed: list[Listed] = []
    for tag in draw(st.lists(st.sampled_from(TAGS), unique=True)):
        pushed = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=draw(st.integers(0, 3)))
        listed.append(Listed(tag, digest(draw(st.integers(0, 5))), pushed_at=draw(st.none() | st.just(pushed))))
    known = [digest(number) for number in range(10)]
    for number in draw(st.lists(st.integers(6, 9), unique=True)):
        listed.append(Listed(None, digest(number)))
    for number in range(20, 20 + draw(st.integers(0, 6))):
        subject = draw(st.sampled_from(known))
        known.append(digest(number))
        kind = draw(st.sampled_from(["digest", "cosign", "fallback", "tagged"]))
        name = subject.replace(":", "-")
        listed.append(
            {
                "digest": Listed(None, digest(number), subject=subject),
                "cosign": Listed(f"{name}.sig", digest(number)),
                "fallback": Listed(name, digest(number)),
                "tagged": Listed(f"sig{number}", digest(number), subject=subject),
            }[kind]
        )
    by_tag = {one.tag or one.digest: one for one in listed}
    return tuple(by_tag.values())


def children(of: str) -> Iterable[str]:
    """An index has the child that is its number and six."""
    number = int(of.removeprefix("sha256:"), 16)
    return [digest(number + 6)] if number in {0, 2} else []


@dataclass
class Told(FakeRegistry):
    """It has what it is told to list."""

    source: tuple[Listed, ...] = ()

    def lines(self, repository: str, digest: str) -> tuple[Listed, ...]:
        return tuple(one for one in self.source if one.digest == digest)


def a_relay(config: RelayConfig, source: tuple[Listed, ...]) -> Relay:
    """One that finds this listing at its source, digest by digest."""
    relay = Relay(config, cast("Ledger", None))
    relay.source = Told(source=source)
    return relay


def applied(
    config: RelayConfig, name: str, repository: str, source: Iterable[Listed], there: set[Listed], plan: list[Wanted]
) -> set[Listed]:
    """What the copier makes of a destination: digests with their children, tags moved, referrers brought along."""
    images = tuple(source)
    tags = {one.tag: one.digest for one in there if one.tag is not None}
    digests = {one.digest for one in there}
    relay = a_relay(config, images)
    destination = config.destination(name)

    def copy(what: str) -> None:
        if what in digests:
            return
        digests.add(what)
        for child in children(what):
            copy(child)
        follows = relay.following(destination, repository, what)
        for one in images if follows else ():
            if one.refers_to == what:
                copy(one.digest)
                if one.tag is not None and subject_of_tag(one.tag):
                    tags[one.tag] = one.digest

    for entry in plan:
        if entry.mode == "copy":
            copy(entry.digest)
            if entry.tag is not None:
                tags[entry.tag] = entry.digest
    return {Listed(tag, what) for tag, what in tags.items()} | {Listed(None, what) for what in digests}


@given(configs, st.sampled_from(REPOSITORIES), listings(), st.data())
def test_an_applied_plan_leaves_nothing_to_do(
    config: RelayConfig, repository: str, source: tuple[Listed, ...], data: st.DataObject
) -> None:
    for destination in config.destinations:
        there = {Listed(one.tag, one.digest) for one in source if data.draw(st.booleans())}
        there |= {Listed("latest", digest(99))} if data.draw(st.booleans()) else set()

        def plan(there: set[Listed], destination: Destination = destination) -> list[Wanted]:
            digests = {one.digest for one in there}
            return list(missing(wanted(config, destination, repository, source, digests), there))

        after = applied(config, destination.name, repository, source, there, plan(there))
        assert [one for one in plan(after) if one.mode == "copy"] == []


@given(configs, st.sampled_from(REPOSITORIES), listings())
def test_an_event_and_the_reconcile_select_the_same(
    config: RelayConfig, repository: str, source: tuple[Listed, ...]
) -> None:
    config = config.model_copy(
        update={"rules": tuple(rule.model_copy(update={"newest": None}) for rule in config.rules)}
    )
    listed = {
        (entry.destination, entry.tag, entry.digest, entry.rule, entry.mode)
        for destination in config.destinations
        for entry in wanted(config, destination, repository, source, frozenset())
        if not entry.referrer
    }
    pushed = {
        (one.destination.name, image.tag, image.digest, one.index, one.rule.mode)
        for image in source
        if image.tag is not None or image.subject is None
        for one in rules.selections(config, repository, image.tag)
    }
    assert listed == pushed


@given(configs, st.sampled_from(REPOSITORIES), listings())
def test_an_event_and_the_reconcile_agree_about_what_refers_to_what_is_there(
    config: RelayConfig, repository: str, source: tuple[Listed, ...]
) -> None:
    config = config.model_copy(
        update={"rules": tuple(rule.model_copy(update={"newest": None}) for rule in config.rules)}
    )
    relay, digests = a_relay(config, source), {one.digest for one in source}
    for destination in config.destinations:
        entries = list(wanted(config, destination, repository, source, digests))
        listed = {(entry.tag, entry.digest, entry.mode) for entry in entries if entry.referrer}
        alone = {entry.digest for entry in entries if not entry.referrer}
        pushed = set()
        for image in source:
            tag = image.tag if image.tag is not None and subject_of_tag(image.tag) else None
            if image.refers_to in digests and (tag is not None or image.digest not in alone):
                how = relay.following(destination, repository, image.refers_to or "")
                pushed |= {(tag, image.digest, how.rule.mode)} if how else set()
        assert listed == pushed


@given(configs, st.sampled_from(REPOSITORIES), listings())
def test_newest_takes_of_a_rule_no_more_than_it_says_and_of_a_push_nothing(
    config: RelayConfig, repository: str, source: tuple[Listed, ...]
) -> None:
    every = {tag for tag in (one.tag for one in source) if tag and rules.selections(config, repository, tag)}
    for rule in config.rules:
        taken = rules.newest(rule, repository, source)
        whole = rules.newest(rule.model_copy(update={"newest": None}), repository, source)
        assert len(taken) == min(len(whole), rule.newest or len(whole))
        assert taken <= whole <= every
        assert rules.newest(rule, repository, reversed(source)) == taken


@given(configs, st.sampled_from(REPOSITORIES), st.sampled_from(TAGS) | st.none())
def test_the_first_rule_that_selects_decides(config: RelayConfig, repository: str, tag: str | None) -> None:
    alone = [rules.selections(config.model_copy(update={"rules": (rule,)}), repository, tag) for rule in config.rules]
    for destination in config.destinations:
        first = [n for n, found in enumerate(alone) if destination in [one.destination for one in found]]
        found = [one.index for one in rules.selections(config, repository, tag) if one.destination == destination]
        assert found == first[:1]


@given(configs, st.sampled_from(REPOSITORIES), listings(), st.sampled_from(TAGS))
def test_an_exclude_always_wins(
    config: RelayConfig, repository: str, source: tuple[Listed, ...], excluded: str
) -> None:
    def excluding(**update: tuple[str, ...]) -> RelayConfig:
        return config.model_copy(update={"rules": tuple(rule.model_copy(update=update) for rule in config.rules)})

    no_tag, no_repository = excluding(exclude_tags=(excluded,)), excluding(exclude_repositories=(repository,))
    assert rules.selections(no_tag, repository, excluded) == ()
    assert not rules.concerns(no_repository, repository)
    for destination in config.destinations:
        there = {one.digest for one in source}
        entries = list(wanted(no_tag, destination, repository, source, there))
        assert excluded not in [entry.tag for entry in entries]
        assert list(wanted(no_repository, destination, repository, source, there)) == []


@given(configs, st.sampled_from(REPOSITORIES), listings())
def test_a_referrer_is_wanted_only_after_its_subject_and_with_it(
    config: RelayConfig, repository: str, source: tuple[Listed, ...]
) -> None:
    for destination in config.destinations:
        entries = list(wanted(config, destination, repository, source, frozenset()))
        assert len({(entry.tag, entry.digest) for entry in entries}) == len(entries)
        for position, entry in enumerate(entries):
            if entry.referrer:
                subjects = [one for one in entries[:position] if one.digest == entry.subject]
                assert entry.rule in [one.rule for one in subjects]
                assert config.rules[entry.rule].referrers
            else:
                assert entry.tag is None or not subject_of_tag(entry.tag)


NAMES = ["".join(letters) for length in range(7) for letters in product("abc", repeat=length)]
plain_globs = st.text("ab*?", min_size=1, max_size=3)
any_globs = st.text("ab*?[]!-", min_size=1, max_size=5)


@given(plain_globs, plain_globs)
def test_globs_meet_where_one_name_matches_both(one: str, other: str) -> None:
    assert globs.intersect(one, other) == any(globs.matches(n, [one]) and globs.matches(n, [other]) for n in NAMES)


@given(any_globs, any_globs)
@example("??", "[]")
@example("?", "*")
@example("[ab]", "?")
@example("*]", "[ab]")
def test_no_meeting_of_globs_is_missed_and_no_cover_is_made_up(one: str, other: str) -> None:
    names = [*NAMES[:120], "[", "]", "!", "-", "[]", "[a", "a]", "[ab]", "[!a]", "b]"]
    mine, others = ({name for name in names if globs.matches(name, [glob])} for glob in (one, other))
    assert globs.intersect(one, other) or not mine & others
    assert globs.intersect(one, other) == globs.intersect(other, one)
    assert not globs.covers(one, other) or others <= mine
    assert not globs.is_literal(one) or mine <= {one}


@pytest.mark.parametrize("glob", ["*a" * 128, "a" * 256, "?*" * 128])
def test_the_longest_globs_are_compared_too(glob: str) -> None:
    assert globs.intersect(glob, glob)
    assert globs.intersect(glob, "*a" * 128)
    assert not globs.intersect(glob + "x", "*a" * 128 + "y")


strict_versions = st.from_regex(r"(0|[1-9][0-9]?)(\.(0|[1-9][0-9]?)){2}(-(a|b|[1-9])(\.(a|[1-9]))?)?", fullmatch=True)


@given(strict_versions, strict_versions)
def test_versions_are_ordered_as_npm_orders_them(one: str, other: str) -> None:
    mine, others = versions.version("v" + one), versions.version(other)
    assert mine is not None
    assert others is not None
    assert (str(mine), str(others)) == (one, other)
    assert (mine.order > others.order) == (nodesemver.compare(one, other, loose=False) > 0)


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True), st.text("0123x*^~<>=|- .v", max_size=12))
def test_no_tag_and_no_range_is_too_strange(tag: str, text: str) -> None:
    versions.matches(tag, ">=0 || *")
    if versions.is_range(text):
        versions.matches("v1.2.3", text)
        versions.matches("1.2.3-rc1", text)
