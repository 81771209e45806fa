"""The account's default event bus: `Image Relayed` and `Image Relay Failed`, for whoever waits for an image.

Best effort: a bus that does not answer fails no message. At least once: what ends an invocation right after an outcome
brings its message back, and that is told again.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field, field_serializer

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

SOURCE: Final = "ecr-relay"
RELAYED: Final = "Image Relayed"
FAILED: Final = "Image Relay Failed"

_BATCH: Final = 10
"""PutEvents takes 10 entries (EventBridge quotas)."""

_log = logging.getLogger(__name__)


class Announcement(BaseModel):
    """The `detail` of both events. A key is always there; null: not known, or not so."""

    model_config = ConfigDict(frozen=True)

    how: Literal["copied", "retagged", "overwrote", "joined", "failed"] = Field(
        description="overwrote: a tag that somebody else had moved there; joined: by a run that was copying it before; "
        "failed: given up, and now a dead letter"
    )
    lane: Literal["push", "reconcile"]
    source: str = Field(description="the source registry: account.region")
    destination: str = Field(description="the destination's name in relay.toml")
    repository: str = Field(description="at the source")
    destination_repository: str | None = Field(description="at the destination; null: no longer configured")
    tag: str | None
    digest: str
    first_seen: int = Field(description="when its push happened, or the reconcile found it; ISO 8601 on the bus")
    lag_milliseconds: int = Field(description="from first_seen to the arrival, or to the end of the last attempt")
    run: str | None = Field(default=None, description="the copy task's run; null for a retag")
    message_id: str = Field(description="of the last message; that of the dead letter")
    error_class: str | None = None
    error: str | None = None

    @field_serializer("first_seen")
    def _iso(self, milliseconds: int) -> str:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")

    @property
    def detail_type(self) -> str:
        return FAILED if self.how == "failed" else RELAYED


class Bus:
    def __init__(self, client: "EventBridgeClient") -> None:
        self._client = client

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Put them on the bus, ten a call. What is refused is logged, and raises nothing."""
        for start in range(0, len(announcements), _BATCH):
            batch = announcements[start : start + _BATCH]
            entries: list[Any] = [
                {"Source": SOURCE, "DetailType": entry.detail_type, "Detail": entry.model_dump_json()}
                for entry in batch
            ]
            try:
                answer = self._client.put_events(Entries=entries)
            except (ClientError, BotoCoreError) as error:
                _log.warning("not announced", extra={"count": len(batch), "error": str(error)})
                continue
            for entry, result in zip(batch, answer["Entries"], strict=True):
                if "ErrorCode" in result:
                    error_text = f"{result['ErrorCode']}: {result.get('ErrorMessage', '')}"
                    _log.warning("not announced", extra={"message_id": entry.message_id, "error": error_text})
