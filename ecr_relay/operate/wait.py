"""Block until an image is at a destination, for those that must not deploy before."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

from pydantic import Field

from ecr_relay import rules
from ecr_relay.config import Destination, RelayConfig
from ecr_relay.errors import CopyError, Missing, RelayError
from ecr_relay.images import Reference
from ecr_relay.ledger import Target
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.explain import ask_source, held
from ecr_relay.operate.failures import is_passing
from ecr_relay.operate.patience import Patience
from ecr_relay.operate.shapes import Deadline, Shape, TimeOver, at

POLL_S: Final = 2.0
GRACE_S: Final = 30.0
"""What was given up before the waiting began may be starting over: a new push, a redrive. A shorter timeout cuts it."""


class Arrived(Shape):
    """`wait`, when it is there."""

    destination: str
    repository: str = Field(description="the destination's name for it")
    tag: str | None
    digest: str
    image: str = Field(description="what to pull: host, repository and digest")
    seen_at: datetime | None


def wait(
    deployment: Deployment,
    image: Reference,
    destination: str,
    timeout: float | None,
    *,
    say: Callable[[str], None] = lambda _line: None,
) -> Arrived:
    """The destination's own answer counts, not the ledger's: it may have had the image before there was a relay.

    A tag is waited for until the destination has there what the source has. Raises RelayError when the source does not
    have it, when the rules do not have it copied there, when its copy is given up, or when `timeout` (seconds) is over.
    A network that is away is none of these: it is told by `say`, as is what else makes it last.
    """
    deployment.destinations(destination)
    there = deployment.config.destination(destination)
    registry, name = deployment.relay.destination(there), there.repository(image.repository)
    deadline, grace = Deadline(timeout), Deadline(GRACE_S)
    patience, told = Patience(say), False
    begun = deployment.ledger.clock()
    while True:
        digest: str | None = None
        with suppress(Missing), patience.bearing():
            digest = _at_source(deployment, image)
            if (registry.resolve(name, image.tag) == digest) if image.tag else registry.has(name, digest):
                return Arrived(
                    destination=destination,
                    repository=name,
                    tag=image.tag,
                    digest=digest,
                    image=f"{registry.host}/{name}@{digest}",
                    seen_at=at(deployment.ledger.clock()),
                )
            _refuse_unwanted(deployment.config, image, there)
        target = deployment.target(destination, image.repository)
        given_up: tuple[int, str] | None = None
        with patience.bearing():
            given_up = _given_up(deployment, target, digest, image.tag) if digest else None
        if given_up is not None and (given_up[0] >= begun or grace.over or deadline.over):
            raise RelayError(f"{image} was given up: {given_up[1]}")
        if deadline.over:
            why: str | None = None
            with patience.bearing():
                why = held(deployment, destination)
            after = f"{image} is not at {destination} after {timeout:g} s"
            raise TimeOver(f"{after}; {why}" if why else f"{after}; `ecr-relay explain {image}`")
        if given_up is not None and not told:
            told = True
            say(f"{image} was given up before: {given_up[1]}; waiting {GRACE_S:g} s for what may start it over")
        time.sleep(POLL_S)


def _at_source(deployment: Deployment, image: Reference) -> str:
    """Raises CopyError for what passes, or RelayError for what no waiting brings."""
    try:
        digest = ask_source(deployment, image)
    except CopyError as error:
        if is_passing(error):
            raise
        raise RelayError(f"the source cannot be asked for {image}: {type(error).__name__}: {error}") from error
    if digest is None:
        raise RelayError(f"the source does not have {image}, so it will not arrive")
    return digest


def _refuse_unwanted(config: RelayConfig, image: Reference, destination: Destination) -> None:
    """Raises RelayError for what no rule will bring there. A digest may arrive by any of its tags, as another's child,
    or as what refers to another: by whatever rule concerns its repository."""
    if image.tag is not None:
        found = [one.rule for one in rules.ways(config, image.repository, image.tag) if one.destination == destination]
    else:
        found = list(rules.concerning(config, destination, image.repository))
    if any(rule.mode == "copy" for rule in found):
        return
    why = f"only an observing rule selects {image}" if found else f"no rule selects {image}"
    raise RelayError(f"{why} for {destination.name}, so it will not arrive; `ecr-relay explain {image}`")


def _given_up(deployment: Deployment, target: Target, digest: str, tag: str | None) -> tuple[int, str] | None:
    """When (ms), and why."""
    record = deployment.ledger.digests.get(target, digest)
    if record.status == "exhausted":
        return record.failed_at or 0, f"{record.error_class}: {record.error}"
    if tag is not None:
        refused = deployment.ledger.tags.get(target, tag)
        if refused.failed_at is not None:
            return refused.failed_at, f"its tag is refused there: {refused.error_class}: {refused.error}"
    return None
