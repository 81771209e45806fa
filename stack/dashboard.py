"""The dashboard: is it fast, does it fail, what waits, and which were the last failures."""

from collections.abc import Sequence
from typing import Final

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from ecr_relay.metrics import DESTINATION, FAILURES, NAMESPACE, STACK, UNEXPECTED, Metric
from stack.measures import measured
from stack.queues import Queues

_HALF: Final = 12
"""A dashboard is 24 columns wide."""
_FAILURES: Final = (
    "fields @timestamp, destination, repository, tag, class, reason, attempt, run, message_id",
    'filter message = "failed"',
    "sort @timestamp desc",
    "limit 20",
)


class Dashboard(Construct):
    """Named after the stack; one of three that an account has for nothing (CloudWatch pricing)."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        alarms: Sequence[cloudwatch.Alarm],
        queues: Queues,
        consumer: lambda_.Function,
    ) -> None:
        super().__init__(scope, id)
        dashboard = cloudwatch.Dashboard(
            self, "Dashboard", dashboard_name=Stack.of(self).stack_name, default_interval=Duration.hours(12)
        )
        dashboard.add_widgets(cloudwatch.AlarmStatusWidget(alarms=list(alarms), title="Alarms", width=24, height=3))
        dashboard.add_widgets(
            self._graph(
                "From push to arrival (ms)",
                measured(self, Metric.LAG, statistic="p50").with_(label="p50"),
                measured(self, Metric.LAG, statistic="p99").with_(label="p99"),
                measured(self, Metric.AGE, statistic="Maximum").with_(label="the oldest that was looked at"),
            ),
            self._graph("From push to arrival, p99 by destination (ms)", self._by_destination(Metric.LAG, "p99")),
        )
        ways = (Metric.COPIED, Metric.RETAGGED, Metric.JOINED, Metric.SKIPPED, Metric.DROPPED)
        dashboard.add_widgets(
            self._graph(
                "Throughput",
                measured(self, Metric.PUSHES),
                *(measured(self, way) for way in ways),
                right=[measured(self, Metric.BYTES)],
            ),
            self._graph("Failures by class", *(measured(self, name) for name in (*FAILURES.values(), UNEXPECTED))),
        )
        copy = queues.copy
        dashboard.add_widgets(
            self._graph(
                "Queues",
                copy.metric_approximate_number_of_messages_visible(statistic="Maximum", label="visible"),
                copy.metric_approximate_number_of_messages_delayed(statistic="Maximum", label="delayed"),
                copy.metric_approximate_number_of_messages_not_visible(statistic="Maximum", label="in flight"),
                queues.dead_letters.metric_approximate_number_of_messages_visible(
                    statistic="Maximum", label="dead letters"
                ),
                queues.event_dead_letters.metric_approximate_number_of_messages_visible(
                    statistic="Maximum", label="event dead letters"
                ),
                right=[copy.metric_approximate_age_of_oldest_message(statistic="Maximum", label="oldest (s)")],
            ),
            self._graph(
                "Copy tasks",
                measured(self, Metric.SLOTS, statistic="Maximum").with_(label="slots in use, of 10"),
                measured(self, Metric.INTERRUPTIONS).with_(label="interrupted"),
                right=[
                    measured(self, Metric.TASK_START, statistic="p50").with_(label="start p50 (ms)"),
                    measured(self, Metric.TASK_START, statistic="p99").with_(label="start p99 (ms)"),
                ],
            ),
        )
        found = (
            *(Metric.DIFFERENCES, Metric.RECONCILE_FAILURES, Metric.EVICTED, Metric.ARCHIVED),
            *(Metric.DELETED, Metric.HELD, Metric.DIFFERING),
        )
        dashboard.add_widgets(
            self._graph(
                "Waiting, and conflicts",
                *(measured(self, name) for name in (Metric.DEFERRED, Metric.AGAIN, Metric.CONFLICTS)),
            ),
            self._graph("Breaker open, by destination", self._by_destination(Metric.BREAKER_OPEN, "Sum")),
        )
        dashboard.add_widgets(
            self._graph(
                "Reconcile, a run",
                *(measured(self, name, statistic="Maximum", minutes=60) for name in found),
            ),
            cloudwatch.LogQueryWidget(
                title="The last failures",
                log_group_names=[consumer.log_group.log_group_name],
                query_lines=list(_FAILURES),
                width=_HALF,
                height=6,
            ),
        )

    def _graph(
        self, title: str, *left: cloudwatch.IMetric, right: Sequence[cloudwatch.IMetric] = ()
    ) -> cloudwatch.GraphWidget:
        zero = cloudwatch.YAxisProps(min=0)
        return cloudwatch.GraphWidget(
            title=title, left=list(left), right=list(right), left_y_axis=zero, right_y_axis=zero, width=_HALF, height=6
        )

    def _by_destination(self, name: Metric, statistic: str) -> cloudwatch.MathExpression:
        """A line for each destination, also for those that the configuration gets without a deployment."""
        stack = Stack.of(self).stack_name
        search = f'{{{NAMESPACE},{STACK},{DESTINATION}}} {STACK}="{stack}" MetricName="{name}"'
        return cloudwatch.MathExpression(
            expression=f"SEARCH('{search}', '{statistic}', 300)",
            using_metrics={},
            label=f"${{PROP('Dim.{DESTINATION}')}}",
            period=Duration.minutes(5),
        )
