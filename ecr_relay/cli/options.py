"""What every command takes, before or after its name: which relay, which credentials, and `--json`."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from ecr_relay.images import Reference
    from ecr_relay.operate.deployment import Deployment

DEFAULT_STACK: Final = "ecr-relay"
_KEY: Final = "ecr_relay."

_F = TypeVar("_F", bound=Callable[..., Any])


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """In the whole run's memory: what stands behind the command wins over what stands before it."""
    if value is not None and value is not False:
        context.meta[_KEY + str(parameter.name)] = value


def _recall(name: str) -> Any:
    return click.get_current_context().meta.get(_KEY + name)


def where(command: _F) -> _F:
    """Which relay, and as whom."""
    for option in reversed(
        (
            click.option(
                "--stack",
                metavar="NAME",
                expose_value=False,
                callback=_remember,
                help=f"A deployed relay, by its stack.  [env: ECR_RELAY_STACK; default: {DEFAULT_STACK}]",
            ),
            click.option(
                "--state",
                metavar="DIR",
                type=click.Path(path_type=Path),
                expose_value=False,
                callback=_remember,
                help="The relay on this machine that `local up --state DIR` runs.",
            ),
            click.option(
                "--region",
                metavar="NAME",
                expose_value=False,
                callback=_remember,
                help="AWS region of the stack.  [env: AWS_REGION, or the profile's]",
            ),
            click.option(
                "--profile",
                metavar="NAME",
                expose_value=False,
                callback=_remember,
                help="AWS profile.  [env: AWS_PROFILE]",
            ),
        )
    ):
        command = option(command)
    return command


def as_json(command: _F) -> _F:
    """`--json`."""
    return click.option(
        "--json",
        "json",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Print JSON instead of a table.",
    )(command)


def common(command: _F) -> _F:
    """Of a command that looks into a relay."""
    return where(as_json(command))


def state() -> Path | None:
    """The state directory that --state named, wherever it stood."""
    found: Path | None = _recall("state")
    return found


def json_wanted() -> bool:
    return bool(_recall("json"))


def deployment() -> "Deployment":
    """The relay that the options name; AWS's environment is set for it until the run ends. Raises NoStack."""
    from ecr_relay.operate.deployment import Deployment, local_relay

    state, stack, region, profile = (_recall(name) for name in ("state", "stack", "region", "profile"))
    if state is not None and (region or profile):
        raise click.UsageError("--state names a relay on this machine; --region and --profile are for AWS")
    aws_environment()
    own = local_relay(state).stack if state is not None else os.environ.get("ECR_RELAY_STACK")
    return Deployment.find(stack or own or DEFAULT_STACK)


def aws_environment() -> None:
    """Make boto3's defaults what the options say, until the run ends."""
    from ecr_relay.operate.deployment import environment, local_relay

    state, region, profile = (_recall(name) for name in ("state", "region", "profile"))
    values: dict[str, str] = {}
    if state is not None:
        values = local_relay(state).environment
    else:
        region = region or os.environ.get("AWS_REGION")  # which boto3 does not read
        if region:
            values["AWS_DEFAULT_REGION"] = region
        if profile:
            values["AWS_PROFILE"] = profile
    click.get_current_context().find_root().with_resource(
        environment(values, alone=state is not None, environ=os.environ)
    )


class ImageType(click.ParamType["Reference"]):
    """`repository[:tag][@digest]`, as the source names it; the source's own host before it is taken off."""

    name = "image"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Reference":
        from ecr_relay.images import Reference

        if isinstance(value, Reference):
            return value
        head, slash, rest = str(value).partition("/")
        name = rest if slash and (":" in head or ".dkr." in head or ".dkr-" in head) else str(value)
        try:
            return Reference.parse(name)
        except ValueError as error:
            self.fail(f"{error}; give REPOSITORY:TAG or REPOSITORY@sha256:…", param, ctx)


class Seconds(click.FloatRange):
    """A finite number of them, of at least `least`."""

    def __init__(self, least: float = 0.001) -> None:
        super().__init__(min=least)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found


def image_argument(command: _F) -> _F:
    return click.argument("image", type=ImageType(), metavar="IMAGE")(command)


def repository_option(text: str) -> Callable[[_F], _F]:
    return click.option("--repository", metavar="R", help=text)


def wants_dead_letters(ids: tuple[str, ...], repository: str | None, all_: bool, *, asked: bool = False) -> None:
    """Wrong usage unless they are named in one way, or in none where the operator is `asked` about all; what a script
    left empty is no name, and no beginning of all."""
    given = bool(ids) + (repository is not None) + all_
    wants_one(given > 0 or asked, "name the dead letters: give IDs, --repository, or --all")
    wants_one(given <= 1, "give only one of IDs, --repository and --all")
    wants_one(all(ids), "an empty ID names no dead letter")
    wants_one(repository != "", "an empty --repository names no dead letter")


def wants_one(condition: bool, text: str) -> None:
    """Wrong usage unless `condition`."""
    if not condition:
        raise click.UsageError(text)
