"""What lies in the copy queue: EventBridge's events as AWS words them, and our own envelopes. Pure.

parse(body) -> PushEvent    an image has come to the source
            -> Ignored      a well-formed event that asks nothing of us (a delete, a failed push)
            -> Envelope     ours: one image for one destination
            -> Malformed    raised; nobody can act on it
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ecr_relay.config import EcrSource
from ecr_relay.errors import Malformed
from ecr_relay.images import IMAGE_CONFIG_MEDIA_TYPES, is_digest, is_repository, is_tag, subject_of_tag

VERSION: Final = 1
"""Of the envelope. A newer one is refused, not guessed."""

DEFERRED_MS: Final = 60_000
"""SQS has a deferred message within this time: all tries of a SendMessage, and two clocks that are not the same."""

PUSH_DETAIL_TYPES: Final = ("ECR Image Action", "ECR Referrer Action", "ECR Artifact Action")
"""Any of them may tell of a push: which push is which is not documented, but for archiving, where "ECR Referrer Action"
is a signature's or an SBOM's (https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html)."""

REPLICATION: Final = "ECR Replication Action"
"""AWS's own replication brought an image there; `region` and `account` are those of where it is now."""

PULL_THROUGH: Final = "ECR Pull Through Cache Action"
"""A pull through cache fetched an image; it says `sync-status` where the others say `action-type` and `result`."""

KNOWN: Final = (*PUSH_DETAIL_TYPES, REPLICATION, PULL_THROUGH)

_M = TypeVar("_M", bound=BaseModel)


def detail_types(source: EcrSource) -> tuple[str, ...]:
    """What EventBridge is to hand over of a source: pushes, and what else its configuration asks for."""
    asked = ((REPLICATION, source.replicas), (PULL_THROUGH, source.pull_through))
    return (*PUSH_DETAIL_TYPES, *(name for name, wanted in asked if wanted))


def _checked(name: str, valid: Callable[[str], bool]) -> AfterValidator:
    def check(text: str) -> str:
        if not valid(text):
            raise ValueError(f"{text!r} is no {name}")
        return text

    return AfterValidator(check)


Digest = Annotated[str, _checked("sha256 digest", is_digest)]
Repository = Annotated[str, _checked("repository name", is_repository)]
Tag = Annotated[str, _checked("tag", is_tag)]
Lane = Literal["push", "reconcile"]


class Envelope(BaseModel):
    """One image for one destination. With a tag: make the tag there what it is at the source now; else the digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = VERSION
    lane: Lane
    source: str
    destination: str
    repository: Repository
    tag: Tag | None = None
    digest: Digest
    as_of: int | None = Field(default=None, description="ms since the epoch: the ledger is believed only after it")
    first_seen: int = Field(description="ms since the epoch: when the event happened; deferring keeps it")
    deferred_at: int | None = Field(default=None, description="ms since the epoch: when we last sent it anew, to wait")

    def deferred(self, now: int) -> "Envelope":
        return self.model_copy(update={"deferred_at": now})

    def redriven(self, sent_at: int) -> bool:
        """Whether SQS was sent it, at `sent_at`, by another than one of us that lets it wait."""
        return self.deferred_at is None or sent_at - self.deferred_at > DEFERRED_MS

    def body(self) -> str:
        return self.model_dump_json(exclude_none=True)


@dataclass(frozen=True, slots=True)
class PushEvent:
    """An image has come to a registry: by a push, or, as `detail_type` says, by replication or a pull through cache.

    `tag` is None for a child of an index, and for a push by digest. The media types are None where the event has none:
    they are the manifest's own, and its config's or what it says that it is an artifact of.
    """

    account: str
    region: str
    repository: str
    digest: str
    tag: str | None
    time: datetime
    detail_type: str = PUSH_DETAIL_TYPES[0]
    manifest_media_type: str | None = None
    artifact_media_type: str | None = None

    @property
    def source(self) -> str:
        return f"{self.account}.{self.region}"

    @property
    def first_seen(self) -> int:
        """ms since the epoch; ECR's events have whole seconds."""
        return int(self.time.timestamp() * 1000)

    @property
    def may_refer(self) -> bool:
        """Whether it may be a signature or the like, so that its manifest is worth reading: not what says that it is an
        image, nor what Docker's manifests cannot say."""
        if self.detail_type in PUSH_DETAIL_TYPES[1:]:
            return True
        if "vnd.docker" in (self.manifest_media_type or "") or self.artifact_media_type in IMAGE_CONFIG_MEDIA_TYPES:
            return False
        return self.tag is None or subject_of_tag(self.tag) is not None

    def envelope(self, destination: str, tag: str | None) -> Envelope:
        """The same for one destination, and with a tag that is wanted there."""
        return Envelope(
            lane="push",
            source=self.source,
            destination=destination,
            repository=self.repository,
            tag=tag,
            digest=self.digest,
            first_seen=self.first_seen,
        )


