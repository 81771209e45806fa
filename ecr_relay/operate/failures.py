"""What went wrong, in a sentence that an operator can act on: where, why, and what to do."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import urllib3.exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from ecr_relay.errors import RegistryDown, RelayError, Transient

DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "KMSAccessDeniedException"}
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_UNKNOWN_KEY = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_GONE = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "ParameterNotFound",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
    }
)


class Unusable(RelayError):
    """What the operator gave cannot be used: a wrong file, an id that names nothing or too much. Exit status 2."""


def is_usage(error: BaseException) -> bool:
    """Whether the command line or the environment is to be put right, and no trying again helps. Exit status 2."""
    return isinstance(error, Unusable | NoRegionError | ProfileNotFound)


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed soon, with nothing changed: the network, throttling, the service's own trouble.

    Not so for credentials, permissions and certificates, whichever way they were found wanting.
    """
    match error:
        case Transient():
            return True
        case RegistryDown():
            return error.__cause__ is not None and is_passing(error.__cause__)
        case ClientError():
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
            return status >= HTTPStatus.INTERNAL_SERVER_ERROR or _is_throttling(code_of(error))
        case SSLError():
            return False
        case BotoConnectionError() | HTTPClientError():
            return True
        case urllib3.exceptions.HTTPError():
            return not isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError)
    return False


def code_of(error: ClientError) -> str:
    """AWS's name for the error, such as `AccessDeniedException`."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def sentence(error: BaseException) -> str | None:
    """What to tell the operator, or None for what nobody foresaw: a bug."""
    match error:
        case RelayError():
            return str(error) or type(error).__name__
        case ClientError():
            return _of_client(error)
        case NoCredentialsError() | PartialCredentialsError():
            return "no AWS credentials: log in (`aws sso login`, `aws configure`), set AWS_PROFILE, or give --profile"
        case NoRegionError():
            return "no AWS region: give --region, or set AWS_REGION"
        case ProfileNotFound():
            return f"{error}: give another --profile, or set AWS_PROFILE"
        case EndpointConnectionError() | ConnectTimeoutError():
            return _nobody(error.kwargs.get("endpoint_url", ""))
        case ReadTimeoutError():
            return f"{error.kwargs.get('endpoint_url', '')} took too long to answer; try again"
        case BotoCoreError():
            return _one_line(str(error))
        case ValueError() if str(error).startswith("Invalid endpoint"):  # botocore, of AWS_ENDPOINT_URL
            return f"{error}: AWS_ENDPOINT_URL, or the profile's endpoint_url, is no URL"
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror or error}"
    return None


def _nobody(url: str) -> str:
    if urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost"):
        why = "does the local cloud still run? `ecr-relay local up --state DIR` starts a new one"
    else:
        why = "is the region right, is there a network?"
    return f"{url} does not answer: {why}"


def _of_client(error: ClientError) -> str:
    code, message = code_of(error), _one_line(str(error.response.get("Error", {}).get("Message", "")))
    call = error.operation_name
    if code in DENIED:
        return f"no permission for {call}: {message or code}"
    if code in _EXPIRED:
        return f"the AWS credentials have expired ({code}): log in again"
    if code in _UNKNOWN_KEY:
        return f"AWS does not know these credentials ({code}): wrong key, account or partition?"
    if code in _GONE:
        return f"{call}: {message or code}: was the stack deleted, or is this another account or region?"
    if _is_throttling(code):
        return f"{call}: AWS asks to slow down ({code}); try again in a moment"
    if code.isdecimal() and not message:  # what botocore makes of an answer that is none of AWS's
        return f"{call}: HTTP {code} without a reason: is there such a service in this region, or local cloud?"
    return f"{call}: {code}: {message}" if message else f"{call}: {code}"


def _is_throttling(code: str) -> bool:
    return "Throttl" in code or code in ("TooManyRequestsException", "RequestLimitExceeded")


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())
