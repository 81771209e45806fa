"""Globs of repositories and tags, as `fnmatch` knows them: `*` (which matches `/`, too), `?` and `[…]`. Pure."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache

_SPECIAL = re.compile(r"[*?\[]")
_CLASS = r"\[!?+\]?+[^\]]*\]"  # possessive: `[]` without a third is no class
_PARTS = re.compile(rf"\*|\?|{_CLASS}|[^*]", re.DOTALL)


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether one of `globs` matches the whole name."""
    return any(fnmatchcase(name, glob) for glob in globs)


def is_literal(glob: str) -> bool:
    """Whether it can match nothing but itself."""
    return _SPECIAL.search(glob) is None


def lone(glob: str) -> str | None:
    """The first bracket or `!` that is part of no class, and so stands for itself; None if there is none.

    >>> lone("[a"), lone("v[!0-9]*")
    ('[', None)
    """
    return next((part for part in _parts(glob) if part in {"[", "]", "!"}), None)


def covers(outer: str, inner: str) -> bool:
    """Whether `outer` matches all that `inner` does; False where that is too hard to say.

    >>> covers("mirror/*", "mirror/*/app"), covers("*-dev", "*")
    (True, False)
    """
    if outer == inner:
        return True
    # Only a star of the outer one matches what stands for many; so `inner` may be looked at as a text, in which a class
    # is one character that nobody writes.
    text = "".join("\0" if _is_wild(part) else part for part in _parts(inner))
    return not re.search(r"[?\[]", outer) and fnmatchcase(text, outer)


def intersect(one: str, other: str) -> bool:
    """Whether some name may match both; a class such as `[ab]` counts as any character.

    >>> intersect("team/*", "*-dev"), intersect("team/a", "team/b*")
    (True, False)
    """
    a, b = _parts(one), _parts(other)

    @cache
    def meet(i: int, j: int) -> bool:
        if i == len(a) or j == len(b):
            return all(part == "*" for part in (*a[i:], *b[j:]))
        if a[i] == "*":
            return meet(i + 1, j) or (b[j] == "*" and meet(i, j + 1)) or (b[j] != "*" and meet(i, j + 1))
        if b[j] == "*":
            return meet(i, j + 1) or meet(i + 1, j)
        return (a[i] == b[j] or _is_wild(a[i]) or _is_wild(b[j])) and meet(i + 1, j + 1)

    return meet(0, 0)


def _parts(glob: str) -> tuple[str, ...]:
    return tuple(_PARTS.findall(re.sub(r"\*+", "*", glob)))


def _is_wild(part: str) -> bool:
    return part == "?" or len(part) > 1