@dataclass(frozen=True, slots=True)
class Ignored:
    reason: str


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{time} is in no year that there is") from None


class _Event(BaseModel):
    detail_type: str = Field(alias="detail-type")
    source: Literal["aws.ecr"]
    account: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    region: str
    time: Annotated[AwareDatetime, AfterValidator(_in_utc)]
    detail: dict[str, Any]


class _Done(BaseModel):
    action_type: str = Field(alias="action-type")
    result: str


class _Synced(BaseModel):
    sync_status: str = Field(alias="sync-status")


class _Image(BaseModel):
    repository_name: Repository = Field(alias="repository-name")
    image_digest: Digest = Field(alias="image-digest")
    image_tag: str | None = Field(default=None, alias="image-tag")
    manifest_media_type: str | None = Field(default=None, alias="manifest-media-type")
    artifact_media_type: str | None = Field(default=None, alias="artifact-media-type")


def parse(body: str) -> PushEvent | Ignored | Envelope:
    """Raises Malformed with a reason that names the field."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Malformed(f"not a JSON object, but {type(data).__name__}")
    if "v" in data:
        return _envelope(data)
    if "detail-type" in data:
        return _event(data)
    raise Malformed("neither an event (no 'detail-type') nor an envelope (no 'v')")


def _envelope(data: dict[str, object]) -> Envelope:
    if data["v"] != VERSION:
        raise Malformed(f"v: {data['v']!r} is an unknown version; this release knows {VERSION}")
    return _validated(Envelope, data)


def _event(data: dict[str, object]) -> PushEvent | Ignored:
    if data["detail-type"] not in KNOWN:
        known = ", ".join(repr(name) for name in KNOWN)
        raise Malformed(f"detail-type: {data['detail-type']!r} is unknown; known: {known}")
    event = _validated(_Event, data)
    # Before the image: what failed may name none that is one.
    if nothing := _asks_nothing(event):
        return Ignored(nothing)
    image = _validated(_Image, event.detail, "detail.")
    tag = image.image_tag or None
    if tag is not None and not is_tag(tag):
        raise Malformed(f"detail.image-tag: {tag!r} is no tag")
    return PushEvent(
        account=event.account,
        region=event.region,
        repository=image.repository_name,
        digest=image.image_digest,
        tag=tag,
        time=event.time,
        detail_type=event.detail_type,
        manifest_media_type=image.manifest_media_type,
        artifact_media_type=image.artifact_media_type,
    )


def _asks_nothing(event: _Event) -> str | None:
    """Why there is nothing to copy for it, if there is not."""
    if event.detail_type == PULL_THROUGH:
        return None if _validated(_Synced, event.detail, "detail.").sync_status == "SUCCESS" else "pull-through-failed"
    done = _validated(_Done, event.detail, "detail.")
    if done.action_type != ("REPLICATE" if event.detail_type == REPLICATION else "PUSH"):
        return f"action-{done.action_type.lower()}"
    if done.result != "SUCCESS":
        return "replication-failed" if event.detail_type == REPLICATION else "push-failed"
    return None


def _validated(model: type[_M], data: object, path: str = "") -> _M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise Malformed(_reason(error, path)) from None


def _reason(error: ValidationError, path: str) -> str:
    return "; ".join(
        f"{path}{'.'.join(map(str, wrong['loc']))}: {wrong['msg'].removeprefix('Value error, ')}"
        for wrong in error.errors()
    )
