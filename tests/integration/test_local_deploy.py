"""`local/deploy.py` on a small cloud assembly, and what MiniStack 1.5.33's CloudFormation drops of a template.

What is put back is in `deploy.PUT_BACK`; when `test_ministack_drops` fails, MiniStack keeps it.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local import deploy
from local.deploy import Assembly, Clients, DeployError
from local.servers import Servers
from tests.integration import local_clouds as clouds

TEMPLATE: dict[str, Any] = {
    "Resources": {
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Code": {"S3Bucket": {"Fn::Sub": "assets-${AWS::AccountId}"}, "S3Key": "code.zip"},
                "Handler": "index.handler",
                "Runtime": "python3.13",
                "Role": "arn:aws:iam::000000000000:role/any",
                "ReservedConcurrentExecutions": 7,
                "RecursiveLoop": "Allow",
            },
        },
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                "BillingMode": "PAY_PER_REQUEST",
                "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
                "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            },
        },
        "Task": {
            "Type": "AWS::ECS::TaskDefinition",
            "Properties": {
                "Family": "family",
                "RuntimePlatform": {"CpuArchitecture": "ARM64", "OperatingSystemFamily": "LINUX"},
                "ContainerDefinitions": [
                    {
                        "Name": "it",
                        "Image": "any",
                        "Secrets": [{"Name": "TOKEN", "ValueFrom": "arn:aws:ssm:us-east-1:000000000000:parameter/t"}],
                    }
                ],
            },
        },
    },
    "Outputs": {"FunctionName": {"Value": {"Ref": "Function"}}, "TableName": {"Value": {"Ref": "Table"}}},
}


def assembly(folder: Path, template: dict[str, Any], stacks: int = 1) -> Assembly:
    """As `cdk synth` writes one."""
    (folder / "code").mkdir()
    (folder / "code" / "index.py").write_text("def handler(event, context):\n    return event\n", encoding="utf-8")
    (folder / "stack.template.json").write_text(json.dumps(template), encoding="utf-8")
    bucket = "assets-${AWS::AccountId}"
    files = {
        "code": {
            "source": {"path": "code", "packaging": "zip"},
            "destinations": {"here": {"bucketName": bucket, "objectKey": "code.zip"}},
        },
        "template": {
            "source": {"path": "stack.template.json", "packaging": "file"},
            "destinations": {"here": {"bucketName": bucket, "objectKey": "template.json"}},
        },
    }
    (folder / "stack.assets.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    artifacts: dict[str, Any] = {"assets": {"type": "cdk:asset-manifest", "properties": {"file": "stack.assets.json"}}}
    properties = {
        "templateFile": "stack.template.json",
        "stackTemplateAssetObjectUrl": f"s3://{bucket}/template.json",
    }
    for number in range(stacks):
        artifacts[f"stack-{number}"] = {"type": "aws:cloudformation:stack", "properties": properties}
    (folder / "manifest.json").write_text(json.dumps({"artifacts": artifacts}), encoding="utf-8")
    return Assembly.read(folder)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with clouds.cloud(tmp_path_factory.mktemp("cloud"), corrected=True) as running:
        yield running


@pytest.fixture(scope="module")
def put_back(cloud: Servers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clients, dict[str, str]]:
    clients = cloud.at(("000000000001", "eu-central-1"))
    return clients, deploy.deploy(assembly(tmp_path_factory.mktemp("assembly"), TEMPLATE), clients)


@pytest.fixture(scope="module")
def dropped(cloud: Servers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clients, dict[str, str]]:
    clients = cloud.at(("000000000002", "eu-central-1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy, "PUT_BACK", {})
        return clients, deploy.deploy(assembly(tmp_path_factory.mktemp("assembly"), TEMPLATE), clients)


Look = Callable[[Clients, dict[str, str]], Any]


def reserved_concurrency(clients: Clients, outputs: dict[str, str]) -> Any:
    answer = clients("lambda").get_function_concurrency(FunctionName=outputs["FunctionName"])
    return answer.get("ReservedConcurrentExecutions")


def recursive_loop(clients: Clients, outputs: dict[str, str]) -> Any:
    return clients("lambda").get_function_recursion_config(FunctionName=outputs["FunctionName"])["RecursiveLoop"]


def time_to_live(clients: Clients, outputs: dict[str, str]) -> Any:
    answer = clients("dynamodb").describe_time_to_live(TableName=outputs["TableName"])
    return answer["TimeToLiveDescription"].get("AttributeName")


def recovery(clients: Clients, outputs: dict[str, str]) -> Any:
    answer = clients("dynamodb").describe_continuous_backups(TableName=outputs["TableName"])
    return answer["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]


def platform(clients: Clients, outputs: dict[str, str]) -> Any:
    definition = clients("ecs").describe_task_definition(taskDefinition="family")["taskDefinition"]
    return definition.get("runtimePlatform", {}).get("cpuArchitecture")


def secrets(clients: Clients, outputs: dict[str, str]) -> Any:
    definition = clients("ecs").describe_task_definition(taskDefinition="family")["taskDefinition"]
    return [secret.get("name") for secret in definition["containerDefinitions"][0].get("secrets", [])]


GAPS: list[tuple[Look, Any]] = [
    (reserved_concurrency, 7),
    (recursive_loop, "Allow"),
    (time_to_live, "expires_at"),
    (recovery, "ENABLED"),
]
LEFT: list[tuple[Look, Any]] = [(platform, "ARM64"), (secrets, ["TOKEN"])]
"""Dropped, and left so: no task here has an architecture, and the template has no secrets."""


@pytest.mark.parametrize(("look", "aws"), GAPS + LEFT)
def test_ministack_drops(look: Look, aws: Any, dropped: tuple[Clients, dict[str, str]]) -> None:
    assert look(*dropped) != aws


@pytest.mark.parametrize(("look", "aws"), GAPS)
def test_it_is_put_back(look: Look, aws: Any, put_back: tuple[Clients, dict[str, str]]) -> None:
    assert look(*put_back) == aws


def test_the_code_is_the_assets(put_back: tuple[Clients, dict[str, str]]) -> None:
    clients, outputs = put_back
    answer = clients("lambda").invoke(FunctionName=outputs["FunctionName"], Payload=b'{"a": 1}')
    assert json.loads(answer["Payload"].read()) == {"a": 1}


def test_a_stack_that_fails_says_why(cloud: Servers, tmp_path: Path) -> None:
    secure = {"Type": "SecureString", "Value": "no"}
    template = {"Resources": {"Wrong": {"Type": "AWS::SSM::Parameter", "Properties": secure}}}
    with pytest.raises(DeployError, match=r"could not create the stack .*Wrong: .*SecureString"):
        deploy.deploy(assembly(tmp_path, template), cloud.at(("000000000003", "us-east-1")))


def test_a_template_that_is_refused_says_why(cloud: Servers, tmp_path: Path) -> None:
    template = {"Resources": {"Unknown": {"Type": "AWS::No::Such"}}}
    with pytest.raises(DeployError, match=r"refuses the template: .*AWS::No::Such"):
        deploy.deploy(assembly(tmp_path, template), cloud.at(("000000000004", "us-east-1")))


def test_one_stack_is_deployed_and_no_other_number(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="holds 2 stacks"):
        assembly(tmp_path, TEMPLATE, stacks=2)


def test_a_function_that_cannot_be_imported_is_no_ready_cloud(cloud: Servers, tmp_path: Path) -> None:
    clients = cloud.clients
    broken = {"Function": json.loads(json.dumps(TEMPLATE["Resources"]["Function"]))}
    broken["Function"]["Properties"]["Handler"] = "missing.handler"
    template = {"Resources": broken, "Outputs": {"FunctionName": {"Value": {"Ref": "Function"}}}}
    outputs = deploy.deploy(assembly(tmp_path, template), clients)
    with pytest.raises(DeployError, match="No module named 'missing'"):
        deploy.warm(clients, outputs["FunctionName"])
