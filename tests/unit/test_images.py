"""References, by example; tests/property/test_images.py has the rest."""

import doctest

import pytest

from ecr_relay import errors, images
from ecr_relay.images import Reference, is_digest, is_repository, is_tag

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("app", Reference("app")),
        ("team/app:1.2", Reference("team/app", "1.2")),
        (f"team/app@{DIGEST}", Reference("team/app", None, DIGEST)),
        (f"team/app:v_1@{DIGEST}", Reference("team/app", "v_1", DIGEST)),
        ("a__b/c--d/e.f", Reference("a__b/c--d/e.f")),
    ],
)
def test_a_reference(text: str, reference: Reference) -> None:
    assert Reference.parse(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "'' is not a repository name"),
        ("App", "'App' is not a repository name"),
        ("team//app", "'team//app' is not a repository name"),
        ("app:", "'' is not a tag"),
        ("app:-1", "'-1' is not a tag"),
        ("app:a:b", "'a:b' is not a tag"),
        ("app@sha256:12", "'sha256:12' is not a digest"),
        ("app@", "'' is not a digest"),
        (f"app@{DIGEST.upper()}", "is not a digest"),
        ("registry.example:5000/app", "'5000/app' is not a tag"),
    ],
)
def test_what_is_no_reference(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Reference.parse(text)


def test_lengths() -> None:
    assert not is_repository("a")
    assert is_repository("ab")
    assert is_repository("a" * 256)
    assert not is_repository("a" * 257)
    assert is_tag("a" * 128)
    assert not is_tag("a" * 129)
    assert is_digest(DIGEST)
    assert not is_digest(DIGEST + "\n")


@pytest.mark.parametrize("module", [images, errors])
def test_the_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module) == (0, 1)  # type: ignore[arg-type]
