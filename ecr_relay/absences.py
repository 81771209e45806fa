"""Which deletes are propagated: pure, since nothing here is more dangerous than a delete too many.

Removed at a destination is only what this relay put there, what is still as it put it, what a rule says to remove, and
what the source has been without in two complete listings at least a day apart. A listing without a single image is
taken for a listing that failed.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Put:
    """What the ledger says that this relay put at a destination: a tag, or (None) an image without one."""

    tag: str | None
    digest: str
    gone_since: int | None = None
    """When the source was first seen without it, in ms."""


@dataclass(frozen=True, slots=True)
class Absences:
    """What to note, and what to remove."""

    began: tuple[Put, ...] = ()
    ended: tuple[Put, ...] = ()
    remove: tuple[Put, ...] = ()


def absences(
    put: Iterable[Put],
    source: Collection[tuple[str | None, str]],
    there: Collection[tuple[str | None, str]],
    propagates: Callable[[str | None, str], bool],
    now: int,
) -> Absences:
    """`source` and `there` are complete listings of (tag, digest); `propagates` says whether a rule wants a delete of a
    tag or digest propagated; `now` is when the source was listed, in ms."""
    if not source:
        return Absences()
    tags, digests = {tag for tag, _ in source if tag is not None}, {digest for _, digest in source}
    kept = {digest for tag, digest in there if tag is not None}
    began, ended, remove = [], [], []
    for one in put:
        if one.digest in digests if one.tag is None else one.tag in tags:
            if one.gone_since is not None:
                ended.append(one)
        elif one.gone_since is None:
            began.append(one)
        elif (
            now - one.gone_since >= DAY_MS
            and (one.tag, one.digest) in there
            and not (one.tag is None and one.digest in kept)
            and propagates(one.tag, one.digest)
        ):
            remove.append(one)
    return Absences(tuple(began), tuple(ended), tuple(remove))
