"""`[source]` and `[[destinations]]`: which registries, as whom, and what is made there."""

import json
import re
import ssl
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from ecr_relay.config.base import Account, KeyArn, Name, Region, SecretArn, Table
from ecr_relay.images import is_repository

PLACEHOLDER: Final = "{repository}"
DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
"""Names of one registry, whose repositories without a folder lie in `library/`."""

ECR_HOST: Final = re.compile(r"[0-9]{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9.-]+")


def _usable_prefix(prefix: str) -> str:
    if prefix and not is_repository(prefix + "/x"):
        raise ValueError(
            f"{prefix!r} makes no valid repository name; allowed: lower-case path such as 'mirror' or 'team/mirror'"
        )
    return prefix


def _usable_target(target: str) -> str:
    if target.count(PLACEHOLDER) != 1:
        raise ValueError(f"{target!r} must have {PLACEHOLDER} once, so that no two repositories become one")
    if not is_repository(target.replace(PLACEHOLDER, "a/b")):
        raise ValueError(f"{target!r} makes no valid repository name; allowed: such as 'mirror/{PLACEHOLDER}'")
    return target


def _policy(least: int, most: int) -> AfterValidator:
    def check(text: str) -> str:
        try:
            json.loads(text)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None
        if not least <= len(text) <= most:
            raise ValueError(f"{len(text)} characters; ECR takes {least:,} to {most:,}")
        return text

    return AfterValidator(check)


def certificates(text: str) -> str:
    """`text`, if OpenSSL reads it as PEM certificates, one at least. Raises ValueError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError("no certificate; allowed: PEM text, -----BEGIN CERTIFICATE----- and so on") from None
    return text


class Credentials(Table):
    """How to become somebody else: a role to assume, or an access key pair for another partition; one of the two."""

    role_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$",
        description="the role to assume; it must trust the relay's own roles",
    )
    external_id: str | None = Field(
        default=None,
        min_length=2,
        max_length=1224,
        description="what that role's trust policy asks for; only with `role_arn`",
    )
    secret_arn: SecretArn | None = Field(
        default=None,
        description="complete, with its six random characters; a JSON object with `access_key_id` and "
        "`secret_access_key`",
    )
    kms_key_arn: KeyArn | None = Field(
        default=None, description="of the secret, if it is encrypted with a key of your own; only with `secret_arn`"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.role_arn is None) == (self.secret_arn is None):
            raise ValueError("needs either role_arn or secret_arn")
        if self.external_id and not self.role_arn:
            raise ValueError("external_id goes with role_arn")
        if self.kms_key_arn and not self.secret_arn:
            raise ValueError("kms_key_arn goes with secret_arn")
        return self


class RegistryLogin(Table):
    """Who we are to a registry that is not ECR."""

    secret_arn: SecretArn = Field(
        description="complete, with its six random characters; a JSON object with `username` and `password`"
    )
    kms_key_arn: KeyArn | None = Field(
        default=None, description="of the secret, if it is encrypted with a key of your own"
    )


class EcrRegistry(Table):
    """One Amazon ECR private registry: an account in a region."""

    region: Region = Field(description="AWS region, such as `eu-west-1`; the partition follows from it")
    account: Account = Field(description="AWS account, twelve digits in quotes")
    credentials: Credentials | None = Field(default=None, description="default: the relay's own roles")
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+$",
        description="ECR API endpoint, for PrivateLink without private DNS; default: AWS's own",
    )

    @property
    def id(self) -> str:
        """How the ledger names it."""
        return f"{self.account}.{self.region}"


class EcrSource(EcrRegistry):
    """The registry that images are pushed to: Amazon ECR, whose events start copies within seconds."""

    type: Literal["ecr"] = Field(default="ecr", description="Amazon ECR")
    replicas: bool = Field(
        default=False, description="also what AWS's own replication brought there (`ECR Replication Action`)"
    )
    pull_through: bool = Field(
        default=False, description="also what a pull through cache fetched (`ECR Pull Through Cache Action`)"
    )


class OciSource(Table):
    """The registry that images are pulled from: any that speaks the OCI distribution protocol. It sends no events, so
    it is asked every `poll_minutes`."""

    type: Literal["oci"] = Field(description="Docker Hub, Quay, GHCR, MCR, public.ecr.aws, registry.k8s.io, your own …")
    host: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$",
        description="such as `docker.io`, `quay.io` or `registry.example.com:5000`",
    )
    credentials: RegistryLogin | None = Field(default=None, description="default: anonymous")
    poll_minutes: int = Field(
        default=60,
        ge=5,
        le=1440,
        description="how often tags are listed and compared; each time costs a request a page and a HEAD for each tag "
        "that a rule selects",
    )
    plain_http: bool = Field(default=False, description="no TLS; only for a registry in your own network")
    ca_certificate: Annotated[str, AfterValidator(certificates)] | None = Field(
        default=None,
        max_length=4096,
        description="PEM text of the authority that signed the registry's certificate, believed beside the public ones",
    )

    @field_validator("host")
    @classmethod
    def _not_ecr(cls, host: str) -> str:
        if ECR_HOST.fullmatch(host):
            raise ValueError(f'{host!r} is Amazon ECR, which has events and no lasting password: use type = "ecr"')
        return host

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.plain_http and self.ca_certificate:
            raise ValueError("needs either plain_http or ca_certificate, not both")
        return self

    @property
    def id(self) -> str:
        """How the ledger names it."""
        return "docker.io" if self.host in DOCKER_HUB else self.host

    def is_host(self, name: str) -> bool:
        """Whether `name` is one of the registry's own."""
        return name == self.host or (self.id == "docker.io" and name in DOCKER_HUB)


