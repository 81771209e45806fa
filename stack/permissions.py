"""Which program may make which call on which resource.

A wildcard in a resource needs a reason: `allow` refuses one without, and hands the reason to cdk-nag as the
acknowledgement of its finding, so that what the template permits and why stand in one line of code.
"""

from collections.abc import Mapping, Sequence

from aws_cdk import Acknowledgment, Validations, region_info
from aws_cdk import aws_iam as iam
from constructs import IConstruct

from ecr_relay.calls import Calls
from ecr_relay.config import Credentials, Destination, EcrRegistry, RegistryLogin, RelayConfig
from ecr_relay.config.consistency import inside


def acknowledge(scope: IConstruct, rule: str, reason: str) -> None:
    """Tell cdk-nag that a finding in `scope` is meant, and why."""
    Validations.of(scope).acknowledge(Acknowledgment(id=f"AwsSolutions::AwsSolutions-{rule}", reason=reason))


def allow(
    role: iam.Role,
    actions: Sequence[str],
    *resources: str,
    reason: str = "",
    conditions: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Let `role` make these calls on these ARNs. Raises ValueError for a wildcard without a reason."""
    for resource in resources:
        if "*" in resource:
            if not reason:
                raise ValueError(f"{resource}: a wildcard needs a reason")
            acknowledge(role, f"IAM5[Resource::{resource}]", reason)
    role.add_to_policy(
        iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=dict(conditions or {}))
    )


def allow_registries(role: iam.Role, config: RelayConfig, calls: Calls) -> None:
    """Let `role` reach the source and every destination: by itself, or as whom the configuration says.

    A registry with credentials of its own is reached with those, so the role gets nothing there but the credentials.
    """
    registries = (config.source, *config.destinations)
    for registry in registries:
        if registry.credentials:
            _allow_credentials(role, registry.credentials)
        elif not isinstance(registry, EcrRegistry):
            continue  # anonymous: nobody is asked for anything
        elif isinstance(registry, Destination):
            reason = "destination repositories are named, and made, after the source's"
            allow(role, calls.at(config, registry), _repositories(registry, inside(registry)), reason=reason)
            if calls.makes:
                _allow_key(role, registry)
        else:
            reason = "which repositories are copied is up to rules, which change without a deployment"
            allow(role, calls.source, _repositories(registry), reason=reason)
            if calls.listing:
                reason = "a listing of repositories is a call on all of them"
                allow(role, calls.listing, _repositories(registry), reason=reason)
    if calls.token and any(isinstance(registry, EcrRegistry) and not registry.credentials for registry in registries):
        reason = "GetAuthorizationToken has no resource (service authorization reference of Amazon ECR)"
        allow(role, ["ecr:GetAuthorizationToken"], "*", reason=reason)


def _allow_credentials(role: iam.Role, credentials: Credentials | RegistryLogin) -> None:
    if isinstance(credentials, Credentials) and credentials.role_arn:
        allow(role, ["sts:AssumeRole"], credentials.role_arn)
    if credentials.secret_arn:
        allow(role, ["secretsmanager:GetSecretValue"], credentials.secret_arn)
        if credentials.kms_key_arn:
            # What Secrets Manager names to KMS with each secret (Secrets Manager user guide, encryption context).
            only = {"StringEquals": {"kms:EncryptionContext:SecretARN": credentials.secret_arn}}
            allow(role, ["kms:Decrypt"], credentials.kms_key_arn, conditions=only)


def _allow_key(role: iam.Role, destination: Destination) -> None:
    """CreateRepository with a key makes ECR grant itself that key in the caller's name (ECR user guide)."""
    if key := destination.new_repository.kms_key:
        allow(role, ["kms:CreateGrant", "kms:DescribeKey", "kms:RetireGrant"], key)


def _repositories(registry: EcrRegistry, names: str = "*") -> str:
    partition = region_info.RegionInfo.get(registry.region).partition or "aws"
    return f"arn:{partition}:ecr:{registry.region}:{registry.account}:repository/{names}"
