"""What lies in the copy queue: EventBridge's events as AWS words them, and our own envelopes. Pure.

parse(body) -> PushEvent    an image was pushed to the source
            -> Ignored      a well-formed event that asks nothing of us (a delete, a failed push)
            -> Envelope     ours: one image for one destination
            -> Malformed    raised; nobody can act on it
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ecr_relay.errors import Malformed
from ecr_relay.images import is_digest, is_repository, is_tag

VERSION: Final = 1
"""Of the envelope. A newer one is refused, not guessed."""

PUSH_DETAIL_TYPES: Final = ("ECR Image Action",)


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

    def body(self) -> str:
        return self.model_dump_json(exclude_none=True)


@dataclass(frozen=True, slots=True)
class PushEvent:
    """A successful PUSH. `tag` is None for a child of an index, and for a push by digest."""

    account: str
    region: str
    repository: str
    digest: str
    tag: str | None
    time: datetime

    @property
    def source(self) -> str:
        return f"{self.account}.{self.region}"

    @property
    def first_seen(self) -> int:
        """ms since the epoch; ECR's events have whole seconds."""
        return int(self.time.timestamp() * 1000)

    def envelope(self, destination: str) -> Envelope:
        """The same for one destination."""
        return Envelope(
            lane="push",
            source=self.source,
            destination=destination,
            repository=self.repository,
            tag=self.tag,
            digest=self.digest,
            first_seen=self.first_seen,
        )


@dataclass(frozen=True, slots=True)
class Ignored:
    reason: str


class _Detail(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    result: str
    action_type: str = Field(alias="action-type")
    repository_name: Repository = Field(alias="repository-name")
    image_digest: Digest = Field(alias="image-digest")
    image_tag: str | None = Field(default=None, alias="image-tag")


class _Event(BaseModel):
    detail_type: str = Field(alias="detail-type")
    source: Literal["aws.ecr"]
    account: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    region: str
    time: AwareDatetime
    detail: _Detail


def parse(body: str) -> PushEvent | Ignored | Envelope:
    """Raises Malformed with a reason that names the field."""
    try:
        data = json.loads(body)
    except ValueError as error:
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
    try:
        return Envelope.model_validate(data)
    except ValidationError as error:
        raise Malformed(_reason(error)) from None


def _event(data: dict[str, object]) -> PushEvent | Ignored:
    if data["detail-type"] not in PUSH_DETAIL_TYPES:
        known = ", ".join(repr(name) for name in PUSH_DETAIL_TYPES)
        raise Malformed(f"detail-type: {data['detail-type']!r} is unknown; known: {known}")
    try:
        event = _Event.model_validate(data)
    except ValidationError as error:
        raise Malformed(_reason(error)) from None
    detail = event.detail
    if detail.action_type != "PUSH":
        return Ignored(f"action-{detail.action_type.lower()}")
    if detail.result != "SUCCESS":
        return Ignored("push-failed")
    tag = detail.image_tag or None
    if tag is not None and not is_tag(tag):
        raise Malformed(f"detail.image-tag: {tag!r} is no tag")
    return PushEvent(
        account=event.account,
        region=event.region,
        repository=detail.repository_name,
        digest=detail.image_digest,
        tag=tag,
        time=event.time.astimezone(UTC),
    )


def _reason(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg'].removeprefix('Value error, ')}" for wrong in error.errors()
    )
