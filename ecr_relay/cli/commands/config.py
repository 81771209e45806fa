"""`ecr-relay config`: relay.toml."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from rich.console import Console

_FILE = click.Path(path_type=Path)


@click.group()
def config() -> None:
    """Check, show and publish the configuration."""


@config.command()
@click.argument("file", type=_FILE, metavar="FILE")
@options.as_json
def check(file: Path) -> None:
    """Say whether FILE is a valid relay.toml, asking nothing of AWS.

    Each mistake is a line on stderr: the key's path, and what is allowed there. Exit status 2 if there is one.

    \b
    Examples:
      ecr-relay config check relay.toml && make deploy
    """
    from ecr_relay.errors import ConfigError
    from ecr_relay.operate import configuration

    try:
        answer = configuration.check(file)
    except (ConfigError, OSError) as error:
        raise _unusable(error) from None

    def render(console: "Console") -> None:
        screen.say(
            console,
            f"{answer.file} is fine: {answer.source} to {', '.join(answer.destinations)}, "
            f"{screen.count(answer.rules, 'rule')}, {answer.characters} of 8192 characters",
        )

    screen.emit(answer, render)


@config.command()
@click.option("--file", metavar="FILE", type=_FILE, help="Show this file instead, asking nothing of AWS.")
@options.common
def show(file: Path | None) -> None:
    """Print the configuration in force, every default written out, as a relay.toml.

    It is what the functions work by: the SSM parameter that the deployment and `config push` write. With --json, the
    same keys as a JSON object.

    \b
    Examples:
      ecr-relay config show > relay.toml
      ecr-relay config show --json | jq '.rules[].repositories'
    """
    from ecr_relay.errors import ConfigError
    from ecr_relay.operate import configuration

    if file is None:
        effective = options.deployment().config
    else:
        try:
            effective = configuration.read(file)
        except (ConfigError, OSError) as error:
            raise _unusable(error) from None
    if options.json_wanted():
        screen.write(json.dumps(configuration.shown(effective), indent=2, ensure_ascii=False))
    else:
        screen.write(configuration.to_toml(effective), end="")


@config.command()
@click.argument("file", type=_FILE, metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@options.common
def push(file: Path, dry_run: bool) -> None:
    """Publish FILE's rules to a deployed relay, without a deployment.

    What needs a deployment is refused, and nothing is changed then: another source, anything under [deployment], a
    destination whose permissions the stack does not have (a new one; another region, account, prefix, credentials or
    key of an old one). The functions work by the new configuration within a minute; what no rule wanted until then,
    or one only observed, is copied at once when it is pushed, and a sync goes by the new rules at once.

    \b
    Examples:
      ecr-relay config push relay.toml --dry-run
      ecr-relay config push relay.toml
    """
    from ecr_relay.errors import ConfigError
    from ecr_relay.operate import configuration

    try:
        configuration.read(file)
    except (ConfigError, OSError) as error:
        raise _unusable(error) from None
    answer = configuration.push(options.deployment(), file, dry_run=dry_run)

    def render(console: "Console") -> None:
        if not answer.changed:
            screen.say(console, f"{answer.parameter} says that already; nothing was written")
            return
        would = "would change" if dry_run else "changed"
        screen.say(console, f"{answer.parameter}: {would}:")
        for key in answer.changed:
            screen.say(console, f"  {key}")
        if not dry_run:
            screen.say(
                console,
                f"in effect within {answer.effective_within_seconds} seconds; at once for a sync, and for pushes that "
                "no rule had copied",
            )

    screen.emit(answer, render)


def _unusable(error: Exception) -> Exception:
    """A file that is wrong is wrong usage, here: exit status 2."""
    from ecr_relay.operate.failures import Unusable, sentence

    return Unusable(sentence(error) or str(error))
