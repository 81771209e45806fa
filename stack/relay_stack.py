"""The stack. It composes; what a part is made of stands with the part."""

from aws_cdk import CfnOutput, DefaultStackSynthesizer, Environment, Fn, Stack
from constructs import Construct

from ecr_relay.config import EcrSource, RelayConfig
from stack import trust
from stack.alarms import Alarms
from stack.bundling import BundleFor, lambda_code
from stack.copier import Copier
from stack.dashboard import Dashboard
from stack.events import PushRule
from stack.functions import Consumer, Reconcile
from stack.ledger import Ledger
from stack.network import Network
from stack.parameter import Parameter
from stack.queues import Queues


class RelayStack(Stack):
    """Everything that one relay needs, in the account and region of its source unless the configuration says else."""

    def __init__(self, scope: Construct, *, config: RelayConfig, bundle_for: BundleFor, ca_bundle: str | None) -> None:
        """`ca_bundle`: the PEM text that the configuration names."""
        deployment = config.deployment
        account, region = config.home
        super().__init__(
            scope,
            deployment.stack_name,
            env=Environment(account=account, region=region),
            description="ecr-relay: replicates container images into Amazon ECR as they are pushed",
            # The CDK command line checks the bootstrap version by the manifest; the template need not do it again.
            synthesizer=DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
        )
        # W3005: CDK lets a function depend on its role and the role's policy, of which the former is implied.
        self.template_options.metadata = {"cfn-lint": {"config": {"ignore_checks": ["W3005"]}}}
        authorities = trust.files(ca_bundle)
        code = lambda_code(bundle_for, deployment.architecture, authorities)
        queues = Queues(self, "Queues")
        ledger = Ledger(self, "Ledger")
        parameter = Parameter(self, "Parameter", config=config)
        network = Network(self, "Network", existing=deployment.network)
        copier = Copier(self, "Copier", config=config, ledger=ledger, parameter=parameter, authorities=authorities)
        consumer = Consumer(
            self,
            "Consumer",
            code=code,
            config=config,
            queues=queues,
            ledger=ledger,
            parameter=parameter,
            network=network,
            copier=copier,
        )
        reconcile = Reconcile(
            self,
            "Reconcile",
            code=code,
            config=config,
            queues=queues,
            ledger=ledger,
            parameter=parameter,
            network=network,
        )
        if isinstance(config.source, EcrSource):
            PushRule(self, "Pushes", source=config.source, queues=queues)
        alarms = Alarms(
            self,
            "Alarms",
            deployment=deployment,
            queues=queues,
            consumer=consumer.function,
            reconcile=reconcile.function,
        )
        Dashboard(self, "Dashboard", alarms=alarms.alarms, queues=queues, consumer=consumer.function)

        # How the command line finds its way about a deployed stack: names that it looks for, so they stay.
        for name, value in {
            "QueueUrl": queues.copy.queue_url,
            "DeadLetterQueueUrl": queues.dead_letters.queue_url,
            "EventDeadLetterQueueUrl": queues.event_dead_letters.queue_url,
            "LedgerTable": ledger.table.table_name,
            "ConfigParameter": parameter.name,
            "ConsumerFunction": consumer.function.function_name,
            "ReconcileFunction": reconcile.function.function_name,
            "Cluster": copier.cluster_arn,
            "TaskDefinition": copier.task_definition.task_definition_arn,
            "CopierLogGroup": copier.log_group.log_group_name,
            "AlarmTopic": alarms.topic.topic_arn,
        }.items():
            CfnOutput(self, name, value=value)

    @property
    def availability_zones(self) -> list[str]:
        """Two, by intrinsic function: CDK would look them up in AWS, and synthesis asks AWS nothing."""
        return [Fn.select(zone, Fn.get_azs()) for zone in range(2)]
