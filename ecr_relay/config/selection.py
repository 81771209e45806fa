"""`[[rules]]`: which images, where to, and how."""

import re
from functools import lru_cache
from typing import Annotated, Final, Literal, Self

import re2
from pydantic import AfterValidator, Field, model_validator

from ecr_relay import versions
from ecr_relay.config.base import Name, RepositoryGlob, Table, TagGlob
from ecr_relay.images import Reference

ALL_TAGS: Final = "ALL_TAGS"
_LISTED: Final = "images"


@lru_cache(maxsize=256)
def expression(pattern: str) -> "re2._Regexp":
    """`tag_regex` as RE2 has it, which needs time in proportion to the tag's length, whatever the pattern: none can run
    for ever. Raises ValueError that says what is wrong with it."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"{pattern!r} is no RE2 expression: {text} (no backreferences, no lookaround)") from None


def _expression(pattern: str) -> str:
    expression(pattern)
    return pattern


def _range(text: str) -> str:
    if not versions.is_range(text):
        raise ValueError(f"{text!r} is no semver range; allowed: such as '>=1.2 <2', '^1.4', '1.x || 3.x'")
    return text


@lru_cache(maxsize=64)
def image_list(text: str) -> dict[str, frozenset[str] | None]:
    """The Data Transfer Hub plugin's own list: repository -> its tags, None for all. No tag means `latest`; what is
    between entries is a comma, a blank or a line's end, which may be written as `\\n`, as that plugin has it. Blanks
    around a colon do not matter.

    >>> sorted(image_list("ubuntu:14.04, my-repo:ALL_TAGS")["ubuntu"])
    ['14.04']

    Raises ValueError that names the entry that is no image.
    """
    found: dict[str, frozenset[str] | None] = {}
    for entry in re.sub(r"\s*:\s*", ":", text.replace("\\n", " ")).replace(",", " ").split():
        if re.match(r"[^/]*:[^/]*/", entry):
            raise ValueError(f"{entry!r}: an image here is repository:tag, without its registry's host")
        reference = Reference.parse(entry)
        if reference.digest:
            raise ValueError(f"{entry!r}: an image here is repository:tag, without a digest")
        tag = reference.tag or "latest"
        known = found.get(reference.repository, frozenset())
        found[reference.repository] = None if tag == ALL_TAGS or known is None else known | {tag}
    if not found:
        raise ValueError("names no image; allowed: such as 'ubuntu:14.04,golang:1.16,my-repo:ALL_TAGS'")
    return found


def _image_list(text: str) -> str:
    image_list(text)
    return text


class Rule(Table):
    """Selects images. A list of globs selects what one of them matches; an exclude always wins; what is given for tags
    (`tags`, `tag_regex`, `semver`) must all match. For an image and a destination, the first rule that selects it says
    how (`mode`, `deletes`, `referrers`)."""

    images: Annotated[str, AfterValidator(_image_list)] | None = Field(
        default=None,
        description="the Data Transfer Hub plugin's list, instead of `repositories` and `tags`: "
        "`ubuntu:14.04,golang:1.16,my-repo:ALL_TAGS`; no tag means `latest`",
    )
    repositories: tuple[RepositoryGlob, ...] = Field(
        default=("*",),
        min_length=1,
        description="globs of the source's names; `*` matches `/`, too; names, not globs, where the source is `oci`",
    )
    exclude_repositories: tuple[RepositoryGlob, ...] = Field(
        default=(), description="globs; not these, whatever else matches"
    )
    tags: tuple[TagGlob, ...] = Field(
        default=("*",), min_length=1, description="names or globs of tags; `ALL_TAGS` is the same as `*`"
    )
    exclude_tags: tuple[TagGlob, ...] = Field(default=(), description="globs; not these, whatever else matches")
    tag_regex: Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_expression)] | None = Field(
        default=None, description="RE2 expression that the whole tag must match, such as `v[0-9]+[.][0-9]+`"
    )
    semver: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_range)] | None = Field(
        default=None,
        description="range of versions, as npm writes it: `>=1.2 <2`, `^1.4`; of a tag a leading `v` does not "
        "matter, and `1.2` is 1.2.0; a tag that is no version is not selected, nor is a prerelease such as `1.3-rc1`, "
        "unless the range names one of the same version",
    )
    newest: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="the backfill takes only so many tags of a repository; what is pushed is copied all the same, and "
        "what falls out stays",
    )
    newest_by: Literal["pushed", "version"] = Field(
        default="pushed", description="what `newest` goes by; `version` where the source is `oci`, which has no dates"
    )
    untagged: bool = Field(
        default=False,
        description="also images without a tag, of the same repositories; two minutes after the push, so that an index "
        "takes its own along first",
    )
    referrers: bool = Field(
        default=True,
        description="signatures, SBOMs and attestations go with their image, by referrer and by cosign's tags "
        "(`sha256-….sig`, which no other key here selects)",
    )
    deletes: Literal["ignore", "propagate"] = Field(
        default="ignore",
        description="`propagate`: the reconcile removes at the destination what this relay put there and what the "
        "source has not had for a day",
    )
    mode: Literal["copy", "observe"] = Field(
        default="copy", description="`observe`: decide, log and count, and copy nothing"
    )
    destinations: tuple[Name, ...] = Field(default=(), description="names of destinations; default: all")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.images is not None:
            for key in ("repositories", "tags"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{_LISTED} is in place of {key}; leave {key} out, or write it as another rule")
        if self.newest is None and self.newest_by != "pushed":
            raise ValueError("newest_by goes with newest, which says how many")
        if self.mode == "observe" and self.deletes == "propagate":
            raise ValueError('deletes: "propagate" goes with mode = "copy"; what only observes removes nothing')
        return self
