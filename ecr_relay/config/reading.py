"""From text to a model: every mistake is a line that names the key by its path and says what is allowed there."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ecr_relay.errors import ConfigError

_M = TypeVar("_M", bound=BaseModel)

_SUBSETS: Final = (
    "a subset of an index's platforms is another index, with another digest, which no signature vouches for; so an "
    "image is copied whole, or not at all"
)
_REFUSED: Final = {"platform": _SUBSETS, "platforms": _SUBSETS, "architectures": _SUBSETS}
"""Keys that people look for, and that there is a reason not to have."""
_KINDS: Final = {"source": ("ecr", "oci")}
"""Tables of which there are several kinds: pydantic puts the kind into the path, where the file has none."""
_WORDS: Final = {
    "string_type": "should be a text, in quotes",
    "tuple_type": "should be a list, in brackets",
    "dict_type": "should be a table",
    "model_type": "should be a table",
    "bool_type": "should be true or false, without quotes",
    "int_type": "should be a whole number, without quotes",
    "float_type": "should be a number, without quotes",
    "too_short": "needs at least {min_length} entry",
    "too_long": "takes at most {max_length} entries",
}
"""What a TOML file has, where pydantic speaks of Python's types."""


def validated(model: type[_M], text: str, name: str) -> _M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        found = error.errors()
        lines = [f"{name}: {_line(model, wrong)}" for wrong in found if not _follows(wrong, found)]
        raise ConfigError("\n".join(lines)) from None


def _follows(wrong: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether it only says that a list is too short, because its items have mistakes of their own."""
    location = wrong["loc"]
    return wrong["type"] == "too_short" and any(
        len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in found
    )


def _line(model: type[BaseModel], wrong: ErrorDetails) -> str:
    location = _location(wrong)
    path = re.sub(r"\.\[", "[", ".".join(f"[{part}]" if isinstance(part, int) else part for part in location))
    if wrong["type"] == "extra_forbidden":
        if why := _REFUSED.get(str(location[-1])):
            return f"{path}: {why}"
        allowed = sorted(_fields(model, wrong["loc"][:-1]))
        close = get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{path}: unknown key; {hint}allowed: {', '.join(allowed)}"
    message = wrong["msg"].removeprefix("Value error, ")
    if wrong["type"] == "union_tag_invalid":
        return f"{path}.type: {wrong['ctx']['tag']!r} is no kind of {path}; allowed: {wrong['ctx']['expected_tags']}"
    if wrong["type"] == "missing":
        return f"{path}: missing; this key is required"
    if wrong["type"] == "string_pattern_mismatch":
        message = f"{wrong['input']!r} does not match {wrong['ctx']['pattern']}"
    elif words := _WORDS.get(wrong["type"]):
        message = f"{words.format_map(wrong.get('ctx', {}))}, not {wrong['input']!r}"
    elif not path or wrong["type"] == "value_error":
        return f"{path}: {message}" if path else message
    else:
        message = f"{message[0].lower()}{message[1:]}, not {wrong['input']!r}"
    return f"{path}: {message}"


def _location(wrong: ErrorDetails) -> tuple[int | str, ...]:
    """Where it stands in the file."""
    table, *rest = wrong["loc"] or ("",)
    return (table, *(rest[1:] if rest and rest[0] in _KINDS.get(str(table), ()) else rest)) if table else ()


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """The keys that are allowed in the table at pydantic's `location`."""
    kind = None
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            kinds = list(_models(model.model_fields[part].annotation))
            model, kind = kinds[0], kinds
        elif kind and isinstance(part, str):
            model = next(one for one in kind if part in get_args(one.model_fields["type"].annotation))
    return set(model.model_fields)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
