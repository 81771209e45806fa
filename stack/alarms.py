"""One alarm a cause, all of them to one topic; each says what to do, and where the runbook says more."""

from typing import Final

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from ecr_relay.config import Deployment
from ecr_relay.metrics import Metric
from stack.measures import measured
from stack.queues import Queues

RUNBOOK: Final = "docs/operating.md"

_FAILED_PERCENT: Final = 50
_FAILED_OF: Final = 10
"""Outcomes in 15 minutes: three attempts at each of a few broken images are no rate, and have dead letters for it."""

_DIFFERENCES: Final = 100
"""In one run. Delivery of events is best effort, and loses few; so many mean that they do not come at all."""

_NO_COPIES_HOURS: Final = 6
"""Longer than any but the longest copies over a border take."""


class Alarms(Construct):
    """The topic, and what is told there. No data is no news: whoever has nothing to do measures nothing."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        deployment: Deployment,
        queues: Queues,
        consumer: lambda_.IFunction,
        reconcile: lambda_.IFunction,
    ) -> None:
        super().__init__(scope, id)
        self.topic = self._topic(deployment)
        self.alarms: list[cloudwatch.Alarm] = []
        self._runbook = deployment.runbook_url or RUNBOOK
        self._queues(queues)
        self._functions(consumer, reconcile)
        self._relay(deployment, queues.copy)
        self._reconcile()

    def _topic(self, deployment: Deployment) -> sns.ITopic:
        """Not under a key: AWS's own for SNS lets no alarm publish, and what alarms say is no secret."""
        if deployment.alarm_topic_arn:
            return sns.Topic.from_topic_arn(self, "Topic", deployment.alarm_topic_arn)
        topic = sns.Topic(self, "Topic", display_name=Stack.of(self).stack_name, enforce_ssl=True)
        # A topic that has a policy of its own has lost the one by which its account's alarms may publish.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["sns:Publish"],
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )
        if deployment.alarm_email:
            topic.add_subscription(subscriptions.EmailSubscription(deployment.alarm_email))
        return topic

    def _queues(self, queues: Queues) -> None:
        self._alarm(
            "DeadLettersAlarm",
            _waiting(queues.dead_letters),
            "Messages were given up after three receives. `ecr-relay dlq list` says which and why; mend it, then "
            "`ecr-relay dlq redrive`.",
        )
        self._alarm(
            "EventDeadLettersAlarm",
            _waiting(queues.event_dead_letters),
            "EventBridge could not put push events into the copy queue. `ecr-relay sync` finds their images; deploy "
            "again to restore the queue's policy.",
        )

    def _functions(self, consumer: lambda_.IFunction, reconcile: lambda_.IFunction) -> None:
        period = Duration.minutes(5)
        self._alarm(
            "ConsumerErrorsAlarm",
            consumer.metric_errors(period=period, statistic="Sum"),
            "The consumer failed as a whole: configuration, memory or time. Its log group says why; three such "
            "failures make dead letters of good messages.",
        )
        self._alarm(
            "ConsumerThrottlesAlarm",
            consumer.metric_throttles(period=period, statistic="Sum"),
            "Lambda refuses the consumer invocations. Restore its reserved concurrency of 10 by deploying again, or "
            "ask for a higher account quota; `ecr-relay doctor` compares the two.",
            periods=3,
        )
        self._alarm(
            "ReconcileErrorsAlarm",
            reconcile.metric_errors(period=period, statistic="Sum"),
            "The reconcile failed: mostly the source cannot be listed. `ecr-relay status` shows the error; it resumes "
            "by itself.",
        )

    def _relay(self, deployment: Deployment, copy: sqs.IQueue) -> None:
        self._alarm(
            "LagAlarm",
            measured(self, Metric.AGE, statistic="Maximum"),
            f"A push waits for, or took, more than {deployment.alarm_lag_minutes} minutes. `ecr-relay status` says "
            "what waits, and for what.",
            threshold=deployment.alarm_lag_minutes * 60_000,
        )
        self._alarm(
            "BreakerAlarm",
            measured(self, Metric.BREAKER_OPEN),
            "A destination as a whole refuses: credentials, network or throttling. `ecr-relay doctor` says which and "
            "why; nothing is lost, and all goes on when it is mended.",
            periods=3,
            # It opens for a minute at a time, and a minute's throttling is nobody's business.
            breaching=2,
        )
        failed, arrived = (measured(self, name, minutes=15) for name in (Metric.FAILED, Metric.ARRIVED))
        self._alarm(
            "FailureRateAlarm",
            cloudwatch.MathExpression(
                expression=f"IF(failed + arrived >= {_FAILED_OF}, 100 * failed / (failed + arrived), 0)",
                using_metrics={"failed": failed, "arrived": arrived},
                period=Duration.minutes(15),
                label="failed, in percent",
            ),
            f"More than {_FAILED_PERCENT} percent of the copies failed within 15 minutes. `ecr-relay status` lists "
            "them with their errors; look for what they have in common.",
            threshold=_FAILED_PERCENT,
        )
        hour = Duration.hours(1)
        self._alarm(
            "NoCopiesAlarm",
            cloudwatch.MathExpression(
                # On average of the hour: a message that waits is now delayed, now visible, now in flight.
                expression="IF(FILL(arrived, 0) < 1 AND visible + delayed + inflight >= 0.9, 1, 0)",
                using_metrics={
                    "arrived": measured(self, Metric.ARRIVED, minutes=60),
                    "visible": copy.metric_approximate_number_of_messages_visible(period=hour, statistic="Average"),
                    "delayed": copy.metric_approximate_number_of_messages_delayed(period=hour, statistic="Average"),
                    "inflight": copy.metric_approximate_number_of_messages_not_visible(
                        period=hour, statistic="Average"
                    ),
                },
                period=hour,
                label="an hour of waiting, and nothing arrived",
            ),
            f"Messages have waited for {_NO_COPIES_HOURS} hours and nothing arrived. `ecr-relay status` and "
            "`ecr-relay doctor`; perhaps it is paused: `ecr-relay resume`.",
            periods=_NO_COPIES_HOURS,
        )

    def _reconcile(self) -> None:
        self._alarm(
            "ReconcileFailuresAlarm",
            measured(self, Metric.RECONCILE_FAILURES, statistic="Maximum"),
            "The reconcile could not compare some repositories. `not reconciled` in its log says which and why.",
        )
        self._alarm(
            "DifferencesAlarm",
            measured(self, Metric.DIFFERENCES, statistic="Maximum"),
            f"The reconcile found more than {_DIFFERENCES} differences. They are being copied; but after the first "
            "one, find out why no event told of them: `ecr-relay doctor`.",
            threshold=_DIFFERENCES,
        )
        self._alarm(
            "EvictionsAlarm",
            measured(self, Metric.EVICTED),
            "What was copied there vanishes again: a lifecycle policy at a destination removes it. Change the policy "
            "or the rules; it is not copied again before it is pushed again.",
        )
        self._alarm(
            "ConflictsAlarm",
            measured(self, Metric.CONFLICTS),
            "Somebody else moves tags at a destination that the relay writes: overwritten, kept or failed, as "
            "on_conflict says. The logs of the consumer and the reconcile name them; find out who writes there.",
        )
        self._alarm(
            "HeldDeletesAlarm",
            measured(self, Metric.HELD, statistic="Maximum"),
            "More is gone at the source than max_deletes lets a reconcile delete, so it waits for you. `ecr-relay sync "
            "--dry-run` lists it; if it is meant so, raise max_deletes.",
        )

    def _alarm(
        self,
        id: str,
        metric: cloudwatch.IMetric,
        text: str,
        *,
        threshold: float = 0,
        periods: int = 1,
        breaching: int | None = None,
    ) -> None:
        """When `metric` is above `threshold` in `breaching` (default: all) of `periods`."""
        stack = Stack.of(self).stack_name
        alarm = cloudwatch.Alarm(
            self,
            id,
            alarm_name=f"{stack}-{id}",
            alarm_description=f"{stack}: {text} Runbook: {self._runbook}#{id.lower()}",
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=periods,
            datapoints_to_alarm=breaching,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        self.alarms.append(alarm)


def _waiting(queue: sqs.IQueue) -> cloudwatch.Metric:
    return queue.metric_approximate_number_of_messages_visible(period=Duration.minutes(1), statistic="Maximum")
