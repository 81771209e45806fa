"""What `doctor` asks IAM about is what the stack grants, and what the programs call."""

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.operate.doctor import access
from tests.infrastructure.template import Synthesized
from tests.infrastructure.test_permissions import granted

CONFIG = {
    "source": {"region": "us-east-1", "account": "111122223333"},
    "destinations": [{"name": "west", "region": "eu-west-1", "account": "111122223333", "prefix": "mirror"}],
}


class _Deployment:
    """Whatever it is asked for, in the way AWS answers it."""

    outputs: Any
    config = RelayConfig.model_validate_json(json.dumps(CONFIG))

    def __init__(self) -> None:
        self.asked: dict[str, set[str]] = {}
        self.outputs = self
        self.functions = self.ecs = self

    def __getattr__(self, name: str) -> Any:
        return f"/{name}"

    def queue_arn(self, url: str) -> str:
        return "arn:aws:sqs:us-east-1:111122223333:queue"

    def get_function_configuration(self, **_: str) -> dict[str, str]:
        return {"Role": "role"}

    def describe_task_definition(self, **_: str) -> dict[str, dict[str, str]]:
        return {"taskDefinition": {"taskRoleArn": "task", "executionRoleArn": "pull"}}

    def client(self, _service: str) -> "_Deployment":
        return self

    def simulate_principal_policy(self, *, ActionNames: list[str], ResourceArns: list[str], **_: Any) -> Any:
        for action in ActionNames:
            self.asked.setdefault(action, set()).update(ResourceArns)
        return {"EvaluationResults": []}


@pytest.mark.parametrize(
    ("question", "part"),
    [(access.consumer, "Consumer"), (access.reconcile, "Reconcile"), (access.copier, "CopierTaskRole")],
)
def test_doctor_asks_about_what_is_granted(existing: Synthesized, question: Any, part: str) -> None:
    deployment = _Deployment()
    list(question(deployment))
    policies = granted(existing, part)
    assert set(deployment.asked) <= set(policies)
    for service in ("dynamodb:", "ecr:", "ssm:", "sqs:"):
        assert {name for name in policies if name.startswith(service)} <= set(deployment.asked)
    for action, resources in deployment.asked.items():
        if action.startswith("ecr:"):
            assert all(any(fnmatchcase(one, pattern) for pattern in policies[action]) for one in resources), action