class NewRepository(Table):
    """What a repository gets that we create at a destination. An existing one is left as it is, and where it differs
    in encryption or mutability, that is reported."""

    from_template: bool = Field(
        default=False,
        description="leave it to ECR's repository creation template for CREATE_ON_PUSH; then no other key here counts",
    )
    immutable_tags: bool = Field(
        default=False, description="no tag can be moved there; one that moves at the source then fails for good"
    )
    mutable_tags: tuple[Annotated[str, Field(pattern=r"^[0-9a-zA-Z._*-]{1,128}$")], ...] = Field(
        default=(),
        max_length=5,
        description="with `immutable_tags`: patterns of tags that can be moved all the same, such as `sha256-*` for "
        "signatures; `*` is any text",
    )
    scan_on_push: bool = Field(default=False, description="let ECR scan what is pushed")
    kms_key: str | None = Field(default=None, description="key ARN; default: AES-256 by ECR")
    lifecycle_policy: Annotated[str, _policy(100, 30_720)] | None = Field(
        default=None,
        description="the policy's JSON text, 100 to 30,720 characters; what it removes is reported as evicted, and not "
        "copied for ever again",
    )
    repository_policy: Annotated[str, _policy(2, 10_240)] | None = Field(
        default=None, description="the policy's JSON text, up to 10,240 characters: who else may pull"
    )
    tags: dict[str, str] = Field(default_factory=dict, description="resource tags")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mutable_tags and not self.immutable_tags:
            raise ValueError("mutable_tags goes with immutable_tags = true")
        if self.from_template and self.model_fields_set > {"from_template"}:
            raise ValueError("from_template: the template decides all of this; leave the other keys out")
        return self


class Destination(EcrRegistry):
    """A registry that images are copied to. No two may write the same place."""

    name: Name = Field(description="how rules, the ledger and the commands call it; unique")
    prefix: Annotated[str, AfterValidator(_usable_prefix)] = Field(
        default="",
        description="`mirror` puts `team/app` into `mirror/team/app`; needed if this is the source's own registry, and "
        "`prefix/*` then excluded by every rule",
    )
    target: Annotated[str, AfterValidator(_usable_target)] | None = Field(
        default=None,
        description="instead of `prefix`: the whole name, such as `hub/{repository}/mirror`; `{repository}` is the "
        "source's name, once",
    )
    on_conflict: Literal["overwrite", "keep", "fail"] = Field(
        default="overwrite",
        description="when somebody else moved a tag there: put the source's digest, leave it alone, or fail; counted "
        "and reported each time",
    )
    max_deletes: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description='with `deletes = "propagate"`: a reconcile removes so many tags and images there, those that it '
        "has removed elsewhere counted; of a repository with which they would be more it removes none, and says so",
    )
    max_tasks: int | None = Field(
        default=None,
        ge=1,
        le=10,
        description="copy tasks at once for this destination; default: all 10, or, where there are several "
        "destinations, so many that slow ones never starve another",
    )
    put_image_per_second: float = Field(
        default=8.0,
        ge=0.1,
        le=1000,
        description="PutImage calls a second of all copy tasks together; an account's quota in a region is 10, which "
        "others push by, too; an index is one for each manifest",
    )
    new_repository: NewRepository = Field(
        default=NewRepository(), description="what a repository gets that is created there"
    )

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if self.prefix and self.target:
            raise ValueError("needs either prefix or target, not both")
        return self

    @property
    def pattern(self) -> str:
        """Its names, with a placeholder for the source's."""
        return self.target or (f"{self.prefix}/{PLACEHOLDER}" if self.prefix else PLACEHOLDER)

    def repository(self, source_repository: str) -> str:
        """The destination's name for a source repository; injective, since the pattern has the whole name in it."""
        return self.pattern.replace(PLACEHOLDER, source_repository)
