"""What the design promises of queues, functions, ledger, copier and parameter."""

import json
from pathlib import Path

import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.errors import ConfigError
from stack.bundling import ROOT
from tests.infrastructure.conftest import BASE
from tests.infrastructure.template import Json, Synthesized, synthesize

DAY = 86_400


def test_the_copy_queue_redrives_after_three_receives(example: Synthesized) -> None:
    queues = example.resources("AWS::SQS::Queue")
    copy = queues[example.output("QueueUrl")["Ref"]]
    dead = example.output("DeadLetterQueueUrl")["Ref"]
    assert copy == {
        "VisibilityTimeout": 360,
        "MessageRetentionPeriod": 7 * DAY,
        "SqsManagedSseEnabled": True,
        "RedrivePolicy": {"deadLetterTargetArn": {"Fn::GetAtt": [dead, "Arn"]}, "maxReceiveCount": 3},
    }
    for output in ("DeadLetterQueueUrl", "EventDeadLetterQueueUrl"):
        assert queues[example.output(output)["Ref"]] == {
            "MessageRetentionPeriod": 14 * DAY,
            "SqsManagedSseEnabled": True,
        }


def test_the_consumer_and_what_feeds_it(example: Synthesized) -> None:
    name, function = example.one("AWS::Lambda::Function", "Consumer")
    assert function["Handler"] == "handlers.consumer.handler"
    assert function["Runtime"] == "python3.13"
    assert function["Timeout"] == 300
    assert function["ReservedConcurrentExecutions"] == 10
    assert function["RecursiveLoop"] == "Allow"
    assert example.output("ConsumerFunction") == {"Ref": name}
    _, mapping = example.one("AWS::Lambda::EventSourceMapping")
    assert mapping == {
        "EventSourceArn": {"Fn::GetAtt": [example.output("QueueUrl")["Ref"], "Arn"]},
        "FunctionName": {"Ref": name},
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 1,
        "ScalingConfig": {"MaximumConcurrency": 10},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }


def test_the_reconcile(example: Synthesized) -> None:
    name, function = example.one("AWS::Lambda::Function", "Reconcile")
    assert function["Handler"] == "handlers.reconcile.handler"
    assert function["Timeout"] == 900
    assert function["ReservedConcurrentExecutions"] == 2
    assert "RecursiveLoop" not in function
    assert example.output("ReconcileFunction") == {"Ref": name}


