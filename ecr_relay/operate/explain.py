"""Why an image is where it is: the rules, both registries and the ledger, and what follows from them."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import Field

from ecr_relay import rules
from ecr_relay.absences import DAY_MS
from ecr_relay.config import Destination, RelayConfig
from ecr_relay.errors import CopyError, Permanent
from ecr_relay.images import Reference
from ecr_relay.ledger import DigestRecord, TagRecord
from ecr_relay.ledger.digests import ATTEMPTS
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import Unusable
from ecr_relay.operate.pause import may_consume
from ecr_relay.operate.shapes import Shape, at, log_stream, task_id
from ecr_relay.reconcile import deletes


class Place(Shape):
    """One destination's part of it."""

    destination: str
    repository: str = Field(description="the destination's name for it")
    selected_by: list[int] = Field(description="indexes into the configuration's rules; empty: it is not copied here")
    digest: str | None = Field(description="what is there now")
    there: bool | None = Field(description="whether that is what the source has; null: one of them does not answer")
    answer: str | None = Field(description="why this registry could not be asked")
    status: str = Field(description="of the digest in the ledger")
    attempts: int
    first_seen: datetime | None
    verified_at: datetime | None
    failed_at: datetime | None
    error_class: str | None
    error: str | None
    tag_digest: str | None = Field(description="what the ledger says that the tag has there")
    tag_error_class: str | None = Field(description="TagTaken or Conflict, if it refuses this tag for good")
    tag_error: str | None = Field(description="why it does")
    run: str | None
    task: str | None
    log_stream: str | None
    next: str = Field(description="what happens next, or what to do")


class Explanation(Shape):
    repository: str
    tag: str | None
    digest: str | None = Field(description="what the source has; with a digest in IMAGE, that one if it is there")
    answer: str | None = Field(description="why the source could not be asked")
    places: list[Place]


def explain(deployment: Deployment, image: Reference) -> Explanation:
    """`image` needs a tag or a digest. Registries that refuse are part of the answer, and no error."""
    digest, answer = at_source(deployment, image)
    places = [_place(deployment, image, destination, digest, answer) for destination in deployment.config.destinations]
    return Explanation(repository=image.repository, tag=image.tag, digest=digest, answer=answer, places=places)


def at_source(deployment: Deployment, image: Reference) -> tuple[str | None, str | None]:
    """What the source has for `image`, or why it could not be asked. Raises Unusable without tag and digest."""
    try:
        return ask_source(deployment, image), None
    except CopyError as error:
        return None, f"{type(error).__name__}: {error}"


def ask_source(deployment: Deployment, image: Reference) -> str | None:
    """What the source has for `image`. Raises CopyError, or Unusable without tag and digest."""
    source = deployment.relay.source
    if image.digest is not None:
        return image.digest if source.has(image.repository, image.digest) else None
    return source.resolve(image.repository, needs_tag(image))


def needs_tag(image: Reference) -> str:
    """The tag. Raises Unusable if there is none."""
    if image.tag is None:
        raise Unusable(f"{str(image)!r} has neither tag nor digest: give {image.repository}:TAG, or @sha256:…")
    return image.tag


def _place(
    deployment: Deployment, image: Reference, destination: Destination, digest: str | None, answer: str | None
) -> Place:
    ledger, name = deployment.ledger, destination.repository(image.repository)
    target = deployment.target(destination.name, image.repository)
    tag = ledger.tags.get(target, image.tag) if image.tag is not None else TagRecord()
    known = digest or image.digest or tag.digest
    record = ledger.digests.get(target, known) if known else DigestRecord(target, "")
    selected = _selecting(deployment.config, image, destination)
    registry, refusal, found = deployment.relay.destination(destination), None, None
    try:
        if image.tag is not None:
            found = registry.resolve(name, image.tag)
        elif image.digest is not None and registry.has(name, image.digest):
            found = image.digest
    except CopyError as error:
        refusal = f"{type(error).__name__}: {error}"
    there = None if answer or refusal else digest is not None and found == digest
    run = ledger.runs.get(record.run) if record.run else None
    facts = _Facts(selected, digest, found, answer, refusal, record, tag)
    return Place(
        destination=destination.name,
        repository=name,
        selected_by=selected,
        digest=found,
        there=there,
        answer=refusal,
        status=record.status,
        attempts=record.attempts,
        first_seen=at(record.first_seen),
        verified_at=at(record.verified_at),
        failed_at=at(record.failed_at),
        error_class=record.error_class,
        error=record.error,
        tag_digest=tag.digest,
        tag_error_class=tag.error_class if tag.failed_at is not None else None,
        tag_error=tag.error if tag.failed_at is not None else None,
        run=record.run,
        task=task_id(run),
        log_stream=log_stream(run),
        next=_next(deployment, image, destination, facts),
    )


