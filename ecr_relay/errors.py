"""What can go wrong, and the one table that decides which kind a registry's or skopeo's words are.

RelayError                an operator reads str(error): what was wrong, where, what to do
+-- ConfigError           relay.toml: the key's path and what is allowed there
+-- Malformed             a message that nobody can act on
+-- CopyError             one image did not arrive
    +-- Transient         may succeed when tried again (backoff, three attempts)
    +-- Permanent         will not; no further attempt
    |   +-- TagTaken      an immutable tag holds another digest
    |       +-- Conflict  somebody else moved the tag, and `on_conflict = "fail"`
    +-- Missing           the registry lacks what was asked for: manifest, layer or repository
    +-- RegistryDown      credentials, network or throttling of a registry as a whole: its destination's breaker
        +-- TokenExpired  a login that was good when the copy began: the copier logs in anew, once
"""

import re
from typing import Final


class RelayError(Exception):
    """Base of every error that an operator may see."""


class ConfigError(RelayError):
    """`relay.toml` or the environment does not say what is needed."""


class Malformed(RelayError):
    """A message that is no JSON, has the wrong shape, or a version or detail-type that we do not know."""


class CopyError(RelayError):
    """An image did not arrive. `str()` is the registry's or skopeo's own reason."""


class Transient(CopyError):
    """May succeed when tried again."""


class Permanent(CopyError):
    """Will not succeed, however often it is tried."""


class TagTaken(Permanent):
    """The destination's tag is immutable and holds another digest."""


class Conflict(TagTaken):
    """Somebody else moved the tag at the destination, and the configuration says to fail then."""


class Missing(CopyError):
    """The registry does not have the manifest, layer or repository that was asked for."""


class RegistryDown(CopyError):
    """A registry as a whole refuses: credentials, network or throttling. No image is to blame, so no attempt counts."""


class TokenExpired(RegistryDown):
    """A login that was good once is over: the copy has outlasted it."""


# Which side skopeo speaks of. What it says while it reads a blob comes wrapped in what it was writing: read wins.
_SOURCE: Final = re.compile(
    r"initializing source|reading (?:blob|manifest|signatures)|fetching blob|determining manifest|happened during read"
)
_DESTINATION: Final = re.compile(r"at destination:|writing (?:blob|manifest|signatures)|initializing destination")
_ANY, _FROM, _TO = "any", "source", "destination"

# Names are no reasons: digests, URLs, hosts, repositories and what stands in single quotes (a repository may be called
# `denied`, and every 64th digest has a 401 in it).
_NAMES: Final = re.compile(r"sha256:\w+|\S*[^\s/]/\S*|\S*/[^\s/]\S*|'[^']*'|[\w.-]+:\d{2,5}\b")

_AUTHENTICATION: Final = r"unauthorized|authentication required|no basic auth credentials|username or password|\b401\b"
_THROTTLED: Final = r"toomanyrequests|too many requests|rate exceeded|throttl|RequestLimitExceeded|SlowDown|\b429\b"

# First match wins. `destination` is also what a registry says about itself, with no skopeo in between.
# Where the words come from: tests/unit/test_errors.py, a recorded or documented message for each row.
_TABLE: Final[tuple[tuple[str, re.Pattern[str], type[CopyError]], ...]] = tuple(
    (side, re.compile(pattern, re.IGNORECASE), kind)
    for side, pattern, kind in (
        # This copy, whichever side.
        (_ANY, r"context deadline exceeded|killed by signal", Transient),
        (_ANY, r"ImageTagAlreadyExists|\btag invalid\b|cannot be overwritten because", TagTaken),
        (_ANY, r"Instructed to preserve digests|Source image rejected|unsupported manifest", Permanent),
        (_ANY, r"invalid reference format|unimplemented manifest MIME type|unsupported schema", Permanent),
        (_ANY, r"token has expired", TokenExpired),  # ECR's, of a login older than 12 hours
        # The source.
        (_FROM, r"from manifest list: .*(?:manifest unknown|name unknown)", Transient),  # a child, not the image
        (_FROM, r"initializing source.*(?:manifest unknown|name unknown|repository name not known)", Missing),
        # Credentials, quota and network of the source as a whole: no image is to blame.
        (_FROM, _AUTHENTICATION, RegistryDown),
        (_FROM, _THROTTLED, RegistryDown),
        (
            _FROM,
            r"x509:|dial tcp|connection refused|no such host|TLS handshake timeout|network is unreachable",
            RegistryDown,
        ),
        (_FROM, r"", Transient),
        # AWS's APIs, by the exception's name.
        (_TO, r"RepositoryNotFoundException|ImageNotFoundException", Missing),
        (_TO, r"(?:Layers|ReferencedImages)NotFoundException", Missing),
        (_TO, r"LimitExceededException|would have exceeded a service limit", Permanent),
        (_TO, r"not authorized to perform: (?:ecr:GetAuthorizationToken|sts:|secretsmanager:)", RegistryDown),
        (_TO, r"AccessDenied|not authorized to perform", Permanent),  # of this repository: others may be allowed
        (_TO, r"UnrecognizedClient|InvalidClientTokenId|ExpiredToken|SignatureDoesNotMatch", RegistryDown),
        (_TO, r"InvalidSignature|IncompleteSignature|MissingAuthenticationToken|RequestExpired", RegistryDown),
        (_TO, r"AuthFailure|OptInRequired|SubscriptionRequired|InvalidAccessKeyId", RegistryDown),
        (_TO, _THROTTLED, RegistryDown),
        (_TO, r"InvalidParameterException|InvalidTagParameter|TooManyTags|ValidationException", Permanent),
        # The destination as a whole.
        (_TO, _AUTHENTICATION, RegistryDown),
        (_TO, r"pinging container registry|dial tcp|connection refused|no such host|x509:|tls:", RegistryDown),
        (_TO, r"TLS handshake timeout|network is unreachable|no route to host", RegistryDown),
        (_TO, r"no space left|insufficient storage|\b507\b", RegistryDown),
        # This image at the destination.
        (_TO, r"name unknown|repository name not known", Transient),  # deleted meanwhile: the next attempt creates it
        (_TO, r"blob unknown|required for pushing image", Transient),  # the same, a layer or a child
        (_TO, r"\b5\d\d\b|ServerException|InternalFailure|ServiceUnavailable", Transient),
        (_TO, r"StatusCode: 403|repository \S+ 403", Transient),  # to a HEAD, which has no body: expired or denied
        (_TO, r"\bdenied\b|\b403\b", Permanent),
        (_TO, r"manifest invalid|size limit|\b413\b|\bunsupported\b", Permanent),
        (_TO, r"quota", Permanent),
    )
)


def classify(text: str) -> type[CopyError]:
    """The kind of a registry's or skopeo's message; Transient if no row of the table matches.

    >>> classify("writing blob: uploading layer chunked: toomanyrequests: Rate exceeded")
    <class 'ecr_relay.errors.RegistryDown'>
    """
    text = _NAMES.sub("…", text)
    here = _FROM if _SOURCE.search(text) else _TO
    return next((kind for side, pattern, kind in _TABLE if side in (_ANY, here) and pattern.search(text)), Transient)