def test_the_ledger(example: Synthesized) -> None:
    name, table = example.one("AWS::DynamoDB::Table")
    assert example.output("LedgerTable") == {"Ref": name}
    assert {key: value for key, value in table.items() if key != "AttributeDefinitions"} == {
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by-state",
                "KeySchema": [
                    {"AttributeName": "state", "KeyType": "HASH"},
                    {"AttributeName": "changed_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        "BillingMode": "PAY_PER_REQUEST",
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
    }
    for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
        assert example.body["Resources"][name][policy] == "Retain"


@pytest.mark.parametrize(
    ("variant", "architecture", "task_architecture"), [("example", "arm64", "ARM64"), ("x86", "x86_64", "X86_64")]
)
def test_the_architecture(
    request: pytest.FixtureRequest, variant: str, architecture: str, task_architecture: str
) -> None:
    synthesized: Synthesized = request.getfixturevalue(variant)
    for function in synthesized.resources("AWS::Lambda::Function").values():
        assert function["Architectures"] == [architecture]
    _, task = synthesized.one("AWS::ECS::TaskDefinition")
    assert task["RuntimePlatform"] == {"CpuArchitecture": task_architecture, "OperatingSystemFamily": "LINUX"}
    assets = json.loads(next(synthesized.out.glob("*.assets.json")).read_text(encoding="utf-8"))
    [image] = assets["dockerImages"].values()
    assert image["source"]["platform"] == ("linux/arm64" if architecture == "arm64" else "linux/amd64")


def test_the_copiers_task(example: Synthesized) -> None:
    name, task = example.one("AWS::ECS::TaskDefinition")
    assert example.output("TaskDefinition") == {"Ref": name}
    assert task["RequiresCompatibilities"] == ["FARGATE"]
    assert task["NetworkMode"] == "awsvpc"
    assert (task["Cpu"], task["Memory"]) == ("1024", "2048")
    [container] = task["ContainerDefinitions"]
    assert container["Name"] == "copier"
    assert "Command" not in container
    assert "EntryPoint" not in container
    logs = container["LogConfiguration"]["Options"]
    assert logs["awslogs-group"] == example.output("CopierLogGroup")


def test_the_image_is_made_of_what_it_needs_and_nothing_else(example: Synthesized) -> None:
    assets = json.loads(next(example.out.glob("*.assets.json")).read_text(encoding="utf-8"))
    [image] = assets["dockerImages"].values()
    assert image["source"]["dockerFile"] == "copier_image/Dockerfile"
    context = example.context
    files = {path.relative_to(context).as_posix() for path in context.rglob("*") if path.is_file()}
    assert {path.partition("/")[0] for path in files} == {
        "README.md",
        "copier_image",
        "ecr_relay",
        "pyproject.toml",
        "requirements",
    }
    assert {path for path in files if path.startswith("requirements/")} == {"requirements/copier.txt"}
    assert not [path for path in files if path.endswith(".pyc")]
    assert files >= {path.relative_to(ROOT).as_posix() for path in (ROOT / "ecr_relay").rglob("*.py")}


def test_what_the_dockerfile_copies_is_there_to_copy(example: Synthesized) -> None:
    assets = json.loads(next(example.out.glob("*.assets.json")).read_text(encoding="utf-8"))
    [image] = assets["dockerImages"].values()
    context = example.context
    lines = (ROOT / image["source"]["dockerFile"]).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    for line in lines:
        instruction, _, rest = line.strip().partition(" ")
        words = [word for word in rest.split() if not word.startswith("--")]
        if instruction in ("COPY", "ADD") and "--from=" not in rest:
            for source in words[:-1]:
                assert list(context.glob(source.lstrip("/").rstrip("/"))), line


def test_the_parameter_holds_the_configuration(example: Synthesized) -> None:
    name, parameter = example.one("AWS::SSM::Parameter")
    assert example.output("ConfigParameter") == {"Ref": name}
    assert parameter["Name"] == "/ecr-relay/config"
    assert parameter["Tier"] == "Intelligent-Tiering"
    assert RelayConfig.from_parameter(parameter["Value"]).source.id == "111122223333.us-east-1"


def test_a_configuration_longer_than_any_parameter_is_refused(out: Path) -> None:
    globs = ", ".join(f'"team-{number:03}/service-*"' for number in range(400))
    with pytest.raises(ConfigError, match="an SSM parameter holds 8192"):
        synthesize(f"{BASE}\nrules = [{{ repositories = [{globs}] }}]", out)


def test_what_the_configuration_says_of_the_deployment(out: Path) -> None:
    deployment = """
        [deployment]
        stack_name = "relay-two"
        account = "444455556666"
        region = "ap-south-2"
        reconcile_at = "23:09"
        task_cpu = 4096
        task_memory_mib = 16384
        log_retention_days = 365
        supervise_seconds = 20
    """
    synthesized = synthesize(BASE + deployment, out)
    assert synthesized.path.name == "relay-two.template.json"
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["artifacts"]["relay-two"]["environment"] == "aws://444455556666/ap-south-2"
    schedules = [rule.get("ScheduleExpression") for rule in synthesized.resources("AWS::Events::Rule").values()]
    assert "cron(9 23 * * ? *)" in schedules
    _, task = synthesized.one("AWS::ECS::TaskDefinition")
    assert (task["Cpu"], task["Memory"]) == ("4096", "16384")
    assert {group["RetentionInDays"] for group in synthesized.resources("AWS::Logs::LogGroup").values()} == {365}
    _, function = synthesized.one("AWS::Lambda::Function", "Consumer")
    assert function["Environment"]["Variables"]["ECR_RELAY_SUPERVISE_SECONDS"] == "20"


def test_a_small_network_of_its_own(example: Synthesized) -> None:
    assert len(example.resources("AWS::EC2::VPC")) == 1
    subnets = example.resources("AWS::EC2::Subnet").values()
    assert [subnet["AvailabilityZone"] for subnet in subnets] == [
        {"Fn::Select": [zone, {"Fn::GetAZs": ""}]} for zone in range(2)
    ]
    assert not any(subnet["MapPublicIpOnLaunch"] for subnet in subnets)
    assert not example.resources("AWS::EC2::NatGateway")


def test_an_existing_network_and_cluster_are_used_as_they_are(existing: Synthesized) -> None:
    kinds = {resource["Type"] for resource in existing.body["Resources"].values()}
    assert {kind for kind in kinds if kind.startswith("AWS::EC2::")} == {"AWS::EC2::SecurityGroup"}
    assert "AWS::ECS::Cluster" not in kinds
    _, group = existing.one("AWS::EC2::SecurityGroup")
    assert group["VpcId"] == "vpc-0123456789abcdef0"


def test_functions_in_a_private_network(existing: Synthesized, full: Synthesized) -> None:
    name, _ = full.one("AWS::EC2::SecurityGroup")
    for function in full.resources("AWS::Lambda::Function").values():
        assert function["VpcConfig"] == {
            "SubnetIds": ["subnet-0123456789abcdef0"],
            "SecurityGroupIds": [{"Fn::GetAtt": [name, "GroupId"]}],
        }
    for part in ("Consumer", "Reconcile"):
        [statement] = [one for one in full.statements(part) if "ec2:CreateNetworkInterface" in one["Action"]]
        assert statement["Resource"] == "*"
    # And in none, with no such permission, unless it is said.
    assert not [one for one in existing.resources("AWS::Lambda::Function").values() if "VpcConfig" in one]
    assert "ec2:" not in json.dumps(existing.resources("AWS::IAM::Policy"))


def test_a_proxy_is_for_all_three(full: Synthesized, existing: Synthesized) -> None:
    def environments(synthesized: Synthesized) -> list[Json]:
        _, task = synthesized.one("AWS::ECS::TaskDefinition")
        pairs = task["ContainerDefinitions"][0]["Environment"]
        functions = synthesized.resources("AWS::Lambda::Function").values()
        return [
            {pair["Name"]: pair["Value"] for pair in pairs},
            *(one["Environment"]["Variables"] for one in functions),
        ]

    assert len(environments(full)) == 3
    for environment in environments(full):
        assert environment["HTTPS_PROXY"] == "http://proxy.example.com:3128"
        assert environment["NO_PROXY"] == ".amazonaws.com,registry.example.com"
        assert "HTTP_PROXY" not in environment  # by HTTP a task asks for its credentials, which no proxy has
    assert not [environment for environment in environments(existing) if "HTTPS_PROXY" in environment]


def test_outputs_are_what_the_command_line_looks_for(example: Synthesized, existing: Synthesized) -> None:
    for synthesized in (example, existing):
        assert set(synthesized.body["Outputs"]) == {
            "AlarmTopic",
            "Cluster",
            "ConfigParameter",
            "ConsumerFunction",
            "CopierLogGroup",
            "DeadLetterQueueUrl",
            "EventDeadLetterQueueUrl",
            "LedgerTable",
            "QueueUrl",
            "ReconcileFunction",
            "TaskDefinition",
        }
