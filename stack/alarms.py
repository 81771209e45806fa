"""An alarm as this stack has them: one occurrence is enough, and no data is no news."""

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct


def alarm_on_any(scope: Construct, id: str, metric: cloudwatch.IMetric, description: str) -> cloudwatch.Alarm:
    """Alarm as soon as one period of `metric` is above zero. What it does then is for whoever deploys to add."""
    return cloudwatch.Alarm(
        scope,
        id,
        metric=metric,
        threshold=0,
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        evaluation_periods=1,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        alarm_description=description,
    )
