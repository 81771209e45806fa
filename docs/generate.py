"""docs/configuration.md, made of the models in `ecr_relay.config`, and docs/commands.md, made of the commands:
`.venv/bin/python docs/generate.py`.

With `--check` nothing is written, and the exit status is 1 if a file is not what would be: `make lint` asks that.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ecr_relay.cli import reference
from ecr_relay.config import FARGATE_MEMORY_MIB, RelayConfig

DOCS: Final = Path(__file__).parent
HEAD: Final = """# Configuration

<!-- Written by docs/generate.py; do not edit. -->

Every key of `relay.toml`, as the models in `ecr_relay/config/` have it; what they are for, with examples, is in
[configuring.md](configuring.md). A key that is not here is refused. Strings are quoted, also accounts. What stands
behind `string:` is a regular expression that it must match.

"""

TABLES: Final = {
    "RelayConfig": "The whole file",
    "EcrSource": '`[source]`, `type = "ecr"`',
    "OciSource": '`[source]`, `type = "oci"`',
    "RegistryLogin": "`[source.credentials]` of an `oci` source",
    "Destination": "`[[destinations]]`",
    "Credentials": "`credentials`",
    "NewRepository": "`[destinations.new_repository]`",
    "Rule": "`[[rules]]`",
    "Deployment": "`[deployment]`",
    "Network": "`[deployment.network]`",
}
"""Model -> the heading of its table, in the order of a `relay.toml`."""


def configuration() -> str:
    """Every table that a `relay.toml` may have, key by key."""
    schema = RelayConfig.model_json_schema()
    return HEAD + "\n".join(_lines({"RelayConfig": schema, **schema["$defs"]})).rstrip() + "\n"


def _lines(models: dict[str, Any]) -> Iterator[str]:
    for name, heading in TABLES.items():
        model = models[name]
        yield f"## {heading}\n"
        yield f"{model['description']}\n"
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
        for key, field in model["properties"].items():
            cells = (f"`{key}`", _type(field), _default(key, field, model), field["description"])
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""
    yield "## Sizes of a copy task\n"
    yield "| `task_cpu` | `task_memory_mib` |"
    yield "|---|---|"
    for cpu, (least, most, step) in FARGATE_MEMORY_MIB.items():
        yield f"| {cpu} | {least} to {most} in steps of {step} |"


def _type(field: dict[str, Any]) -> str:
    """The type and what of it is allowed; null is what leaving the key out means, and no value."""
    if "oneOf" in field:
        return " or ".join(_type(one) for one in field["oneOf"])
    if "anyOf" in field:
        return _type(next(one for one in field["anyOf"] if one.get("type") != "null"))
    if "$ref" in field:
        heading = TABLES[field["$ref"].rpartition("/")[2]]
        return f"[table](#{anchor(heading)})"
    if values := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{_toml(value)}`" for value in values)
    match field["type"]:
        case "array":
            least = ", at least one" if field.get("minItems") else ""
            return f"list of {_type(field['items'])}{least}"
        case "object":
            return "table of strings"
        case "string" if "pattern" in field:
            return f"string: `{field['pattern']}`"
        case "string" if "maxLength" in field:
            return f"string of {field.get('minLength', 0)} to {field['maxLength']} characters"
        case "integer" | "number" as number:
            return f"{number}, {field['minimum']:g} to {field['maximum']:g}"
        case other:
            return str(other)


def _default(key: str, field: dict[str, Any], model: dict[str, Any]) -> str:
    if key in model.get("required", ()):
        return "required"
    value = field.get("default")
    # That of a table is what its keys' are; nothing at all is said by leaving the key out.
    return "" if value is None or _has_tables(value) else f"`{_toml(value)}`"


def _has_tables(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value))


def _toml(value: Any) -> str:
    return json.dumps(value)  # JSON's strings, numbers, booleans and lists are TOML's, too


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


WRITTEN: Final = {"configuration.md": configuration, "commands.md": reference.text}
"""File in `DOCS` -> what makes it."""


def main(arguments: list[str]) -> int:
    stale = [
        name
        for name, made in WRITTEN.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != made()
    ]
    for name in stale:
        if arguments != ["--check"]:
            (DOCS / name).write_text(WRITTEN[name](), encoding="utf-8")
        else:
            print(f"docs/{name} is not what would be made: run .venv/bin/python docs/generate.py", file=sys.stderr)
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
