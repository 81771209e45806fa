"""The file that `[deployment] ca_bundle` names. It is read where a file is checked or deployed, and never by what runs,
which has it in its asset: so it is no part of parsing.
"""

import re
from pathlib import Path
from typing import Final

from ecr_relay.config.deployment import Deployment
from ecr_relay.config.registries import certificates
from ecr_relay.errors import ConfigError

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_CERTIFICATE: Final = re.compile(_BEGIN + rb"[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def ca_bundle(deployment: Deployment, file: Path) -> str | None:
    """The certificates that `file`, a relay.toml that says `deployment`, wants believed: PEM, without what stands
    between them. None if it names none. Raises ConfigError, a line that names the key, for what cannot be used.
    """
    if deployment.ca_bundle is None:
        return None
    path = file.parent / deployment.ca_bundle
    try:
        return _certificates(path.read_bytes())
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError as error:
        why = str(error)
    raise ConfigError(f"{file}: deployment.ca_bundle: {path}: {why}")


def _certificates(content: bytes) -> str:
    """Raises ValueError, also if only one of several is damaged."""
    if b"PRIVATE KEY-----" in content:  # it would lie in the functions' code and in the image
        raise ValueError("holds a private key; allowed: certificates alone")
    found = _CERTIFICATE.findall(content)
    if len(found) < content.count(_BEGIN):
        raise ValueError("a certificate in it is damaged")
    return certificates("".join(f"{each.decode()}\n" for each in found))
