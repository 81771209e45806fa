"""The configuration as an SSM parameter, which the programs read: a changed rule needs no deployment."""

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from ecr_relay.config import RelayConfig
from stack.permissions import allow


class Parameter(Construct):
    """Holds no secret: credentials in the configuration are names of roles and of Secrets Manager secrets."""

    def __init__(self, scope: Construct, id: str, *, config: RelayConfig) -> None:
        super().__init__(scope, id)
        self.parameter = ssm.StringParameter(
            self,
            "Config",
            parameter_name=f"/{Stack.of(self).stack_name}/config",
            description="What ecr-relay copies from where to where; written by the deployment and `config push`",
            string_value=config.to_parameter(),
            # Standard up to 4,096 characters, advanced (charged for) above. SSM decides it, and not we by the length,
            # since a parameter that has been advanced once cannot be made standard again.
            tier=ssm.ParameterTier.INTELLIGENT_TIERING,
        )

    @property
    def name(self) -> str:
        return self.parameter.parameter_name

    def allow(self, role: iam.Role) -> None:
        """Let `role` read the configuration."""
        allow(role, ["ssm:GetParameter"], self.parameter.parameter_arn)
