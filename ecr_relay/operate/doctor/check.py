"""What `doctor` finds."""

from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.shapes import Shape

Result = Literal["fine", "warning", "fault", "unknown"]


class Check(Shape):
    name: str
    result: Result = Field(description="unknown: it could not be looked up, as finding says")
    finding: str
    remedy: str | None = None


Question = Callable[[Deployment], Iterator[Check]]
"""Yields what it finds. What it raises becomes a fault (ours) or unknown (AWS's answer); what it yielded stands."""
