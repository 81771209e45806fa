"""A synthesized template, read the way the tests ask about it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ecr_relay.config import parse
from stack.app import build
from stack.bundling import ROOT, BundleFor

Json = dict[str, Any]


@dataclass(frozen=True)
class Synthesized:
    """One cloud assembly: where it lies, and its only template."""

    out: Path

    @cached_property
    def path(self) -> Path:
        [path] = self.out.glob("*.template.json")
        return path

    @cached_property
    def body(self) -> Json:
        body: Json = json.loads(self.path.read_text(encoding="utf-8"))
        return body

    def resources(self, kind: str) -> dict[str, Json]:
        """Properties by logical id."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.body["Resources"].items()
            if resource["Type"] == kind
        }

    def one(self, kind: str, within: str = "") -> tuple[str, Json]:
        """The only resource of a type whose logical id begins with `within`."""
        [found] = [item for item in self.resources(kind).items() if item[0].startswith(within)]
        return found

    def output(self, name: str) -> Any:
        return self.body["Outputs"][name]["Value"]

    def statements(self, within: str) -> list[Json]:
        """What the role of a part may do."""
        _, policy = self.one("AWS::IAM::Policy", within)
        statements: list[Json] = policy["PolicyDocument"]["Statement"]
        return statements

    def asset(self, within: str) -> Path:
        """The directory that a function's code is made of."""
        _, function = self.one("AWS::Lambda::Function", within)
        return self.out / f"asset.{function['Code']['S3Key'].removesuffix('.zip')}"

    @property
    def context(self) -> Path:
        """The directory that the copier's image is built from."""
        assets = json.loads(next(self.out.glob("*.assets.json")).read_text(encoding="utf-8"))
        [image] = assets["dockerImages"].values()
        return self.out / str(image["source"]["directory"])


def synthesize(
    toml: str, out: Path, bundle_for: BundleFor = "local", *, file: Path = ROOT / "relay.toml", forwarder: bool = False
) -> Synthesized:
    """What `toml` names lies beside `file`.

    Raises what the app raises: ConfigError, BundlingError, and RuntimeError for what cdk-nag found."""
    build(parse(toml), out=out, bundle_for=bundle_for, file=file, forwarder=forwarder).synth()
    return Synthesized(out)


def resolved(value: Any) -> Any:
    """`value` with every reference as a made-up string, and the strings that are joined from such joined."""
    if isinstance(value, dict):
        if list(value) == ["Ref"]:
            return f"<{value['Ref']}>"
        if list(value) == ["Fn::GetAtt"]:
            return f"<{'.'.join(value['Fn::GetAtt'])}>"
        if list(value) == ["Fn::Join"]:
            separator, parts = value["Fn::Join"]
            return separator.join(resolved(part) for part in parts)
        return {key: resolved(part) for key, part in value.items()}
    if isinstance(value, list):
        return [resolved(part) for part in value]
    return value


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def as_list(value: Any) -> list[Any]:
    """IAM and friends write one element without its list."""
    return value if isinstance(value, list) else [value]
