"""No delete without its conditions, whatever the listings and the ledger say."""

from hypothesis import given
from hypothesis import strategies as st

from ecr_relay.absences import DAY_MS, Put, absences

TAGS = st.sampled_from(["a", "b", None])
DIGESTS = st.sampled_from(["one", "two", "three"])
PAIRS = st.sets(st.tuples(TAGS, DIGESTS), max_size=5)
NOW = 10 * DAY_MS
PUT = st.builds(Put, TAGS, DIGESTS, st.none() | st.integers(NOW - 3 * DAY_MS, NOW))


@given(st.lists(PUT, max_size=5), PAIRS, PAIRS, st.sets(DIGESTS))
def test_no_delete_without_its_conditions(
    put: list[Put], source: set[tuple[str | None, str]], there: set[tuple[str | None, str]], wanted: set[str]
) -> None:
    found = absences(put, source, there, lambda _tag, digest: digest in wanted, NOW)
    for one in found.remove:
        assert source, "an empty listing is no reason"
        assert one in put, "only what we put"
        assert one.digest in wanted, "only where a rule says so"
        assert one.gone_since is not None
        assert NOW - one.gone_since >= DAY_MS, "only what two listings a day apart do not have"
        assert (one.tag, one.digest) in there, "only what is still as we put it"
        if one.tag is None:
            assert one.digest not in {digest for _, digest in source}
            assert one.digest not in {digest for tag, digest in there if tag}, "not under somebody's tag"
        else:
            assert one.tag not in {tag for tag, _ in source}


@given(st.lists(PUT, max_size=5), PAIRS, PAIRS)
def test_what_is_back_starts_over_and_what_is_gone_is_noted_once(
    put: list[Put], source: set[tuple[str | None, str]], there: set[tuple[str | None, str]]
) -> None:
    found = absences(put, source, there, lambda *_: True, NOW)
    assert not set(found.began) & set(found.ended)
    assert all(one.gone_since is None for one in found.began)
    assert all(one.gone_since is not None for one in found.ended)
    # As the ledger has it then, nothing is left to note.
    noted = [
        Put(one.tag, one.digest, NOW if one in found.began else None if one in found.ended else one.gone_since)
        for one in put
    ]
    again = absences(noted, source, there, lambda *_: True, NOW)
    assert again.began == again.ended == ()


def test_what_is_due_is_removed() -> None:
    put = Put("a", "one", NOW - DAY_MS)
    assert absences([put], {("b", "two")}, {("a", "one")}, lambda *_: True, NOW).remove == (put,)
    untagged = Put(None, "one", NOW - DAY_MS)
    assert absences([untagged], {("b", "two")}, {(None, "one")}, lambda *_: True, NOW).remove == (untagged,)