def _selecting(config: RelayConfig, image: Reference, destination: Destination) -> list[int]:
    """The rules that want it there. Without a tag it is an image without one."""
    return [
        index
        for index, rule in enumerate(config.rules)
        if destination in rules.destinations(config.model_copy(update={"rules": (rule,)}), image.repository, image.tag)
    ]


@dataclass(frozen=True, slots=True)
class _Facts:
    selected: list[int]
    digest: str | None
    found: str | None
    answer: str | None
    refusal: str | None
    record: DigestRecord
    tag: TagRecord


def _next(deployment: Deployment, image: Reference, destination: Destination, facts: _Facts) -> str:
    if facts.found and facts.digest is None and not facts.answer and None in (image.tag, image.digest):
        return _only_there(deployment, image, destination, facts)
    if not facts.selected:
        if rules.is_ring(destination, image.repository):
            return "nothing: it looks like a copy that comes back, and would go round for ever"
        kind = "no rule selects it" if image.tag else "no rule wants images without a tag"
        return f"nothing: {kind} for this destination"
    if facts.answer:
        return "not known: the source could not be asked"
    if facts.digest is None:
        return "nothing: the source does not have it"
    if facts.found == facts.digest:
        return "nothing: it is there"
    if all(deployment.config.rules[index].mode == "observe" for index in facts.selected):
        return f"nothing: rules[{facts.selected[0]}] only observes"
    foreign = facts.tag.foreign(facts.found)
    if destination.on_conflict == "keep" and foreign:
        return 'nothing: somebody else has put another image under this tag, and on_conflict = "keep"'
    again = (
        f"then `ecr-relay copy {image}`, or, while its dead letter is there, "
        f"`ecr-relay dlq redrive --repository {image.repository}`"
    )
    if facts.tag.failed_at is not None:
        return f"given up: the destination refuses this tag; remove it there, {again}"
    if destination.on_conflict == "fail" and foreign:
        return (
            "it fails, when its message comes or a reconcile finds it: somebody else has put another image under this "
            'tag, and on_conflict = "fail"'
        )
    match facts.record.status:
        case "copying":
            return f"run {facts.record.run} copies it"
        case "exhausted":
            return f"given up; mend what the error says, {again}"
    unseen = facts.found is None and facts.refusal is None
    if unseen and (archived := _archived(deployment, image, destination, facts.digest)):
        return archived
    waits = held(deployment, destination.name)
    if waits is not None:
        return waits
    match facts.record.status:
        case "failed":
            return f"attempt {facts.record.attempts} of {ATTEMPTS} failed; the next comes within minutes"
        case "waiting" if facts.record.interruptions:
            return f"interrupted {facts.record.interruptions} times in a row; it is tried again within minutes"
        case "waiting":
            return "it is copied when its message comes again, within minutes"
        case "copied" if facts.found is not None or image.tag:
            return "its tag is put when its message comes again, or by the next reconcile"
    return f"its message is on its way, or the next reconcile finds it; `ecr-relay copy {image}` if it is urgent"


def _only_there(deployment: Deployment, image: Reference, destination: Destination, facts: _Facts) -> str:
    """What becomes of it there, now that the source is without it."""
    place = deployment.relay.place(destination, image.repository)
    try:
        why = deletes.stays(deployment.relay, place, image.tag, facts.found or "", facts.tag, facts.record)
    except CopyError as error:
        return f"not known: a registry could not be asked: {type(error).__name__}: {error}"
    if why is not None:
        return f"nothing: the source does not have it, and it stays there: {why}"
    since = facts.tag.gone_since if image.tag is not None else facts.record.gone_since
    if since is None:
        return "removed there by the second reconcile that finds the source without it, a day or more after the first"
    due = at(since + DAY_MS)
    return (
        f"removed there by the first reconcile after {due:%Y-%m-%d %H:%M} UTC, unless the source has it again by then"
    )


def _archived(deployment: Deployment, image: Reference, destination: Destination, digest: str) -> str | None:
    """That the destination has it, and cannot give it, if that is so."""
    registry = deployment.relay.destination(destination)
    try:
        registry.manifest(destination.repository(image.repository), digest)
    except Permanent as error:
        return f"nothing: {error}; or `ecr-relay copy {image} --force` brings it back"
    except CopyError:
        pass  # it does not answer now, and has not said that it is archived
    return None


def held(deployment: Deployment, destination: str) -> str | None:
    """What keeps all of a destination's images waiting, if anything does."""
    if may_consume(deployment) is False:
        return "it waits: the relay is paused; `ecr-relay resume`"
    since = at(deployment.ledger.notes.paused(destination))
    if since is not None:
        when = f"{since:%Y-%m-%d %H:%M} UTC"
        return f"it waits: {destination} is paused since {when}; `ecr-relay resume --destination {destination}`"
    breaker = deployment.ledger.notes.breaker(destination)
    if breaker is not None:
        return f"it waits, and tries again by itself: a registry refuses everything: {breaker.reason}"
    return None
