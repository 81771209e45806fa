"""The ledger: one DynamoDB table, the only thing that the consumer and the copier share."""

from typing import Final

from aws_cdk import RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from constructs import Construct

from ecr_relay.calls import Calls
from stack.permissions import allow

_STATE_INDEX: Final = "by-state"


class Ledger(Construct):
    """On demand, with point-in-time recovery, and kept when the stack goes: it knows what was copied, and why not.

    Records that run or failed carry `state`, and only those, so the index `by-state` is as small as the work in hand.
    """

    def __init__(self, scope: Construct, id: str) -> None:
        super().__init__(scope, id)
        self.table = dynamodb.Table(
            self,
            "Table",
            partition_key=_string("pk"),
            sort_key=_string("sk"),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            time_to_live_attribute="expires_at",
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.table.add_global_secondary_index(
            index_name=_STATE_INDEX,
            partition_key=_string("state"),
            sort_key=dynamodb.Attribute(name="changed_at", type=dynamodb.AttributeType.NUMBER),
            projection_type=dynamodb.ProjectionType.ALL,
        )

    def allow(self, role: iam.Role, calls: Calls) -> None:
        """Let `role` read and write records. Not scan, and not by the index, which are for operators: no program of
        ours reads more of the ledger than it works at.
        """
        allow(role, calls.ledger, self.table.table_arn)


def _string(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)
