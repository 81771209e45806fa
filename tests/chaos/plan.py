"""What a run does, all of it from its seed: images, pushes, tag moves, kills and storms. Pure.

Only times are the machine's: when a push ends, which process happens to live when a kill is due, which request is the
hundredth. So a seed that broke something breaks it again in most runs, not in all.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["single", "index", "schema2", "artifact", "long"]
Victim = Literal["copier", "consumer"]
Where = Literal["source", "west", "api"]
WHERE: Final[tuple[Where, ...]] = ("source", "west", "api")

MOVING_TAGS: Final = ("latest", "stable", "edge")
IMAGES_A_REPOSITORY: Final = 10
CONSUMER_SHARE: Final = 0.4
"""Consumers are killed in this first part of the run only: what each of them held is hidden for the queue's visibility
timeout, and a slot that was taken for a launch that never came is free after five minutes."""
FAULT_SHARE: Final = 0.9
"""The last storm begins in this part."""

LONG_SHARE: Final = 0.06
"""Of the images: a `long` one has a layer that the source hands out so slowly that no consumer waits for it."""
LONG_APART_S: Final = 1.2
"""They are pushed one after the other, each for a batch and a task of its own, so that all slots are taken."""

# (kind, weight) of the others.
_KINDS: Final[tuple[tuple[Kind, int], ...]] = (
    ("single", 77),
    ("index", 8),
    ("schema2", 5),
    ("artifact", 4),
)

# Calls at which a process is killed, before they are passed on or after they were answered, unknown to the caller.
COPIER_CALLS: Final = (
    *("api UpdateItem", "api PutItem", "api GetItem", "api BatchGetImage", "api PutImage", "api GetAuthorizationToken"),
    *("source GET blob", "west POST upload", "west PUT upload", "west PUT manifest", "west HEAD blob"),
)
CONSUMER_CALLS: Final = (
    *("api RunTask", "api RunTask", "api UpdateItem", "api PutItem", "api GetItem", "api Query", "api PutImage"),
    *("api SendMessage", "api ChangeMessageVisibility", "api DescribeTasks", "api BatchGetImage"),
)


@dataclass(frozen=True, slots=True)
class Image:
    number: int
    repository: str
    kind: Kind
    broken: bool = False
    """A layer of it is deleted at the source as soon as it is pushed."""

    @property
    def tag(self) -> str:
        """Its own, which never moves."""
        return f"v{self.number}"


@dataclass(frozen=True, slots=True)
class Push:
    """`image` is pushed under its own tag, by skopeo. `at` is in seconds since the begin, here and below."""

    at: float
    image: Image


@dataclass(frozen=True, slots=True)
class Move:
    """`tag` of the image's repository is given to `image`, which was pushed before."""

    at: float
    tag: str
    image: Image


@dataclass(frozen=True, slots=True)
class Kill:
    """One process of ours ends: at once, one of those alive by `pick` of [0, 1); or the next to make `call`."""

    at: float
    victim: Victim
    signal: Literal["KILL", "TERM"] = "KILL"
    pick: float = 0.0
    call: str | None = None
    answered: bool = False
    """Whether the call still has its effect."""


@dataclass(frozen=True, slots=True)
class Storm:
    """For a while a share of the requests to `where` goes wrong; `service` is one of the API's, if that is it."""

    at: float
    seconds: float
    where: Where
    share: float
    kinds: tuple[str, ...]
    service: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    seconds: float
    """How long pushes and faults go on."""
    images: tuple[Image, ...]
    actions: tuple[Push | Move, ...]
    kills: tuple[Kill, ...]
    storms: tuple[Storm, ...]

    @property
    def moves(self) -> int:
        return sum(isinstance(action, Move) for action in self.actions)

    @property
    def broken(self) -> tuple[Image, ...]:
        return tuple(image for image in self.images if image.broken)


def make(seed: int, images: int, moves: int, seconds: float, broken: int = 5) -> Plan:
    """The plan of a seed; the same arguments give the same plan. Raises ValueError for fewer than 10 images."""
    if images < 2 * broken:
        raise ValueError(f"{images} images are too few for {broken} broken ones: at least {2 * broken}")
    rng = random.Random(f"plan {seed}")  # noqa: S311 - a schedule, no secret
    made = _images(rng, images, broken)
    pushes = _pushes(rng, made, seconds)
    return Plan(
        seed=seed,
        seconds=seconds,
        images=made,
        actions=tuple(sorted([*pushes, *_moves(rng, pushes, moves, seconds)], key=lambda action: action.at)),
        kills=_kills(rng, images, seconds),
        storms=_storms(rng, seconds),
    )


