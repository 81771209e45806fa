"""The relay's own metrics, as CDK names them. Names and units are the programs'."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from ecr_relay.metrics import NAMESPACE, STACK


def measured(scope: Construct, name: str, *, statistic: str = "Sum", minutes: int = 5) -> cloudwatch.Metric:
    """What this stack's programs count as `name`, of all destinations together."""
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=str(name),
        dimensions_map={STACK: Stack.of(scope).stack_name},
        statistic=statistic,
        period=Duration.minutes(minutes),
    )
