"""The Fargate copier: cluster, task definition, image, roles and log group."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from aws_cdk import Stack
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from ecr_relay.calls import COPIER
from ecr_relay.config import RelayConfig
from ecr_relay.settings import CommonSettings, ConsumerSettings
from stack import trust
from stack.bundling import ROOT
from stack.ledger import Ledger
from stack.logs import log_group
from stack.network import proxies
from stack.parameter import Parameter
from stack.permissions import acknowledge, allow, allow_registries

_CONTEXT: Final = ("README.md", "copier_image", "ecr_relay", "pyproject.toml", "requirements/copier.txt")
"""What the image is built from, and no more, so that nothing else changes the image or its hash."""

_ETC_SOURCE: Final = "copier_image/containers"
_ETC: Final = "/etc/containers"
"""Where the image has what lies there in the context: the Dockerfile copies it."""

_CONTAINER: Final[str] = ConsumerSettings.model_fields["container"].default


class Copier(Construct):
    """What `RunTask` needs. There is no service: a task is started for the copies at hand and ends with them."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: RelayConfig,
        ledger: Ledger,
        parameter: Parameter,
        authorities: Mapping[str, bytes],
    ) -> None:
        """`authorities`: files for the image, by name."""
        super().__init__(scope, id)
        deployment = config.deployment
        self.cluster_name = deployment.cluster or Stack.of(self).stack_name
        self.cluster_arn = (
            self._ecs_arn("cluster", self.cluster_name) if deployment.cluster else self._own_cluster(self.cluster_name)
        )
        self.log_group = log_group(self, "Logs", deployment.log_retention_days)
        # The role that pulls the image and writes the log; the task itself never has it.
        self.execution_role = iam.Role(
            self, "ExecutionRole", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com")
        )
        acknowledge(
            self.execution_role,
            "IAM5[Resource::*]",
            "GetAuthorizationToken has no resource; CDK adds it for the pull of the copier's image",
        )
        self.task_role = iam.Role(self, "TaskRole", assumed_by=self._our_tasks())
        ledger.allow(self.task_role, COPIER)
        parameter.allow(self.task_role)
        allow_registries(self.task_role, config, COPIER)

        arm = deployment.architecture == "arm64"
        self.family = f"{Stack.of(self).stack_name}-copier"
        self.task_definition = ecs.FargateTaskDefinition(
            self,
            "Task",
            family=self.family,
            cpu=deployment.task_cpu,
            memory_limit_mib=deployment.task_memory_mib,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.ARM64 if arm else ecs.CpuArchitecture.X86_64,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
            execution_role=self.execution_role,
            task_role=self.task_role,
        )
        acknowledge(
            self.task_definition, "ECS2", "three names and no secret; the task reads the configuration itself from SSM"
        )
        # Without ECR_RELAY_RUN, which is RunTask's to say.
        settings = CommonSettings(
            stack=Stack.of(self).stack_name,
            ledger_table=ledger.table.table_name,
            config_parameter=parameter.name,
        )
        with _context(authorities) as context:  # CDK copies it at once
            self.task_definition.add_container(
                _CONTAINER,
                image=ecs.ContainerImage.from_asset(
                    str(context),
                    file="copier_image/Dockerfile",
                    platform=ecr_assets.Platform.LINUX_ARM64 if arm else ecr_assets.Platform.LINUX_AMD64,
                ),
                environment=settings.environment() | proxies(deployment) | trust.environment(deployment, _ETC),
                logging=ecs.LogDrivers.aws_logs(stream_prefix=_CONTAINER, log_group=self.log_group),
            )

    def allow_running(self, role: iam.Role) -> None:
        """Let `role` run this task on this cluster, watch its tasks and stop them."""
        on_cluster = {"ArnEquals": {"ecs:cluster": self.cluster_arn}}
        allow(
            role,
            ["ecs:RunTask"],
            self._ecs_arn("task-definition", f"{self.family}:*"),
            conditions=on_cluster,
            reason="every revision: a deployment makes a new one while the function that runs still names the old one",
        )
        allow(
            role,
            ["ecs:DescribeTasks", "ecs:StopTask"],
            self._ecs_arn("task", f"{self.cluster_name}/*"),
            conditions=on_cluster,
            reason="a task's id is known when it has been started",
        )
        # A task carries its task definition's tags, which are those that the stack was deployed with.
        allow(
            role,
            ["ecs:TagResource"],
            self._ecs_arn("task", f"{self.cluster_name}/*"),
            conditions={"StringEquals": {"ecs:CreateAction": "RunTask"}},
            reason="a task's id is known when it has been started",
        )
        allow(
            role,
            ["ecs:ListTasks"],
            "*",
            conditions=on_cluster,
            reason="ListTasks is narrowed to a cluster by condition, not by resource (service authorization reference)",
        )
        allow(
            role,
            ["iam:PassRole"],
            self.task_role.role_arn,
            self.execution_role.role_arn,
            conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        )

    def _own_cluster(self, name: str) -> str:
        # By name, since the policies say it with a wildcard after it, and a reviewer should be able to read those.
        cluster = ecs.CfnCluster(self, "Cluster", cluster_name=name)
        acknowledge(
            cluster,
            "ECS4",
            "outcome, duration and log of each copy are in the ledger; metrics of each container would cost more than "
            "the container, which lives for a minute",
        )
        return cluster.attr_arn

    def _ecs_arn(self, resource: str, name: str) -> str:
        return Stack.of(self).format_arn(service="ecs", resource=resource, resource_name=name)

    def _our_tasks(self) -> iam.ServicePrincipal:
        """ECS on behalf of tasks of this account and region only (ECS developer guide, IAM roles for tasks)."""
        stack = Stack.of(self)
        return iam.ServicePrincipal(
            "ecs-tasks.amazonaws.com",
            conditions={
                "StringEquals": {"aws:SourceAccount": stack.account},
                "ArnLike": {"aws:SourceArn": f"arn:{stack.partition}:ecs:{stack.region}:{stack.account}:*"},
            },
        )


@contextlib.contextmanager
def _context(authorities: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with what the image is built from, while the block lasts."""
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        for name in _CONTEXT:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (context / name).parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, context / name)
        for name, content in authorities.items():
            file = context / _ETC_SOURCE / name
            file.write_bytes(content)
            file.chmod(0o644)  # whatever the umask: the task's user must read it
        yield context
