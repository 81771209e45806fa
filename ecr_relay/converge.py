"""Make a tag at a destination what it is at the source now: the one routine, for the consumer and the copier.

The source is read under the tag's lock, and who finds it locked keeps its message and looks again; so the last to
commit has read the source after every message was sent. See `ledger.tags`.
"""

from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from ecr_relay.config import Destination
from ecr_relay.errors import Conflict, CopyError, Missing, TagTaken
from ecr_relay.ledger import DigestRecord, Ledger, TagRecord, Target
from ecr_relay.registries import Registry, Writable


@dataclass(frozen=True, slots=True)
class Applied:
    """Committed: the destination's tag has `digest`."""

    digest: str
    moved: bool
    """False if it was there already."""
    overwrote: str | None = None
    """What somebody else had put there."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Somebody else's `digest` is under this tag, and stays, as the configuration says."""

    digest: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Another is at this tag, it took too long, or PutImage's quota is spoken for: look again later."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The source has no such tag any more."""


@dataclass(frozen=True, slots=True)
class NeedsCopy:
    """The source's tag has `digest`, seen there at `seen_at` (ms), and the destination does not have that yet."""

    digest: str
    seen_at: int


@dataclass(frozen=True, slots=True)
class JustCopied:
    """What the caller has just copied: it is put for now even if the tag has moved on, or a tag that moves faster than
    a copy takes would never move at the destination."""

    digest: str
    seen_at: int


Outcome = Applied | Kept | Busy | Gone | NeedsCopy

TRIES: Final = 3
TURN_S: Final = 10.0
"""How long a tag's put waits for its turn in PutImage's quota; the lock must outlast it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A repository on both sides, and where the ledger keeps what it knows of it."""

    source: Registry
    source_repository: str
    destination: Writable
    destination_repository: str
    settings: Destination
    target: Target


def converge(
    ledger: Ledger, place: Place, tag: str, *, as_of: int | None = None, just_copied: JustCopied | None = None
) -> Outcome:
    """`as_of` as in `DigestRecord.believed`.

    Raises TagTaken (noted in the tag's record: permanent), or another CopyError, which is noted nowhere.
    """
    for _ in range(TRIES):
        held = ledger.tags.acquire(place.target, tag, uuid4().hex)
        if held is None:
            return Busy()
        outcome = _with_lock(ledger, place, tag, held, as_of, just_copied)
        if outcome is not None:
            return outcome
        # The lock was lost before a put had landed: what is there now may be old, so look at once.
    return Busy()


def _with_lock(
    ledger: Ledger, place: Place, tag: str, held: TagRecord, as_of: int | None, just_copied: JustCopied | None
) -> Outcome | None:
    try:
        return _under_lock(ledger, place, tag, held, as_of, just_copied)
    except _NotNow:
        ledger.tags.release(place.target, tag, held)
        return Busy()
    except CopyError as error:
        if isinstance(error, TagTaken):
            ledger.tags.fail(place.target, tag, error)
        ledger.tags.release(place.target, tag, held)
        raise


def _under_lock(
    ledger: Ledger, place: Place, tag: str, held: TagRecord, as_of: int | None, just_copied: JustCopied | None
) -> Outcome | None:
    """None when the lock was lost before a put had landed."""
    while ledger.tags.held(held):
        seen_at = ledger.clock()
        digest = place.source.resolve(place.source_repository, tag)
        if digest is None:
            ledger.tags.release(place.target, tag, held)
            return Gone()
        there = place.destination.resolve(place.destination_repository, tag)
        foreign = there != digest and held.foreign(there)
        if foreign and just_copied is not None:
            break  # the message decides, and counts it
        if foreign and place.settings.on_conflict != "overwrite":
            if place.settings.on_conflict == "fail":
                name = f"{place.destination_repository}:{tag}"
                raise Conflict(f"somebody else has put {there} under {name}, where the source has {digest}")
            ledger.tags.release(place.target, tag, held)
            return Kept(there or "")
        record = copied(ledger, place, digest, as_of)
        if record is None:
            if just_copied is not None and just_copied.seen_at > held.seen_at:
                if there != just_copied.digest:
                    _put(ledger, place, tag, held, just_copied.digest)
                if not ledger.tags.put_for_now(place.target, tag, held, just_copied.digest, just_copied.seen_at):
                    ledger.tags.doubt(place.target, tag)
                    return None
            else:
                ledger.tags.release(place.target, tag, held)
            return NeedsCopy(digest, seen_at)
        try:
            moved = there != digest and _put(ledger, place, tag, held, digest)
        except Missing:
            # The destination has lost what the ledger says it has: it must be copied again.
            ledger.digests.forget(record)
            continue
        if ledger.tags.commit(place.target, tag, held, digest, seen_at):
            return Applied(digest, moved, there if foreign else None)
        if not moved:
            return Busy()
        ledger.tags.doubt(place.target, tag)
        return None
    ledger.tags.release(place.target, tag, held)
    return Busy()


def copied(ledger: Ledger, place: Place, digest: str, as_of: int | None) -> DigestRecord | None:
    """The digest's record, if the destination has it."""
    record = ledger.digests.get(place.target, digest)
    if record.believed(as_of):
        return record
    # Unknown to us, or copied too long ago for one who saw it missing: ask the destination, and believe that.
    if record.status in ("absent", "copied") and place.destination.has(place.destination_repository, digest):
        return ledger.digests.present(record)
    return None


def _put(ledger: Ledger, place: Place, tag: str, held: TagRecord, digest: str) -> bool:
    turn = ledger.quota.reserve(place.settings.id, 1, place.settings.put_image_per_second, TURN_S)
    if turn is None:
        raise _NotNow
    ledger.sleep(turn)
    if not ledger.tags.held(held) or not ledger.tags.intend(place.target, tag, held, digest):
        raise _NotNow
    place.destination.put_tag(place.destination_repository, digest, tag)
    return True


class _NotNow(Exception):
    """PutImage's quota is spoken for, or the lock is nearly over."""
