"""The secrets that a configuration names, made in the local cloud under the ARNs that it names them by.

A registry of the local cloud takes its account's number for an access key, so what belongs there is known. A login for
a registry that is not ECR is the user's own: it comes from a file that nobody else may read, and lies in MiniStack's
memory until `local up` ends.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecr_relay.config import EcrRegistry, OciSource, RelayConfig
from ecr_relay.errors import ConfigError
from local.deploy import Clients


def named(config: RelayConfig) -> dict[str, EcrRegistry | OciSource]:
    """Secret ARN -> the registry whose credentials it holds."""
    registries = (config.source, *config.destinations)
    return {one.credentials.secret_arn: one for one in registries if one.credentials and one.credentials.secret_arn}


def read(path: Path | None, config: RelayConfig) -> dict[str, str]:
    """What each secret of the configuration is to hold, as JSON, by its ARN; without those that nobody has given.

    `path` is a TOML file with a table for each secret, `["arn:aws:…"]`, of texts. Raises ConfigError, which repeats
    nothing of what it holds, for a file that others may read, and for a secret that the configuration does not name.
    """
    wanted = named(config)
    values = {
        arn: {"access_key_id": registry.account, "secret_access_key": "local"}
        for arn, registry in wanted.items()
        if isinstance(registry, EcrRegistry)
    }
    values |= _given(path) if path else {}
    if unknown := values.keys() - wanted.keys():
        raise ConfigError(f"{path}: the configuration names no secret {min(unknown)!r}")
    return {arn: json.dumps(value) for arn, value in values.items()}


def make(secrets: Mapping[str, str], endpoint: str) -> None:
    """Create them in a local cloud that has none of them."""
    for arn, value in secrets.items():
        # arn:partition:secretsmanager:region:account:secret:name. The service would add six characters of its own to
        # the name, and finds a secret without them, too; so what the ARN ends in is the name here.
        *_, region, account, _, name = arn.split(":", 6)
        Clients(endpoint, account, region)("secretsmanager").create_secret(Name=name, SecretString=value)


def _given(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others may read it: `chmod 600 {path}`")
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError:  # not UTF-8, or not TOML; a word of why could be a word of the secret
        raise ConfigError(f"{path}: not valid TOML") from None
    for arn, value in tables.items():
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise ConfigError(f"{path}: {arn!r}: should be a table of texts, such as username and password")
    return tables
