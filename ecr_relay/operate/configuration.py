"""The configuration: check a file, show what is in force, publish what needs no deployment."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field

from ecr_relay.config import Destination, EcrRegistry, RelayConfig, parse
from ecr_relay.config.authorities import ca_bundle
from ecr_relay.errors import RelayError
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import Unusable
from ecr_relay.operate.shapes import Shape
from ecr_relay.relay import CONFIG_AGE_S

_STANDARD_LIMIT: Final = 4096
"""Characters of a standard SSM parameter; an advanced one holds more, and is charged for."""


class Checked(Shape):
    """`config check`, when nothing is wrong."""

    file: str
    source: str
    destinations: list[str]
    rules: int
    characters: int = Field(description="as an SSM parameter, which holds 8192")


class Pushed(Shape):
    parameter: str
    changed: list[str] = Field(description="the keys that differ from what was in force; empty: nothing was written")
    effective_within_seconds: int = Field(description="for what no rule had copied until then, at once")


class NeedsDeployment(RelayError):
    """The file differs from what is deployed in something that only a deployment can change."""


def read(path: Path) -> RelayConfig:
    """Raises ConfigError, a line a mistake, or Unusable for a file that is no text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Unusable(f"{path}: no UTF-8 text") from None
    return parse(text, str(path))


def check(path: Path) -> Checked:
    """Raises as `read` does; also for a file that it names."""
    config = read(path)
    ca_bundle(config.deployment, path)
    return Checked(
        file=str(path),
        source=config.source.id,
        destinations=[destination.name for destination in config.destinations],
        rules=len(config.rules),
        characters=len(config.to_parameter()),
    )


def push(deployment: Deployment, path: Path, *, dry_run: bool = False) -> Pushed:
    """Publish a file's configuration. Raises as `read` does, or NeedsDeployment, and has then changed nothing."""
    new, old = read(path), deployment.config
    reasons = list(needs_deployment(old, new))
    if reasons:
        raise NeedsDeployment(
            "\n".join([*(f"{path}: {reason}" for reason in reasons), "deploy it (`make deploy`); nothing was changed"])
        )
    changed = sorted(_differing(_flat(old), _flat(new)))
    if changed and not dry_run:
        text = new.to_parameter()
        arguments: dict[str, Any] = {"Tier": "Advanced"} if len(text) > _STANDARD_LIMIT else {}
        deployment.ssm.put_parameter(
            Name=deployment.outputs.config_parameter, Value=text, Type="String", Overwrite=True, **arguments
        )
    return Pushed(parameter=deployment.outputs.config_parameter, changed=changed, effective_within_seconds=CONFIG_AGE_S)


def needs_deployment(old: RelayConfig, new: RelayConfig) -> Iterator[str]:
    """What of `new` is beyond what the stack of `old` was built for: its rule, its policies, its tasks."""
    for key in sorted(_differing(_flat(old.source), _flat(new.source))):
        yield f"source.{key}: changed; events and permissions are the stack's"
    for key in sorted(_differing(_flat(old.deployment), _flat(new.deployment))):
        yield f"deployment.{key}: changed"
    granted = {_grant(old, destination) for destination in old.destinations}
    for index, destination in enumerate(new.destinations):
        if _grant(new, destination) not in granted:
            yield (
                f"destinations[{index}]: {destination.name!r} is new, or its region, account, prefix, target, "
                "credentials, endpoint or key changed, or whether it has policies, tags or deletes; permissions are "
                "the stack's"
            )


def _grant(config: RelayConfig, destination: Destination) -> str:
    """What the stack's policies say about a destination, and no more."""
    registry = EcrRegistry.model_validate(destination.model_dump(include=set(EcrRegistry.model_fields)))
    wanted = destination.new_repository
    asked = [bool(one) for one in (wanted.lifecycle_policy, wanted.repository_policy, wanted.tags)]
    return json.dumps(
        [registry.model_dump(), destination.pattern, wanted.kms_key, *asked, config.deletes_at(destination)]
    )


def _flat(model: BaseModel) -> dict[str, Any]:
    """By path: what a TOML file would have."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{path}.{name}" if path else name)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for index, inner in enumerate(value):
                walk(inner, f"{path}[{index}]")
        else:
            flat[path] = value

    walk(model.model_dump(mode="json", exclude_none=True), "")
    return flat


def _differing(old: dict[str, Any], new: dict[str, Any]) -> set[str]:
    return {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}


def shown(config: RelayConfig) -> dict[str, Any]:
    """All keys with their defaults, as JSON has them, without those that another key is in place of."""
    values = config.model_dump(mode="json")
    for rule in values["rules"]:
        if rule["images"] is not None:
            del rule["repositories"], rule["tags"]  # "*" beside a list reads like everything
    return values


def to_toml(config: RelayConfig) -> str:
    """A `relay.toml` that says the same, with every default written out. `parse` is its inverse."""
    values = _without_nulls(shown(config))
    return "\n\n".join(_tables(values, "")) + "\n"


def _tables(values: dict[str, Any], path: str, head: str = "") -> Iterator[str]:
    inner = {name: value for name, value in values.items() if _is_table(value) or _is_tables(value)}
    lines = [f"{_key(name)} = {_value(value)}" for name, value in values.items() if name not in inner]
    if lines or head:
        yield "\n".join([*([head] if head else []), *lines])
    for name, value in inner.items():
        below = f"{path}.{_key(name)}" if path else _key(name)
        if isinstance(value, dict):
            yield from _tables(value, below, f"[{below}]")
        else:
            for element in value:
                yield from _tables(element, below, f"[[{below}]]")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _value(name)


def _value(value: Any) -> str:
    # JSON's strings, numbers, booleans and arrays are TOML's, too; but DEL must be escaped there.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
