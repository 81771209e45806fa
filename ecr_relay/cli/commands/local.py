"""`ecr-relay local`: the relay on this machine."""

import sys
from pathlib import Path

import click

from ecr_relay.cli import options
from ecr_relay.errors import RelayError


@click.group()
def local() -> None:
    """Run the whole relay on this machine, for trying it."""


@local.command()
@click.option(
    "--state",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep logs and endpoints.json here; other commands find the relay by it. Default: a folder that goes at the "
    "end.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A relay.toml. Default: one source, one destination in another region.",
)
@click.option(
    "--secrets",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A TOML file that nobody else may read, with what the secrets hold that the relay.toml names.",
)
def up(state: Path | None, config: Path | None, secrets: Path | None) -> None:
    """Start it, and run it until interrupted.

    The template that would be deployed is deployed to a local cloud instead, with the same code. When all is ready,
    one line of JSON says where everything is; it is in DIR/endpoints.json, too:

    \b
      aws_endpoint_url, region, account_id, source_registry, destination_registries,
      queue_url, dlq_url, ledger_table, consumer_function, reconcile_function, cluster, log_dir,
      stack_name

    An ECS cluster that FILE names is made, and so are the secrets that it names: those for ECR by themselves, and a
    login for another registry from the --secrets file, a table for each:

    \b
      ["arn:aws:secretsmanager:eu-west-1:111122223333:secret:hub-AbCdEf"]
      username = "me"
      password = "..."

    Each start is a new cloud: other ports, empty registries, queues and ledger. What an earlier one held is gone.

    Push to source_registry with any client (skopeo, crane, docker, oras), and the image appears in every destination.

    \b
    Examples:
      ecr-relay local up --state .ecr-relay
      ecr-relay local up --state .ecr-relay --config relay.toml --secrets secrets.toml
      ecr-relay --state .ecr-relay status --watch
    """
    try:
        from local.up import main
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "local":
            reason = "it runs from a checkout of ecr-relay, and this is an installed copy"
        else:
            reason = f"it needs {error.name}, which the checkout's own environment has"
        raise RelayError(f"`local up`: {reason}; there, `make local` does all that is needed") from None
    sys.exit(main(state or options.state(), config, secrets))
