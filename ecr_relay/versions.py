"""Versions in tags, and the ranges of them that npm writes. Pure.

Tags are read as skopeo sync, Flux and Helm read them, since a `relay.toml` may come from there: `v1.2.3`, `1.2` for
1.2.0, `22.04` for 22.4.0, `1.2.3-rc.1`, and Helm's `1.2.3_5` for 1.2.3+5, because a tag cannot have a plus.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import nodesemver

_VERSION: Final = re.compile(
    r"[vV]?(?P<main>[0-9]{1,18}(?:\.[0-9]{1,18}){0,2})(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?P<build>_[0-9A-Za-z._-]+)?"
)


@dataclass(frozen=True, slots=True)
class Version:
    """`main`: major, minor, patch; `pre`: the prerelease's parts, none for a release."""

    main: tuple[int, int, int]
    pre: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join(map(str, self.main)) + ("-" + ".".join(self.pre) if self.pre else "")

    @property
    def order(self) -> tuple[object, ...]:
        """What sorts as semver's precedence: a prerelease before its release, numbers before words."""
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        return (self.main, not self.pre, parts)


def version(tag: str) -> Version | None:
    """The version that a tag names; parts that are missing are 0. None if it names none.

    >>> str(version("v1.2-rc1")), version("latest")
    ('1.2.0-rc1', None)
    """
    found = _VERSION.fullmatch(tag)
    if found is None or (found["build"] and found["main"].count(".") < 2):
        return None
    main = [*map(int, found["main"].split(".")), 0, 0]
    # semver has no leading zeros, and dates such as 2024.01 are written with them.
    pre = [str(int(part)) if part.isdigit() else part for part in (found["pre"] or "").split(".") if part]
    return Version((main[0], main[1], main[2]), tuple(pre))


def is_range(text: str) -> bool:
    """Whether npm would take it for a range of versions."""
    return bool(text.strip()) and nodesemver.valid_range(text, loose=False) is not None


def matches(tag: str, wanted: str) -> bool:
    """Whether the tag is a version within the range `wanted`.

    As npm has it, a prerelease is within a range only if the range names one of the same major, minor and patch:

    >>> matches("1.3.0-rc1", ">=1.2"), matches("1.3.0-rc2", ">=1.3.0-rc1"), matches("1.3", ">=1.2")
    (False, True, True)
    """
    found = version(tag)
    return found is not None and bool(_range(wanted).test(str(found)))


@lru_cache(maxsize=256)
def _range(text: str) -> "nodesemver.Range":
    return nodesemver.make_range(text, loose=False)