def _images(rng: random.Random, count: int, broken: int) -> tuple[Image, ...]:
    repositories = [f"chaos/r{number:02}" for number in range(max(2, count // IMAGES_A_REPOSITORY))]
    kinds, weights = zip(*_KINDS, strict=True)
    # The first image of each repository is whole and quick, so that tags can move early.
    chosen = rng.sample(range(len(repositories), count), broken + round(LONG_SHARE * count))
    bad, long = set(chosen[:broken]), set(chosen[broken:])
    return tuple(
        Image(
            number,
            repositories[number % len(repositories)],
            "single" if number in bad else "long" if number in long else rng.choices(kinds, weights)[0],
            broken=number in bad,
        )
        for number in range(count)
    )


def _pushes(rng: random.Random, images: Sequence[Image], seconds: float) -> list[Push]:
    """In bursts, as builds come; the first of each repository comes early, and the long ones come in a row."""
    bursts = sorted(rng.uniform(0.05, 0.95) * seconds for _ in range(max(3, int(seconds / 6))))
    next_long = rng.uniform(CONSUMER_SHARE, 0.5) * seconds
    seen: set[str] = set()
    pushes = []
    for image in images:
        if image.repository not in seen:
            seen.add(image.repository)
            at = rng.uniform(0, 0.08) * seconds
        elif image.broken:
            at = rng.uniform(0.1, 0.6) * seconds
        elif image.kind == "long":
            at = next_long
            next_long += LONG_APART_S
        else:
            at = rng.choice(bursts) + rng.uniform(0, 1.5)
        pushes.append(Push(at, image))
    return pushes


def _moves(rng: random.Random, pushes: Sequence[Push], count: int, seconds: float) -> list[Move]:
    """Single ones, often of what was pushed a moment ago, and series that are faster than any copy, back included."""
    whole: dict[str, list[Push]] = {}
    for push in sorted(pushes, key=lambda push: push.at):
        if not push.image.broken:
            whole.setdefault(push.image.repository, []).append(push)
    names = sorted(whole)
    moves: list[Move] = []
    while len(moves) < count:
        there, tag = whole[rng.choice(names)], rng.choice(MOVING_TAGS)
        at = rng.uniform(0.1, 1.0) * seconds
        for _ in range(rng.randint(3, 6) if rng.random() < 0.1 else 1):
            known = [push for push in there if push.at < at]
            if known and len(moves) < count:
                image = known[-1].image if rng.random() < 0.4 else rng.choice(known).image
                moves.append(Move(at, tag, image))
            at += rng.uniform(0.1, 0.8)
    return _moving(rng, whole, sorted(moves, key=lambda move: move.at))


def _moving(rng: random.Random, whole: dict[str, list[Push]], moves: list[Move]) -> list[Move]:
    """What would give a tag what it has gives it something else; where there is nothing else, it gives a new tag."""
    has: dict[tuple[str, str], Image] = {}
    moved: list[Move] = []
    for move in moves:
        image, key = move.image, (move.image.repository, move.tag)
        if has.get(key) == image:
            others = [push.image for push in whole[image.repository] if push.at < move.at and push.image != image]
            if not others:
                moved.append(Move(move.at, f"alias-{len(moved)}", image))
                continue
            image = rng.choice(others)
        has[key] = image
        moved.append(Move(move.at, move.tag, image))
    return moved


def _kills(rng: random.Random, images: int, seconds: float) -> tuple[Kill, ...]:
    """About one for five images."""

    def number(share: float) -> int:
        return max(1, round(images * share))

    early, late = CONSUMER_SHARE * seconds, seconds
    kills = [Kill(rng.uniform(5, late), "copier", "KILL", rng.random()) for _ in range(number(0.05))]
    kills += [Kill(rng.uniform(5, late), "copier", "TERM", rng.random()) for _ in range(number(0.04))]
    kills += [Kill(rng.uniform(5, early), "consumer", "KILL", rng.random()) for _ in range(number(0.02))]
    kills += [
        Kill(rng.uniform(5, late), "copier", call=rng.choice(COPIER_CALLS), answered=rng.random() < 0.5)
        for _ in range(number(0.05))
    ]
    kills += [
        Kill(rng.uniform(5, early), "consumer", call=rng.choice(CONSUMER_CALLS), answered=rng.random() < 0.5)
        for _ in range(number(0.04))
    ]
    return tuple(sorted(kills, key=lambda kill: kill.at))


_STORMS: Final[tuple[tuple[Where, float, tuple[str, ...], str], ...]] = (
    ("west", 0.5, ("429",), ""),
    ("west", 0.3, ("500", "503", "cut before", "lost answer"), ""),
    ("source", 0.4, ("429", "503"), ""),
    ("source", 0.3, ("cut before", "cut answer"), ""),
    ("api", 0.6, ("throttled",), "ecr"),
    ("api", 0.5, ("500", "lost answer"), "ecr"),
    ("api", 0.6, ("throttled", "500", "lost answer"), "ecs"),
    ("api", 0.4, ("throttled", "500", "lost answer"), "dynamodb"),
    ("api", 0.5, ("500", "lost answer"), "sqs"),
)


def _storms(rng: random.Random, seconds: float) -> tuple[Storm, ...]:
    """One of each kind, of 3 to 6 s."""
    storms = [
        Storm(rng.uniform(0.1, FAULT_SHARE) * seconds, rng.uniform(3, 6), where, share, kinds, service)
        for where, share, kinds, service in _STORMS
    ]
    return tuple(sorted(storms, key=lambda storm: storm.at))
