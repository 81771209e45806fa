"""The command tree, and how every run of it ends: an exit status, at most a few lines on stderr, never a traceback."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click

from ecr_relay.cli import options
from ecr_relay.cli.commands import config, deadletters, image, local, observe, steer, sync
from ecr_relay.cli.screen import ReaderGone

NAME = "ecr-relay"
SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_INTERRUPTED = 130
_PIPE_CLOSED = 141


@click.group(
    context_settings=SETTINGS,
    epilog="""\b
Exit status: 0 fine; 1 failed; 2 wrong usage, or input that cannot be used.
--json prints one JSON document on stdout; docs/commands.md has its shapes.
ECR_RELAY_DEBUG=1 shows tracebacks.
Completion: eval "$(_ECR_RELAY_COMPLETE=bash_source ecr-relay)" (or zsh_source).""",
)
@options.where
@click.version_option(package_name="ecr-relay", prog_name=NAME)
def cli() -> None:
    """Watch and steer ecr-relay, which copies container images into Amazon ECR as they are pushed.

    A deployed relay is found by its stack's name (--stack), one on this machine by its state directory (--state).
    """


for command in (
    observe.status,
    observe.images,
    sync.sync,
    deadletters.dlq,
    image.explain,
    image.logs,
    observe.verify,
    image.copy,
    image.wait,
    steer.pause,
    steer.resume,
    steer.doctor,
    config.config,
    local.local,
):
    cli.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """One command line; its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for a terminal that has no UTF-8
    try:
        try:
            status = cli.main(list(arguments), prog_name=NAME, standalone_mode=False)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                return _INTERRUPTED
            click.echo("ecr-relay: nothing was done", err=True)
            return 1
        return status if isinstance(status, int) else 0
    except (BrokenPipeError, ReaderGone):
        _forget_stdout()
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - an operator gets a sentence, whatever it was
        return _failed(error)


def _failed(error: Exception) -> int:
    from ecr_relay.operate.failures import is_usage, sentence

    if os.environ.get("ECR_RELAY_DEBUG"):
        traceback.print_exception(error)
    text = sentence(error)
    if text is None:
        text = (
            f"this is a fault in ecr-relay itself: {type(error).__name__}: {error}\n"
            "set ECR_RELAY_DEBUG=1 to see where, and please report it"
        )
    for line in text.splitlines():
        click.echo(f"{NAME}: {line}", err=True)
    return 2 if is_usage(error) else 1


def _forget_stdout() -> None:
    """Whoever read it has gone; the interpreter must not find that out again when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
