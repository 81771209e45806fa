"""What every table of `relay.toml` is made of."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ecr_relay import globs
from ecr_relay.regions import PARTITION_OF_REGION


class Table(BaseModel):
    """A table of the file: no unknown keys, nothing converted, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_SUGGESTED: Final = 2
"""Regions: one letter that is wrong may be of two that are as close."""


def _known_region(region: str) -> str:
    if region not in PARTITION_OF_REGION:
        close = get_close_matches(region, PARTITION_OF_REGION, n=_SUGGESTED)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "allowed: those with ECR, as 'us-east-1'"
        raise ValueError(f"{region!r} is no AWS region; {hint}")
    return region


def _glob_of(what: str, letters: str) -> Callable[[str], str]:
    """What can match nothing is a mistake: an image's whole name, or an expression."""
    place, hint = ("/", "tags have a key of their own") if what == "repository" else ("", "expressions go to tag_regex")
    strange = re.compile(rf"[^{letters}0-9._{place}*?\[\]!-]")

    def check(glob: str) -> str:
        if found := strange.search(glob):
            raise ValueError(f"{glob!r} can match no {what}, since none has {found[0]!r} in its name; {hint}")
        if lone := globs.lone(glob):
            raise ValueError(
                f"{glob!r} can match no {what}: {lone!r} only means something in a whole class, as in [abc]"
            )
        return glob

    return check


Region = Annotated[str, AfterValidator(_known_region)]
Account = Annotated[str, Field(pattern=r"^[0-9]{12}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
RepositoryGlob = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_glob_of("repository", "a-z"))]
TagGlob = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_glob_of("tag", "A-Za-z"))]
SecretArn = Annotated[
    str, Field(pattern=r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+-[A-Za-z0-9]{6}$")
]
KeyArn = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$")]
