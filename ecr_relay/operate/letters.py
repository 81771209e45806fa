"""Dead letters as messages: what each is about, which are meant, and which belong together. It asks nobody."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ecr_relay import globs, rules
from ecr_relay.errors import ConfigError, Malformed, RelayError
from ecr_relay.ledger import Target
from ecr_relay.messages import Envelope, Ignored, PushEvent, parse
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import Unusable
from ecr_relay.operate.mailbox import Letter


@dataclass(frozen=True, slots=True)
class Subject:
    """What a letter is about; `target` only where it is about one destination."""

    letter: Letter
    message: PushEvent | Envelope | None
    target: Target | None

    @property
    def image(self) -> tuple[Any, ...]:
        """Equal for letters of the same image and destination; what nobody understands is like nothing else."""
        if self.message is None:
            return (self.letter.id,)
        message = self.message
        return (self.target, message.source, message.repository, message.tag, message.digest)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to go. So many of `letters` as `along` says were not named, but are of the image of one that was."""

    letters: list[Letter]
    along: int = 0


def parsed(letter: Letter) -> PushEvent | Envelope | Ignored | None:
    """What a letter says; None if it is malformed."""
    with suppress(Malformed):
        return parse(letter.body)
    return None


def subject(deployment: Deployment, letter: Letter) -> Subject:
    """An event is about one destination where the rules, as they are now, want it at one."""
    message = parsed(letter)
    if message is None or isinstance(message, Ignored):
        return Subject(letter, None, None)
    if isinstance(message, Envelope):
        return Subject(letter, message, Target(message.source, message.destination, message.repository))
    try:
        wanted = rules.destinations(deployment.config, message.repository, message.tag)
    except ConfigError:
        wanted = ()
    target = Target(message.source, wanted[0].name, message.repository) if len(wanted) == 1 else None
    return Subject(letter, message, target)


def together(deployment: Deployment, letters: Sequence[Letter]) -> list[list[Letter]]:
    """Those of the same image and destination in one list, as they stood; lists in the order of their last ones.

    Each reconcile tries anew what was given up, and leaves one more letter of it where it fails again.
    """
    found: dict[tuple[Any, ...], list[tuple[int, Letter]]] = {}
    for position, letter in enumerate(letters):
        found.setdefault(subject(deployment, letter).image, []).append((position, letter))
    lists = sorted(found.values(), key=lambda same: same[-1][0])
    return [[letter for _, letter in same] for same in lists]


def named(letters: Sequence[Letter], ids: Sequence[str]) -> list[Letter]:
    """By ids or their beginnings. Raises Unusable where one names no letter, or several."""
    found: dict[str, Letter] = {}
    for wanted in ids:
        matches = [letter for letter in letters if letter.id.startswith(wanted)]
        if not matches:
            raise Unusable(f"no dead letter {wanted!r}: `ecr-relay dlq list` shows what there is")
        if len(matches) > 1:
            raise Unusable(f"{len(matches)} dead letters begin with {wanted!r}: give more of the id")
        found[matches[0].id] = matches[0]
    return list(found.values())


def of_repositories(letters: Sequence[Letter], repository: str) -> list[Letter]:
    """Those about a repository of the source that the glob `repository` matches; none that nobody can read."""
    names = ((letter, getattr(parsed(letter), "repository", None)) for letter in letters)
    return [letter for letter, name in names if name is not None and globs.matches(name, [repository])]


def choose(
    deployment: Deployment, letters: Sequence[Letter], ids: Sequence[str] = (), repository: str | None = None
) -> Chosen:
    """By ids, and with each what is of the same image and destination; or by a glob of repositories; or all.

    Raises Unusable for an id that names none or several, RelayError for a glob that selects nothing.
    """
    if ids:
        wanted = {letter.id for letter in named(letters, ids)}
        images = (same for same in together(deployment, letters) if any(letter.id in wanted for letter in same))
        taken = [letter for same in images for letter in same]
        return Chosen(taken, along=len(taken) - len(wanted))
    if repository is None:
        return Chosen(list(letters))
    taken = of_repositories(letters, repository)
    if not taken:
        raise RelayError(f"no dead letters of {repository}; {len(letters)} others: `ecr-relay dlq list`")
    return Chosen(taken)
