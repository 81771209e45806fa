"""One image now: its message, put into the copy queue by hand."""

from collections.abc import Sequence
from contextlib import suppress

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from ecr_relay import rules
from ecr_relay.errors import RelayError
from ecr_relay.images import Reference
from ecr_relay.messages import Envelope
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.explain import at_source, held
from ecr_relay.operate.shapes import Shape


class Ordered(Shape):
    """`copy`."""

    repository: str
    tag: str | None
    digest: str
    destinations: list[str] = Field(description="each has a message of its own")
    forced: bool
    held: dict[str, str] = Field(
        description="by destination: what keeps its message waiting, if anything does: paused, or refuses everything; "
        "nothing where that may not be asked"
    )


def order(
    deployment: Deployment, image: Reference, *, destinations: Sequence[str] = (), force: bool = False
) -> Ordered:
    """Enqueue it for the destinations that rules select, or those of them that are named.

    `force`: the ledger is not believed, so that each destination is asked whether it has the image. Raises RelayError
    if the source does not have it, or no rule would have it copied: the consumer would drop it.
    """
    digest, answer = at_source(deployment, image)
    if answer:
        raise RelayError(f"the source cannot be asked for {image}: {answer}")
    if digest is None:
        raise RelayError(f"the source does not have {image}")
    config = deployment.config
    for name in destinations:
        deployment.destinations(name)
    ways = rules.ways(config, image.repository, image.tag)
    asked = [one for one in ways if not destinations or one.destination.name in destinations]
    wanted = [one.destination.name for one in asked if one.rule.mode == "copy"]
    if not wanted:
        why = f"rules[{asked[0].index}] only observes {image}" if asked else f"no rule selects {image}"
        raise RelayError(f"{why}; `ecr-relay explain {image}`, `ecr-relay config show`")
    now = deployment.ledger.clock()
    deployment.queue.send(
        Envelope(
            lane="push",
            source=config.source.id,
            destination=name,
            repository=image.repository,
            tag=image.tag,
            digest=digest,
            as_of=now if force else None,
            first_seen=now,
        )
        for name in wanted
    )
    waiting: dict[str, str] = {}
    with suppress(RelayError, ClientError, BotoCoreError):  # it is enqueued, also where nobody may ask what holds it
        waiting = {name: waits for name in wanted if (waits := held(deployment, name)) is not None}
    return Ordered(
        repository=image.repository, tag=image.tag, digest=digest, destinations=wanted, forced=force, held=waiting
    )
