"""The command reference, made of the commands' own help and of the models that `--json` prints.

`docs/generate.py` writes it to docs/commands.md.
"""

import inspect
import types
from collections.abc import Iterator
from typing import Any, Final, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel

from ecr_relay.cli import app
from ecr_relay.config import RelayConfig
from ecr_relay.operate import (
    configuration,
    deadletters,
    doctor,
    explain,
    images,
    log,
    order,
    pause,
    redrive,
    status,
    sync,
    verify,
    wait,
)

ANSWERS: Final[dict[str, tuple[type[BaseModel], ...]]] = {
    "config check": (configuration.Checked,),
    "config push": (configuration.Pushed,),
    "config show": (RelayConfig,),
    "copy": (order.Ordered,),
    "dlq list": (deadletters.DeadLetters,),
    "dlq purge": (redrive.Purged,),
    "dlq redrive": (redrive.Redriven,),
    "dlq show": (deadletters.Opened,),
    "doctor": (doctor.Diagnosis,),
    "explain": (explain.Explanation,),
    "images": (images.Images,),
    "logs": (log.CopyLogs,),
    "pause": (pause.Consuming,),
    "resume": (pause.Consuming,),
    "status": (status.Status,),
    "sync": (sync.Synced, sync.Plan),
    "verify": (verify.Verified,),
    "wait": (wait.Arrived,),
}
"""What each command prints with `--json`. `sync` prints the second with `--dry-run`."""

_HEAD: Final = """\
# Commands

<!-- Written by docs/generate.py; do not edit. -->

`ecr-relay` needs the `cli` extra. A deployed relay is found by its stack's name (`--stack`, `ECR_RELAY_STACK`, default
`ecr-relay`) in the region and account of the AWS environment (`--region`, `--profile`); one on this machine by the
directory that `local up --state DIR` was given. These options stand before or after the command.

| exit status | means |
|---|---|
| 0 | fine |
| 1 | failed: what went wrong is one line on stderr |
| 2 | wrong usage, or input that cannot be used: a wrong file, an id, destination or profile that is none, no region |
| 130 | interrupted |
| 141 | whoever read the output has closed it (`| head`) |

Completion of commands and options, by the shell: put one of these into its start file.

```
eval "$(_ECR_RELAY_COMPLETE=bash_source ecr-relay)"   # ~/.bashrc
eval "$(_ECR_RELAY_COMPLETE=zsh_source ecr-relay)"    # ~/.zshrc
_ECR_RELAY_COMPLETE=fish_source ecr-relay | source    # ~/.config/fish/config.fish
```

`--json` prints one document on stdout (`status --watch --json`: one a line). Its keys are always there; null is "not
known" or "not so". Times are UTC in ISO 8601, ages and delays seconds. Keys may be added; none is removed or changes
its meaning within a major version.
"""


def text() -> str:
    """The whole file."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    shapes: dict[str, type[BaseModel]] = {}
    root = click.Context(app.cli, info_name=app.NAME, **app.SETTINGS)
    for path, command in _commands(app.cli, ""):
        yield f"## {path}\n"
        context = click.Context(command, root, info_name=path, max_content_width=80, terminal_width=80)
        yield f"```\n{command.get_help(context)}\n```\n"
        for model in ANSWERS.get(path, ()):
            if model is RelayConfig:
                yield "`--json`: the configuration's own keys, as in `relay.toml`, with every default.\n"
                continue
            yield f"`--json`: [{model.__name__}](#{model.__name__.lower()})\n"
            _collect(model, shapes)
    yield "## Shapes\n"
    for name, model in sorted(shapes.items()):
        yield f"### {name}\n"
        doc = inspect.getdoc(model) if model.__doc__ else None
        if doc and not doc.startswith("`"):
            yield f"{doc}\n"
        yield "| key | type | |"
        yield "|---|---|---|"
        for key, field in model.model_fields.items():
            yield f"| `{key}` | {_type(field.annotation)} | {field.description or ''} |".replace("|  |", "| |")
        yield ""


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def _collect(model: type[BaseModel], shapes: dict[str, type[BaseModel]]) -> None:
    shapes[model.__name__] = model
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            if inner.__name__ not in shapes:
                _collect(inner, shapes)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if argument is types.NoneType else _type(argument) for argument in arguments)
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "object"
    if issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "datetime": "time"}[
        annotation.__name__
    ]
