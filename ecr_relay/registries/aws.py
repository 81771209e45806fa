"""How AWS's APIs are called for a registry, and the one place where what boto3 raises becomes a CopyError."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ParamValidationError,
    ReadTimeoutError,
)

from ecr_relay.errors import CopyError, Permanent, RegistryDown, Transient, classify

CLIENT: Final = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 4},
    tcp_keepalive=True,
    user_agent_extra="ecr-relay",
)
"""For everything but PutImage: the SDK's is the one layer that retries."""

PUT_CLIENT: Final = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 1},
    tcp_keepalive=True,
    user_agent_extra="ecr-relay",
)
"""For PutImage under a tag's lock: what could still land when the lock is gone must not be sent again."""

# Calls that are about who we are: refused, they are refused for every image.
_IDENTITY: Final = {"AssumeRole", "GetSecretValue", "GetAuthorizationToken"}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """What boto3 raises becomes a CopyError. `what` begins its text: "ECR PutImage of a in b"."""
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        reason = f"{details.get('Code', 'unknown')}: {details.get('Message', 'no message')}"
        if error.operation_name in _IDENTITY:
            kind: type[CopyError] = RegistryDown
            if error.operation_name not in what:  # asked for by the SDK on the way
                reason = f"{error.operation_name}: {reason}"
        else:
            kind = classify(reason)
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500:
                kind = Transient
        raise kind(f"{what}: {reason}") from error
    except (ReadTimeoutError, ConnectionClosedError, IncompleteReadError) as error:
        raise Transient(f"{what}: {error}") from error
    except ParamValidationError as error:
        raise Permanent(f"{what}: {' '.join(str(error).split())}") from error
    except BotoCoreError as error:  # no connection, no credentials
        raise RegistryDown(f"{what}: {error}") from error


def code(error: BaseException | None) -> str | None:
    """AWS's own code of what a CopyError was made of (its `__cause__`); None for anything else."""
    return error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
