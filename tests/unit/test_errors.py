"""The table of messages against what registries and skopeo really say.

Where a message comes from stands above it. `recorded`: by tests/integration's registries and proxy, from skopeo 1.9.3
(Debian 12) and 1.18.0 (Debian 13); hosts and digests shortened. `documented`: AWS's user guide and API reference, or
its words in public issues.
"""

import pytest

from ecr_relay.errors import (
    _NAMES,
    _SOURCE,
    _TABLE,
    CopyError,
    Missing,
    Permanent,
    RegistryDown,
    TagTaken,
    TokenExpired,
    Transient,
    classify,
)

D = "sha256:" + "4010" * 16  # with a 401 and a 10 in it, as every digest may have
HOST = "127.0.0.1:5000"
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
REUSE = f"trying to reuse blob {D} at destination: "
CHECK = f"{REUSE}checking whether a blob {D} exists in {HOST}/app: "
MANIFEST = f"writing manifest: uploading manifest {D} to {ECR}/app: "
UPLOAD = f"writing blob: initiating layer upload to /v2/app/blobs/uploads/ in {ECR}: "
SOURCE = f"initializing source docker://{HOST}/app@{D}: "
PING = f'pinging container registry {HOST}: Get "http://{HOST}/v2/": '

MESSAGES: list[tuple[str, type[CopyError]]] = [
    # --- The source, recorded -------------------------------------------------------------------------------------
    # 1.9.3, then 1.18.0, docker-registry 2.8.2: no such manifest
    (f"{SOURCE}reading manifest {D} in {HOST}/app: manifest unknown: manifest unknown", Missing),
    (f"{SOURCE}reading manifest {D} in {HOST}/app: manifest unknown", Missing),
    # documented: ECR, no such image; no such repository
    (f"{SOURCE}reading manifest {D} in {ECR}/app: manifest unknown: Requested image not found", Missing),
    (
        f"{SOURCE}reading manifest {D} in {ECR}/app: name unknown: The repository with name 'app' does not exist in "
        "the registry with id '123456789012'",
        Missing,
    ),
    # an index whose child is lost
    (
        f"copying image 2/2 from manifest list: determining manifest MIME type for docker://{HOST}/app@{D}: reading "
        f"manifest {D} in {HOST}/app: manifest unknown: manifest unknown",
        Transient,
    ),
    # a lost layer, 1.9.3 and 1.18.0
    (f"reading blob {D}: Error fetching blob: invalid status code from registry 404 (Not Found)", Transient),
    (f"reading blob {D}: fetching blob: blob unknown to registry", Transient),
    # away
    (f"{SOURCE}{PING}dial tcp 127.0.0.1:1: connect: connection refused", RegistryDown),
    (f'{SOURCE}{PING}Get "https://127.0.0.1:1/v2/": x509: certificate signed by unknown authority', RegistryDown),
    (f"{SOURCE}{PING}dial tcp: lookup nosuch.invalid on 10.0.0.2:53: no such host", RegistryDown),
    (
        f"{SOURCE}reading manifest {D} in {HOST}/app: read tcp 127.0.0.1:54764->{HOST}: read: connection reset by peer",
        Transient,
    ),
    # refusing
    (f"{SOURCE}reading manifest {D} in {HOST}/app: unauthorized: authentication required", RegistryDown),
    (f"{SOURCE}reading manifest {D} in {HOST}/app: authentication required", RegistryDown),
    (f"{SOURCE}reading manifest {D} in {HOST}/app: denied", Transient),
    (f"{SOURCE}reading manifest {D} in {ECR}/app: denied: Your authorization token has expired.", TokenExpired),
    (
        f"{SOURCE}reading manifest {D} in {HOST}/app: toomanyrequests: You have reached your pull rate limit.",
        RegistryDown,
    ),
    (f"reading blob {D}: too many requests to registry", RegistryDown),
    (f'reading blob {D}: fetching blob: StatusCode: 429, "<html>"', RegistryDown),
    (f"reading blob {D}: Error fetching blob: invalid status code from registry 503 (Service Unavailable)", Transient),
    # cut while it was written on: both sides are named, and the reader speaks
    (
        f'writing blob: Patch "http://{HOST}/v2/app/blobs/uploads/1a-2b?…": readfrom tcp 127.0.0.1:39346->{HOST}: '
        "happened during read: read tcp 127.0.0.1:45816->127.0.0.1:34235: read: connection reset by peer",
        Transient,
    ),
    (
        f'writing blob: Patch "http://{HOST}/v2/app/blobs/uploads/1a-2b?…": readfrom tcp 127.0.0.1:39458->{HOST}: '
        f"happened during read: Digest did not match, expected {D}, got {D}",
        Transient,
    ),
    (
        f"determining manifest MIME type for docker://{HOST}/app@{D}: "
        f"Manifest does not match provided manifest digest {D}",
        Transient,
    ),
    # --- The destination as a whole, recorded ---------------------------------------------------------------------
    (f"{REUSE}{PING}dial tcp 127.0.0.1:1: connect: connection refused", RegistryDown),
    (f"{REUSE}{PING}dial tcp: lookup nosuch.invalid on 10.0.0.2:53: no such host", RegistryDown),
    (
        f'{REUSE}pinging container registry {HOST}: Get "https://{HOST}/v2/": '
        "http: server gave HTTP response to HTTPS client",
        RegistryDown,
    ),
    (f"{CHECK}unauthorized: authentication required", RegistryDown),
    (f"{CHECK}authentication required", RegistryDown),
    (f"{REUSE}failed to read from destination repository app: 429 (Too Many Requests)", RegistryDown),
    (f'{CHECK}StatusCode: 429, ""', RegistryDown),
    (f"{MANIFEST}toomanyrequests: Rate exceeded", RegistryDown),
    ("writing blob: uploading layer chunked: toomanyrequests: Rate exceeded", RegistryDown),
    (f"{UPLOAD}denied: Your authorization token has expired. Reauthenticate and try again.", TokenExpired),
    # documented: ECR to a client without credentials; Go's net and crypto/tls
    (f"{UPLOAD}no basic auth credentials", RegistryDown),
    (f"{REUSE}{PING}dial tcp 10.1.2.3:443: i/o timeout", RegistryDown),
    (f"{REUSE}{PING}net/http: TLS handshake timeout", RegistryDown),
    (f'writing blob: Patch "https://{ECR}/v2/": dial tcp: lookup {ECR}: no such host', RegistryDown),
    (f"{REUSE}{PING}tls: failed to verify certificate: x509: certificate signed by unknown authority", RegistryDown),
    (
        f'writing blob: Patch "https://{ECR}/v2/app/blobs/uploads/1a-2b": net/http: TLS handshake timeout',
        RegistryDown,
    ),
    # documented: docker-registry on a full disk (Go's ENOSPC)
    (f"{UPLOAD}unknown: unknown error: write /var/lib/registry/x: no space left on device", RegistryDown),
    # --- This image at the destination, recorded ------------------------------------------------------------------
    (f"{UPLOAD}received unexpected HTTP status: 500 Internal Server Error", Transient),
    ("writing blob: uploading layer chunked: received unexpected HTTP status: 502 Bad Gateway", Transient),
    (f"{MANIFEST}received unexpected HTTP status: 503 Service Unavailable", Transient),
    (f"{REUSE}failed to read from destination repository app: 504 (Gateway Timeout)", Transient),
    (
        f'writing manifest: Put "http://{HOST}/v2/app/manifests/{D}": read tcp 127.0.0.1:51888->{HOST}: '
        "read: connection reset by peer",
        Transient,
    ),
    # an answer to HEAD, which says no more than this, for a token that ended and for a policy that forbids
    (f"{REUSE}failed to read from destination repository app: 403 (Forbidden)", Transient),
    (f"{REUSE}failed to read from destination repository team/app: 403 (Forbidden)", Transient),
    (f'{CHECK}StatusCode: 403, ""', Transient),
    # documented: IAM's words, by ECR's registry API
    (
        f"{UPLOAD}denied: User: arn:aws:sts::123456789012:assumed-role/relay/task is not authorized to perform: "
        "ecr:InitiateLayerUpload on resource: arn:aws:ecr:eu-west-1:123456789012:repository/app because no "
        "identity-based policy allows the ecr:InitiateLayerUpload action",
        Permanent,
    ),
    # documented: the distribution specification's DENIED
    (f"{UPLOAD}denied: requested access to the resource is denied", Permanent),
    # documented: ECR, repository gone; a layer, and a child of an index, gone
    (
        f"{UPLOAD}name unknown: The repository with name 'app' does not exist in the registry with id '123456789012'",
        Transient,
    ),
    (
        f"{MANIFEST}blob unknown: Layers with digests '{D}' required for pushing image into repository with name 'app' "
        "in the registry with id '123456789012' do not exist",
        Transient,
    ),
    (
        f"{MANIFEST}manifest blob unknown: Images with digests '[{D}]' required for pushing image into repository with "
        "name 'app' in the registry with id '123456789012' do not exist",
        Transient,
    ),
    # documented: ECR, immutable tags
    (
        f"{MANIFEST}tag invalid: The image tag 'latest' already exists in the 'app' repository and cannot be "
        "overwritten because the repository is immutable.",
        TagTaken,
    ),
    # documented: what a registry does not take
    (f"{MANIFEST}manifest invalid: manifest payload size limit 4194304 exceeded", Permanent),
    (f'{MANIFEST}StatusCode: 413, "too large"', Permanent),
    (f"{MANIFEST}unsupported: Invalid parameter at 'ImageManifest' failed to satisfy constraint", Permanent),
    (
        f"{MANIFEST}unsupported: The operation did not succeed because it would have exceeded a service limit for your "
        "account",
        Permanent,
    ),
    # documented: containers/image, copy/single.go and signature/policy_eval.go
    (
        'Manifest must be converted to type "application/vnd.oci.image.manifest.v1+json" to be written to destination, '
        'but we cannot modify it: "Instructed to preserve digests"',
        Permanent,
    ),
    ("Source image rejected: A signature was required, but no signature exists", Permanent),
    ("unsupported schema version 1", Permanent),
    ("quota exceeded for this project", Permanent),
    # --- Either ---------------------------------------------------------------------------------------------------
    # recorded: --command-timeout
    (f"{SOURCE}{PING}context deadline exceeded", Transient),
    (f"{REUSE}{PING}context deadline exceeded", Transient),
    # --- AWS's APIs: code and message, documented -----------------------------------------------------------------
    ("ThrottlingException: Rate exceeded", RegistryDown),
    ("RequestLimitExceeded: Request limit exceeded.", RegistryDown),
    ("UnrecognizedClientException: The security token included in the request is invalid.", RegistryDown),
    ("ExpiredTokenException: The security token included in the request is expired", RegistryDown),
    ("InvalidClientTokenId: The security token included in the request is invalid", RegistryDown),
    ("InvalidSignatureException: Signature expired: 20260101T000000Z is now earlier than …", RegistryDown),
    ("OptInRequired: The AWS Access Key Id needs a subscription for the service", RegistryDown),
    (
        "AccessDeniedException: User: arn:aws:iam::123456789012:user/x is not authorized to perform: "
        "ecr:GetAuthorizationToken on resource: *",
        RegistryDown,
    ),
    (
        "AccessDeniedException: User: arn:aws:iam::123456789012:user/x is not authorized to perform: ecr:PutImage on "
        "resource: arn:aws:ecr:eu-west-1:123456789012:repository/app",
        Permanent,
    ),
    ("RepositoryNotFoundException: The repository with name 'app' does not exist in the registry with id '1'", Missing),
    ("ImageNotFoundException: The image with imageId {…} does not exist within the repository", Missing),
    (
        "LayersNotFoundException: Layers with digests '…' required for pushing image into repository do not exist",
        Missing,
    ),
    ("ReferencedImagesNotFoundException: Images with digests '…' required for pushing image do not exist", Missing),
    ("ImageTagAlreadyExistsException: The image tag '1' already exists in the 'app' repository", TagTaken),
    ("LimitExceededException: The operation did not succeed because it would have exceeded a service limit", Permanent),
    ("InvalidParameterException: Invalid parameter at 'repositoryName' failed to satisfy constraint", Permanent),
    ("ServerException: These errors are usually caused by a server-side issue.", Transient),
    ("KmsException: The operation failed due to a KMS exception.", Transient),
    # --- Nobody knows ---------------------------------------------------------------------------------------------
    ("unexpected EOF", Transient),
    ("", Transient),
]


@pytest.mark.parametrize(("message", "kind"), MESSAGES, ids=range(len(MESSAGES)))
def test_what_a_message_is(message: str, kind: type[CopyError]) -> None:
    assert classify(message) is kind, message


def test_every_row_of_the_table_has_a_message() -> None:
    """A row that no message here reaches is a guess; one that an earlier row hides is dead."""
    reached: set[str] = set()
    for message, _ in MESSAGES:
        text = _NAMES.sub("…", message)
        here = "source" if _SOURCE.search(text) else "destination"
        rows = [row for row in _TABLE if row[0] in ("any", here) and row[1].search(text)]
        reached.update(row[1].pattern for row in rows[:1])
    missed = [pattern.pattern for _, pattern, _ in _TABLE if pattern.pattern not in reached]
    assert missed == []


@pytest.mark.parametrize("name", ["denied", "unauthorized/401", "quota", "toomanyrequests", "tls/x509", "unsupported"])
def test_a_name_is_no_reason(name: str) -> None:
    for message, kind in MESSAGES:
        assert classify(message.replace("/app", f"/{name}").replace("'app'", f"'{name}'")) is kind, message
