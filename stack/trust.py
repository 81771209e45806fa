"""Whom the relay believes by HTTPS, where the configuration names a `ca_bundle`: public authorities and those of the
file, as one file, which the functions' asset and the copier's image hold.
"""

from pathlib import Path
from typing import Final

import botocore

from ecr_relay.config import Deployment

NAME: Final = "ca-bundle.pem"

TASK_ROOT: Final = "/var/task"
"""Where Lambda has a function's code (Lambda developer guide, defined runtime environment variables)."""

_PUBLIC: Final = Path(botocore.__file__).with_name("cacert.pem")
"""Mozilla's, as locked with botocore, which believes them where nothing else is said."""


def files(ca_bundle: str | None) -> dict[str, bytes]:
    """What goes into both assets for the PEM text of the configuration's file; nothing for None."""
    return {NAME: f"{ca_bundle.rstrip()}\n".encode() + _PUBLIC.read_bytes()} if ca_bundle else {}


def environment(deployment: Deployment, folder: str) -> dict[str, str]:
    """By which botocore, and Python's ssl and skopeo, find the file in `folder`; nothing if there is none."""
    names = ("AWS_CA_BUNDLE", "SSL_CERT_FILE") if deployment.ca_bundle else ()
    return dict.fromkeys(names, f"{folder}/{NAME}")
