"""Fargate tasks, by ECS: one a run. `startedBy` and `clientToken` are the run's id, which is the only override."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.errors import RelayError
from ecr_relay.settings import PREFIX, ConsumerSettings

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import TaskTypeDef

LEASE_OVER: Final = "ecr-relay: its lease is over"
"""Why we stop a task that runs on without renewing: as if its host had vanished, and not as an operator stops one."""

# By ECS's words and not by its codes: "Capacity is unavailable at this time" also comes as a ClientException, and the
# throttling of EC2 behind it as an InvalidParameterException (tests/unit/test_tasks.py).
_NO_CAPACITY: Final = re.compile(
    r"capacity is unavailable|RESOURCE:|reached the limit|(?:rate|limit) ?exceeded|throttl", re.IGNORECASE
)


class LaunchRefused(RelayError):
    """ECS said no, and there is no task. `passing`: capacity, quota or throttling; it may say yes later."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


class LaunchUnknown(RelayError):
    """No answer: there may be a task, or not."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """`over`: the container is gone, or never was. `reason` is ECS's, with the exit code if there was one."""

    arn: str
    over: bool
    pending: bool
    reason: str = ""
    passing: bool = False
    """Whether it ended for want of capacity, or was stopped: not the copy's fault, and it may be better soon."""
    started: bool = True
    """False if it is over and its container never ran: CannotPullContainerError, say."""


class Tasks:
    def __init__(self, client: "ECSClient", settings: ConsumerSettings) -> None:
        self._client = client
        self._settings = settings

    def launch(self, run: str) -> str:
        """Start the copier for a run; the task's ARN. Raises LaunchRefused or LaunchUnknown."""
        settings = self._settings
        try:
            answer = self._client.run_task(
                cluster=settings.cluster,
                taskDefinition=settings.task_definition,
                launchType="FARGATE",
                count=1,
                clientToken=run,
                startedBy=run,
                propagateTags="TASK_DEFINITION",
                networkConfiguration={
                    "awsvpcConfiguration": {
                        "subnets": list(settings.subnets),
                        "securityGroups": list(settings.security_groups),
                        "assignPublicIp": "ENABLED" if settings.assign_public_ip else "DISABLED",
                    }
                },
                overrides={
                    "containerOverrides": [
                        {"name": settings.container, "environment": [{"name": f"{PREFIX}RUN", "value": run}]}
                    ]
                },
            )
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                raise LaunchUnknown(f"RunTask: {error}") from error
            raise LaunchRefused(f"RunTask: {error}", passing=_NO_CAPACITY.search(str(error)) is not None) from error
        except BotoCoreError as error:
            raise LaunchUnknown(f"RunTask: {error}") from error
        if answer["tasks"]:
            return answer["tasks"][0]["taskArn"]
        reasons = "; ".join(f"{failure.get('reason')} {failure.get('detail', '')}" for failure in answer["failures"])
        # A refusal without an error is about capacity (RESOURCE:…, AGENT, Capacity is unavailable): ECS API failure
        # reasons. It may be over soon.
        raise LaunchRefused(f"RunTask: no task: {reasons or 'no reason given'}", passing=True)

    def states(self, arns: Iterable[str]) -> dict[str, TaskState]:
        """By ARN, of those that ECS knows: not yet of one just launched, and no more an hour after it stopped."""
        wanted = list(arns)
        if not wanted:
            return {}
        answer = self._client.describe_tasks(cluster=self._settings.cluster, tasks=wanted)
        return {task["taskArn"]: _state(task) for task in answer["tasks"]}

    def of_run(self, run: str) -> str | None:
        """The ARN of a run's task, for when RunTask's answer was lost; also one that stopped within the hour."""
        for status in ("RUNNING", "STOPPED"):
            arns = self._client.list_tasks(cluster=self._settings.cluster, startedBy=run, desiredStatus=status)[
                "taskArns"
            ]
            if arns:
                return arns[0]
        return None

    def stop(self, arn: str, reason: str) -> None:
        self._client.stop_task(cluster=self._settings.cluster, task=arn, reason=reason[:255])


def _state(task: "TaskTypeDef") -> TaskState:
    status, stop_code = task.get("lastStatus", ""), task.get("stopCode", "")
    stopped_reason = task.get("stoppedReason", "")
    parts = [stop_code, stopped_reason]
    for container in task.get("containers", []):
        parts.append(container.get("reason", ""))
        if "exitCode" in container:
            parts.append(f"exit code {container['exitCode']}")
    return TaskState(
        arn=task["taskArn"],
        over=status in ("DEPROVISIONING", "STOPPED"),
        pending=status in ("PROVISIONING", "PENDING", "ACTIVATING"),
        reason=": ".join(part for part in parts if part),
        passing=stop_code in ("SpotInterruption", "TerminationNotice")
        or (stop_code == "UserInitiated" and stopped_reason != LEASE_OVER)
        or (stop_code == "TaskFailedToStart" and _NO_CAPACITY.search(stopped_reason) is not None),
        started=stop_code != "TaskFailedToStart",
    )
