"""The forwarder: next to the source, one rule, to the relay's bus and nowhere else."""

import json
from pathlib import Path

import pytest
from cfnlint.api import ManualArgs, lint  # type: ignore[import-untyped]  # ships no types

from ecr_relay.errors import ConfigError
from tests.infrastructure.conftest import BASE, FAR
from tests.infrastructure.template import Synthesized, resolved, synthesize
from tests.infrastructure.test_app import run

BUS = "arn:aws:events:us-east-1:111122223333:event-bus/default"
RULE = "arn:aws:events:us-west-2:444455556666:rule/ecr-relay-forwarder-rule"


def test_beside_the_source_and_without_assets(forwarder: Synthesized) -> None:
    manifest = json.loads((forwarder.out / "manifest.json").read_text(encoding="utf-8"))
    stack = manifest["artifacts"]["ecr-relay-forwarder"]
    assert stack["environment"] == "aws://444455556666/us-west-2"
    # No role of a bootstrapped account, and nothing to upload.
    assert not set(stack["properties"]) & {"assumeRoleArn", "cloudFormationExecutionRoleArn", "lookupRole"}
    assert not [one for one in manifest["artifacts"].values() if one["type"] == "cdk:asset-manifest"]
    assert forwarder.path.stat().st_size < 51_200  # what CloudFormation takes without a bucket


def test_to_the_relays_bus_as_a_role_of_its_own(forwarder: Synthesized) -> None:
    name, rule = forwarder.one("AWS::Events::Rule")
    [target] = rule["Targets"]
    [role], [queue] = forwarder.resources("AWS::IAM::Role"), forwarder.resources("AWS::SQS::Queue")
    assert resolved(target) == {
        "Id": "Relay",
        "Arn": BUS,
        "RoleArn": f"<{role}.Arn>",
        "DeadLetterConfig": {"Arn": f"<{queue}.Arn>"},
    }
    assert f"rule/{rule['Name']}" == RULE.rpartition(":")[2]
    assert forwarder.statements("Role") == [{"Action": "events:PutEvents", "Effect": "Allow", "Resource": BUS}]
    [statement] = forwarder.resources("AWS::IAM::Role")[role]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "444455556666"},
        "ArnEquals": {"aws:SourceArn": RULE},
    }
    # Permissions come first, since EventBridge does not retry what it may not do.
    [queue_policy], [role_policy] = (
        forwarder.resources(f"AWS::{kind}") for kind in ("SQS::QueuePolicy", "IAM::Policy")
    )
    assert {queue_policy, role_policy} <= set(forwarder.body["Resources"][name]["DependsOn"])


def test_its_dead_letters_are_the_rules_and_have_an_alarm(forwarder: Synthesized) -> None:
    [(queue, _)] = forwarder.resources("AWS::SQS::Queue").items()
    _, policy = forwarder.one("AWS::SQS::QueuePolicy")
    refusing, allowing = policy["PolicyDocument"]["Statement"]
    assert refusing["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert (allowing["Action"], allowing["Condition"]) == ("sqs:SendMessage", {"ArnEquals": {"aws:SourceArn": RULE}})
    _, alarm = forwarder.one("AWS::CloudWatch::Alarm")
    assert resolved(alarm["Dimensions"]) == [{"Name": "QueueName", "Value": f"<{queue}.QueueName>"}]


def test_nothing_else(forwarder: Synthesized) -> None:
    kinds = sorted(resource["Type"] for resource in forwarder.body["Resources"].values())
    assert kinds == [
        "AWS::CloudWatch::Alarm",
        "AWS::Events::Rule",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::SQS::Queue",
        "AWS::SQS::QueuePolicy",
    ]


def test_cfn_lint_finds_nothing(forwarder: Synthesized) -> None:
    found = lint(forwarder.path.read_text(encoding="utf-8"), config=ManualArgs(regions=["us-west-2"]))
    assert [str(match) for match in found] == []


OCI = """
source = { type = "oci", host = "quay.io" }
destinations = [{ name = "europe", account = "111122223333", region = "eu-west-1" }]
rules = [{ repositories = ["team/app"] }]
"""


@pytest.mark.parametrize(("toml", "says"), [(BASE, "it needs no forwarder"), (OCI, "quay.io sends no events")])
def test_where_there_is_nothing_to_forward(toml: str, says: str, out: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        synthesize(toml, out, forwarder=True)


def test_as_a_command(out: Path, tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(FAR, encoding="utf-8")
    ran = run("--forwarder", "--config", str(config), "--out", str(out))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert (out / "ecr-relay-forwarder.template.json").is_file()
    config.write_text(BASE, encoding="utf-8")
    ran = run("--forwarder", "--config", str(config), "--out", str(out))
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)


def test_no_event_crosses_partitions(out: Path) -> None:
    beijing = FAR.replace('region = "us-west-2"', 'region = "cn-north-1"')
    with pytest.raises(
        ConfigError, match=r"deployment\.region: us-east-1 is in partition aws, and events of the source"
    ):
        synthesize(beijing, out, forwarder=True)
