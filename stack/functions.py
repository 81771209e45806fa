"""The two Lambda functions: what they are made of, what starts them, and what they may do."""

from typing import Final

from aws_cdk import Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from ecr_relay.calls import CONSUMER, RECONCILE
from ecr_relay.config import OciSource, RelayConfig
from ecr_relay.settings import ConsumerSettings, ReconcileSettings
from stack import trust
from stack.copier import Copier
from stack.ledger import Ledger
from stack.logs import log_group
from stack.network import Network, proxies
from stack.parameter import Parameter
from stack.permissions import acknowledge, allow, allow_registries
from stack.queues import CONSUMER_TIMEOUT, Queues

_CONCURRENCY: Final = 10
"""Copy tasks at the most, hence invocations that launch them. Reserved, and the mapping's maximum too: its pollers
ignore the reserve, and deliveries that it throttles count as receives, until good messages are dead letters."""

_BATCH: Final = 10
_BATCHING_WINDOW: Final = Duration.seconds(1)

_RECONCILE_TIMEOUT: Final = Duration.seconds(900)
"""Lambda's maximum. An unfinished run goes on at its cursor at the next tick."""

_RESUME_EVERY: Final = Duration.minutes(5)


class Consumer(Construct):
    """Receives from the copy queue, decides, launches copier tasks and waits for them."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        code: lambda_.Code,
        config: RelayConfig,
        queues: Queues,
        ledger: Ledger,
        parameter: Parameter,
        network: Network,
        copier: Copier,
    ) -> None:
        super().__init__(scope, id)
        stack = Stack.of(self)
        settings = ConsumerSettings(
            stack=stack.stack_name,
            ledger_table=ledger.table.table_name,
            config_parameter=parameter.name,
            queue_url=queues.copy.queue_url,
            cluster=copier.cluster_arn,
            task_definition=copier.task_definition.task_definition_arn,
            subnets=network.subnets,
            security_groups=(network.security_group.security_group_id,),
            assign_public_ip=network.assign_public_ip,
            supervise_seconds=config.deployment.supervise_seconds,
        )
        role = _role(self)
        self.function = _function(
            self,
            role=role,
            code=code,
            handler="handlers.consumer.handler",
            description="Decides messages of the copy queue and runs copier tasks",
            config=config,
            network=network,
            environment=settings.environment(),
            timeout=CONSUMER_TIMEOUT,
            memory_size=512,
            reserved_concurrent_executions=_CONCURRENCY,
            # A message that has to wait is sent again. Lambda takes that for a loop and stops it after 16 rounds.
            recursive_loop=lambda_.RecursiveLoop.ALLOW,
        )
        allow(
            role,
            [
                "sqs:ChangeMessageVisibility",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:ReceiveMessage",
                "sqs:SendMessage",
            ],
            queues.copy.queue_arn,
        )
        ledger.allow(role, CONSUMER)
        parameter.allow(role)
        copier.allow_running(role)
        # What has arrived, and what was given up, is told on the bus of this account and region.
        allow(
            role,
            ["events:PutEvents"],
            stack.format_arn(service="events", resource="event-bus", resource_name="default"),
        )
        allow_registries(role, config, CONSUMER)
        lambda_.EventSourceMapping(
            self,
            "CopyQueue",
            target=self.function,
            event_source_arn=queues.copy.queue_arn,
            batch_size=_BATCH,
            max_batching_window=_BATCHING_WINDOW,
            max_concurrency=_CONCURRENCY,
            report_batch_item_failures=True,
        )


class Reconcile(Construct):
    """Lists both sides and enqueues the difference: daily, or as often as a source without events is to be asked; when
    an operator asks; and on from where it stopped."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        code: lambda_.Code,
        config: RelayConfig,
        queues: Queues,
        ledger: Ledger,
        parameter: Parameter,
        network: Network,
    ) -> None:
        super().__init__(scope, id)
        settings = ReconcileSettings(
            stack=Stack.of(self).stack_name,
            ledger_table=ledger.table.table_name,
            config_parameter=parameter.name,
            queue_url=queues.copy.queue_url,
        )
        role = _role(self)
        self.function = _function(
            self,
            role=role,
            code=code,
            handler="handlers.reconcile.handler",
            description="Compares source and destinations and enqueues what differs",
            config=config,
            network=network,
            environment=settings.environment(),
            timeout=_RECONCILE_TIMEOUT,
            memory_size=1024,
            # One works at a run, and one may ask for another meanwhile: see `ledger.progress`.
            reserved_concurrent_executions=2,
        )
        allow(role, ["sqs:GetQueueAttributes", "sqs:SendMessage"], queues.copy.queue_arn)
        ledger.allow(role, RECONCILE)
        parameter.allow(role)
        allow_registries(role, config, RECONCILE)

        if isinstance(config.source, OciSource):
            poll = events.Schedule.rate(Duration.minutes(config.source.poll_minutes))
            self._schedule("Poll", poll, "start", "The source sends no events, so it is asked")
        else:
            hour, minute = config.deployment.reconcile_at.split(":")
            daily = events.Schedule.cron(hour=str(int(hour)), minute=str(int(minute)))
            self._schedule("Daily", daily, "start", "The daily reconcile (UTC)")
        self._schedule(
            "Resume", events.Schedule.rate(_RESUME_EVERY), "resume", "Goes on with a reconcile that did not finish"
        )

    def _schedule(self, id: str, schedule: events.Schedule, action: str, description: str) -> None:
        events.Rule(
            self,
            id,
            schedule=schedule,
            description=description,
            targets=[
                targets.LambdaFunction(self.function, event=events.RuleTargetInput.from_object({"action": action}))
            ],
        )


def _role(scope: Construct) -> iam.Role:
    return iam.Role(scope, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))


def _function(
    scope: Construct,
    *,
    role: iam.Role,
    code: lambda_.Code,
    handler: str,
    description: str,
    config: RelayConfig,
    network: Network,
    environment: dict[str, str],
    timeout: Duration,
    memory_size: int,
    reserved_concurrent_executions: int,
    recursive_loop: lambda_.RecursiveLoop | None = None,
) -> lambda_.Function:
    """A function with a log group of its own, and a role that may write to no other."""
    logs = log_group(scope, "Logs", config.deployment.log_retention_days)
    allow(role, ["logs:CreateLogStream", "logs:PutLogEvents"], logs.log_group_arn)
    arm = config.deployment.architecture == "arm64"
    function = lambda_.Function(
        scope,
        "Function",
        description=description,
        role=role,
        code=code,
        handler=handler,
        runtime=lambda_.Runtime.PYTHON_3_13,
        architecture=lambda_.Architecture.ARM_64 if arm else lambda_.Architecture.X86_64,
        environment=environment | proxies(config.deployment) | trust.environment(config.deployment, trust.TASK_ROOT),
        timeout=timeout,
        memory_size=memory_size,
        reserved_concurrent_executions=reserved_concurrent_executions,
        recursive_loop=recursive_loop,
        log_group=logs,
    )
    network.attach(function, role)
    acknowledge(function, "L1", "Python 3.13 is what the locked dependencies are tested with")
    return function
