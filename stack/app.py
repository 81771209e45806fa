"""The CDK app: one configuration file in, a cloud assembly out. Asks neither AWS nor Docker.

    python -m stack.app [--config FILE] [--beside FILE] [--out DIRECTORY] [--bundle-for lambda|local]
    python -m stack.app --forwarder [--config FILE] [--out DIRECTORY]

Below the CDK command line (`cdk.json`) the same is said with `-c config=FILE`, `-c bundle-for=local` and `--output`.
Exit status 0 for a written assembly, 1 for one that could not be built, 2 for a wrong configuration or wrong usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks

from ecr_relay.config import RelayConfig, parse
from ecr_relay.config.authorities import ca_bundle
from ecr_relay.errors import ConfigError
from stack.bundling import ROOT, BundleFor, BundlingError
from stack.forwarder import ForwarderStack
from stack.relay_stack import RelayStack

CONFIG_VARIABLE: Final = "ECR_RELAY_CONFIG"

_FEATURE_FLAGS: Final = {
    # Here and not in cdk.json, which only the CDK command line reads: the template is the same without it.
    "@aws-cdk/aws-iam:minimizePolicies": True,
    "@aws-cdk/aws-lambda:recognizeLayerVersion": True,
    "@aws-cdk/core:checkSecretUsage": True,
    "@aws-cdk/core:enablePartitionLiterals": True,
    "@aws-cdk/core:explicitStackTags": True,
    "@aws-cdk/core:validateAgainstDefaultRules": True,
    # They hold paths of this machine, differ from one run to the next, and take ten times as long.
    "aws:cdk:disable-creation-stack-traces": True,
}


def build(
    config: RelayConfig,
    *,
    out: Path,
    bundle_for: BundleFor,
    file: Path = ROOT / "relay.toml",
    forwarder: bool = False,
) -> App:
    """The app, with nothing written yet: `synth()` writes the assembly to `out`, or raises with what cdk-nag found.

    One stack: the relay's, or its forwarder's. What `config` names lies beside `file`. Raises ConfigError for what
    cannot be deployed, and BundlingError.
    """
    app = App(outdir=str(out), context=_FEATURE_FLAGS, analytics_reporting=False, stack_traces=False, auto_synth=False)
    if forwarder:
        ForwarderStack(app, config=config)
    else:
        RelayStack(app, config=config, bundle_for=bundle_for, ca_bundle=ca_bundle(config.deployment, file))
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    chosen = _parse(arguments)
    try:
        config = _read(chosen.config)
        app = build(
            config,
            out=chosen.out,
            bundle_for=chosen.bundle_for,
            file=chosen.beside or chosen.config,
            forwarder=chosen.forwarder,
        )
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except BundlingError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        app.synth()
    except RuntimeError as error:
        if not str(error).startswith("ValidationFailed"):
            raise
        print(error, file=sys.stderr)  # the findings themselves CDK has printed already
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    context = App(auto_synth=False).node  # only to read what the CDK command line hands over
    parser = argparse.ArgumentParser(prog="python -m stack.app", description="Synthesize the CloudFormation template.")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=context.try_get_context("config") or os.environ.get(CONFIG_VARIABLE) or _default_config(),
        help="default: relay.toml, or relay.example.toml where there is none",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE",
        help="beside which lie the files that the configuration names; default: the configuration",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        default=os.environ.get("CDK_OUTDIR"),
        help="default: build/cdk.out, or build/forwarder.out",
    )
    parser.add_argument(
        "--forwarder",
        action="store_true",
        help="not the relay, but what forwards it the pushes to a source in another account or region",
    )
    parser.add_argument(
        "--bundle-for",
        choices=get_args(BundleFor),
        default=context.try_get_context("bundle-for") or "lambda",
        help="the platform for which the functions' dependencies are chosen",
    )
    chosen = parser.parse_args(arguments)
    chosen.out = chosen.out or ROOT / "build" / ("forwarder.out" if chosen.forwarder else "cdk.out")
    return chosen


def _default_config() -> Path:
    own = ROOT / "relay.toml"
    return own if own.is_file() else ROOT / "relay.example.toml"


def _read(path: Path) -> RelayConfig:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not valid TOML: no UTF-8 text") from None
    return parse(text, str(path))


if __name__ == "__main__":
    sys.exit(main())
