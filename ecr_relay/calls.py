"""Which calls each program makes of the ledger and of ECR: what the stack grants, and what `doctor` asks about. Pure.

As IAM actions; ListImageReferrers has none of its own, and goes by BatchGetImage (ECR API reference). What only some
configurations ask for is granted by those alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ecr_relay.config import Destination, NewRepository, RelayConfig


@dataclass(frozen=True, slots=True)
class Calls:
    """`source` and `destination` are calls on one repository; `listing` is a call on all of the source's at once, which
    IAM checks against `repository/*`.
    """

    ledger: tuple[str, ...]
    source: tuple[str, ...]
    destination: tuple[str, ...]
    listing: tuple[str, ...] = ()
    makes: bool = False
    """Repositories that are missing at a destination."""
    deletes: bool = False
    """Images at a destination, if a rule propagates that."""
    token: bool = False

    def at(self, config: RelayConfig, destination: Destination) -> tuple[str, ...]:
        """On a repository at `destination`."""
        made = _making(destination.new_repository) if self.makes else ()
        deletes = self.deletes and config.deletes_at(destination)
        deleted = ("ecr:BatchDeleteImage", "ecr:BatchGetImage", "ecr:DescribeImages") if deletes else ()
        return (*self.destination, *made, *deleted)


_LEDGER: Final = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem")

CONSUMER: Final = Calls(
    ledger=_LEDGER,
    source=("ecr:BatchGetImage", "ecr:DescribeImages"),
    destination=("ecr:BatchGetImage", "ecr:PutImage"),
)
RECONCILE: Final = Calls(
    ledger=(*_LEDGER, "dynamodb:BatchGetItem", "dynamodb:DeleteItem"),
    source=("ecr:BatchGetImage", "ecr:DescribeImages"),
    destination=("ecr:DescribeRepositories", "ecr:ListImages"),
    listing=("ecr:DescribeRepositories",),
    deletes=True,
)
COPIER: Final = Calls(
    ledger=_LEDGER,
    source=(
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:DescribeImages",
        "ecr:GetDownloadUrlForLayer",
    ),
    destination=(
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:CompleteLayerUpload",
        "ecr:DescribeRepositories",
        "ecr:GetDownloadUrlForLayer",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
    ),
    makes=True,
    token=True,
)


def _making(wanted: NewRepository) -> Iterator[str]:
    """With a template ECR makes it, in the name of who pushes."""
    yield "ecr:CreateRepository"
    if wanted.lifecycle_policy:
        yield "ecr:PutLifecyclePolicy"
    if wanted.repository_policy:
        yield "ecr:SetRepositoryPolicy"
    policies = wanted.lifecycle_policy or wanted.repository_policy
    if wanted.tags or policies:
        yield "ecr:TagResource"
    if policies:  # until they are set, a tag says so
        yield from ("ecr:ListTagsForResource", "ecr:UntagResource")
