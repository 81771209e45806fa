"""References: what is read is written the same, and nothing else is let in."""

from hypothesis import given
from hypothesis import strategies as st

from ecr_relay.images import Reference, is_digest, is_repository, is_tag

_WORD = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
_COMPONENT = st.lists(_WORD, min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from([".", "_", "__", "-", "---"]).map(lambda separator: separator.join(words))
)
repositories = st.lists(_COMPONENT, min_size=1, max_size=4).map("/".join).filter(lambda name: len(name) >= 2)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda content: "sha256:" + content.hex())
references = st.builds(Reference, repositories, st.none() | tags, st.none() | digests)


@given(references)
def test_written_and_read_it_is_the_same(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(st.text(alphabet=st.sampled_from("aZ0.:_-/@sh256\n é"), max_size=40))
def test_what_is_read_has_only_valid_parts(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except ValueError:
        return
    assert is_repository(reference.repository)
    assert reference.tag is None or is_tag(reference.tag)
    assert reference.digest is None or is_digest(reference.digest)
    assert str(reference) == text


@given(repositories, st.sampled_from(["A", " ", "//", "\n", "é", ":", "@", "..", "._"]), st.data())
def test_a_character_that_does_not_belong_spoils_a_repository(name: str, wrong: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name)))
    assert not is_repository(name[:at] + wrong + name[at:])
