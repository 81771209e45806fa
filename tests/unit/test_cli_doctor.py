"""`ecr-relay doctor`: what a deployment lacks, with the remedy."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ecr_relay.config import RelayConfig
from ecr_relay.errors import Permanent, RegistryDown
from tests.unit.conftest import ACCOUNT, CONFIG, REGION
from tests.unit.office import Office, opened, refused

OWN = "123456789012"
"""The account that moto is, and the relay's."""
SECRET = "arn:aws-cn:secretsmanager:us-east-1:123456789012:secret:china-AbCdEf"
ROLE = "arn:aws:iam::222222222222:role/relay"


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    west = {"name": "west", "region": "eu-west-1", "account": OWN}
    with opened(RelayConfig.model_validate_json(json.dumps({**CONFIG, "destinations": [west]})), monkeypatch) as office:
        yield office


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """Destinations that are reached as somebody else: by a key pair in a secret, and by a role."""
    destinations = [
        {"name": "china", "region": "cn-north-1", "account": ACCOUNT, "credentials": {"secret_arn": SECRET}},
        {"name": "partner", "region": "eu-west-1", "account": "222222222222", "credentials": {"role_arn": ROLE}},
    ]
    config = RelayConfig.model_validate_json(json.dumps({**CONFIG, "destinations": destinations}))
    with opened(config, monkeypatch) as office:
        yield office


def checks(office: Office, status: int = 0) -> dict[str, Any]:
    return {check["name"]: check for check in office.json("doctor", status=status)["checks"]}


def test_nothing_is_wrong(office: Office) -> None:
    office.world.source.push("team/app", "one", "1.0")
    found = checks(office)
    assert {name: check["result"] for name, check in found.items()} == dict.fromkeys(
        (
            "configuration",
            "push events",
            "redrive policy",
            "consuming",
            "cluster",
            "alarm topic",
            "consumer's role",
            "reconcile's role",
            "copier's role",
            "source",
            "west: registry",
            "reserved concurrency",
            "Lambda quota",
            "Fargate quota",
            "west: PutImage quota",
            "dead letters",
            "lost events",
            "leases",
            "west: breaker",
        ),
        "fine",
    )
    assert {check["remedy"] for check in found.values()} == {None}
    assert max(map(len, office.run("doctor").stdout.splitlines())) <= 80


def test_a_repository_that_rules_name_and_the_source_lacks(office: Office) -> None:
    rules = [{"repositories": ["team/app", "tema/app"]}]
    value = json.dumps(json.loads(office.world.config.to_parameter()) | {"rules": rules})
    office.ssm.put_parameter(Name="/relay/config", Value=value, Overwrite=True)
    found = checks(office)
    assert found["source"]["finding"] == "answers, and has no repository"
    office.world.source.push("team/app", "one", "1.0")
    found = checks(office)
    assert (found["source"]["result"], found["source: named repositories"]["result"]) == ("fine", "warning")
    assert found["source: named repositories"]["finding"] == "rules name what the source does not have: tema/app"


def test_faults_come_with_the_remedy(office: Office) -> None:
    office.run("pause")
    office.run("pause", "--destination", "west")
    office.bury("junk")
    office.sqs.set_queue_attributes(QueueUrl=office.queue_url, Attributes={"RedrivePolicy": ""})
    office.world.ledger.notes.open_breaker("west", "token has expired")
    office.world.west.fail = [RegistryDown("no such host")]
    office.world.source.fail = [Permanent("denied")]
    office.plane.denied.add("concurrency")
    found = checks(office, status=1)
    wrong = {name: check["result"] for name, check in found.items() if check["result"] != "fine"}
    assert wrong == {
        "redrive policy": "fault",
        "west: paused": "warning",
        "consuming": "fault",
        "source": "fault",
        "west: registry": "fault",
        "reserved concurrency": "unknown",
        "dead letters": "warning",
        "west: breaker": "fault",
    }
    assert found["consuming"]["remedy"] == "`ecr-relay resume`"
    assert found["west: paused"]["remedy"] == "`ecr-relay resume --destination west`"
    assert "no permission for GetFunctionConcurrency" in found["reserved concurrency"]["finding"]


def test_a_broken_configuration_is_one_fault_and_the_rest_is_asked(office: Office) -> None:
    office.ssm.put_parameter(Name="/relay/config", Value="{}", Type="String", Overwrite=True)
    office.calls["GetAccountSettings"] = refused("AccessDeniedException", "GetAccountSettings")
    found = {name: check["result"] for name, check in checks(office, status=1).items()}
    assert (found["configuration"], found["Lambda quota"], found["source"]) == ("fault", "unknown", "fault")
    assert (found["redrive policy"], found["Fargate quota"]) == ("fine", "fine")


def test_a_rule_that_does_not_match_a_push_of_the_source(office: Office) -> None:
    events = boto3.client("events", region_name=REGION)
    events.disable_rule(Name="pushes")
    found = checks(office, status=1)["push events"]
    assert (found["result"], found["finding"][:24]) == ("fault", "rule pushes is disabled:")
    events.put_rule(Name="pushes", EventPattern=json.dumps({"account": ["999999999999"]}), State="ENABLED")
    assert "no EventBridge rule matches" in checks(office, status=1)["push events"]["finding"]
    events.remove_targets(Rule="pushes", Ids=["queue"])
    assert "no EventBridge rule matches" in checks(office, status=1)["push events"]["finding"]


def test_a_role_that_may_not_is_named_with_the_call(office: Office) -> None:
    asked: list[dict[str, Any]] = []

    def simulate(arguments: dict[str, Any]) -> Any:
        asked.append(arguments)
        decide = {"ecr:PutImage": "explicitDeny"}
        return {
            "EvaluationResults": [
                {"EvalActionName": name, "EvalDecision": decide.get(name, "allowed")}
                for name in arguments["ActionNames"]
            ]
        }

    office.calls["SimulatePrincipalPolicy"] = simulate
    found = checks(office, status=1)
    assert (found["reconcile's role"]["result"], found["consumer's role"]["result"]) == ("fine", "fault")
    where = f"arn:aws:ecr:eu-west-1:{OWN}:repository/any"
    assert found["copier's role"]["finding"] == f"may not: ecr:PutImage on {where} (explicitDeny)"
    of = {one["PolicySourceArn"].rpartition("/")[2] for one in asked}
    assert of == {"consumer", "reconcile", "copier"}
    contexts = {one["ActionNames"][0]: one["ContextEntries"] for one in asked}
    assert contexts["ecs:RunTask"][0]["ContextKeyName"] == "ecs:cluster"


def test_what_may_not_be_asked_or_is_not_there_is_unknown(office: Office) -> None:
    def away(_arguments: dict[str, Any]) -> Any:
        raise EndpointConnectionError(endpoint_url="https://servicequotas.us-east-1.amazonaws.com")

    office.calls["GetServiceQuota"] = away
    for call in ("SimulatePrincipalPolicy", "TestEventPattern", "ListStackResources"):
        office.calls[call] = refused("AccessDenied", call)
    found = checks(office)
    unknown = {name for name, check in found.items() if check["result"] == "unknown"}
    assert unknown == {
        "push events",
        "alarm topic",
        "consumer's role",
        "reconcile's role",
        "copier's role",
        "Fargate quota",
        "west: PutImage quota",
    }
    assert "no permission for SimulatePrincipalPolicy" in found["copier's role"]["finding"]


def test_quotas_that_are_too_small(office: Office) -> None:
    values = {"L-3032A538": 6.0, "L-AD52DFB2": 5.0}
    office.calls["GetServiceQuota"] = refused("NoSuchResourceException", "GetServiceQuota")
    office.calls["GetAWSDefaultServiceQuota"] = lambda arguments: {"Quota": {"Value": values[arguments["QuotaCode"]]}}
    found = checks(office)
    assert found["Fargate quota"]["result"] == "warning"
    assert found["Fargate quota"]["finding"].startswith("6 vCPU at once")
    assert found["west: PutImage quota"]["finding"] == "5 a second; put_image_per_second takes 8 of them"
    assert "put_image_per_second below 5" in found["west: PutImage quota"]["remedy"]


@pytest.mark.parametrize(
    ("subscriptions", "result", "remedy"),
    [
        ([], "warning", "Nobody hears an alarm"),
        (["PendingConfirmation"], "warning", "Follow the link"),
        (["arn:aws:sns:us-east-1:1:t:1"], "fine", None),
    ],
)
def test_alarms_that_nobody_hears(office: Office, subscriptions: list[str], result: str, remedy: str | None) -> None:
    office.calls["ListSubscriptionsByTopic"] = lambda _arguments: {
        "Subscriptions": [{"SubscriptionArn": arn} for arn in subscriptions]
    }
    found = checks(office)["alarm topic"]
    assert (found["result"], (found["remedy"] or "")[: len(remedy or "")]) == (result, remedy or "")
    confirmed = sum(arn.startswith("arn:") for arn in subscriptions)
    assert found["finding"] == f"subscriptions: {confirmed} confirmed, {len(subscriptions) - confirmed} not"


@pytest.mark.parametrize("clusters", [[], [{"status": "INACTIVE"}]])
def test_a_cluster_that_is_gone(office: Office, clusters: list[Any]) -> None:
    office.calls["DescribeClusters"] = lambda _arguments: {"clusters": clusters}
    found = checks(office, status=1)["cluster"]
    assert (found["result"], found["remedy"]) == ("fault", "Deploy the stack again: it was changed by hand")
    assert "no copy task can run" in found["finding"]


def test_a_named_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RelayConfig.model_validate_json(json.dumps({**CONFIG, "deployment": {"cluster": "relay"}}))
    with opened(config, monkeypatch) as office:
        office.calls["DescribeClusters"] = lambda _arguments: {"clusters": []}
        remedy = checks(office, status=1)["cluster"]["remedy"]
        assert remedy.startswith("Make it (`aws ecs create-cluster --cluster-name relay`)")


def test_a_secret_that_is_not_there(far: Office) -> None:
    answer: Any = {"Error": {"Code": "ResourceNotFoundException", "Message": "can't find the specified secret."}}

    def missing(_arguments: dict[str, Any]) -> Any:
        raise ClientError(answer, "DescribeSecret")

    far.calls["DescribeSecret"] = missing
    found = checks(far, status=1)["china: access key"]
    assert (found["result"], found["finding"]) == ("fault", f"there is no secret {SECRET}")
    assert found["remedy"].startswith("Create it, or correct secret_arn")
    far.world.destinations["china"].fail = [RegistryDown("reading secret: cannot find it.")]
    said = " ".join(far.run("doctor").stdout.split())
    assert ".. " not in said
    assert "stack deleted" not in said


def test_old_keys_are_named_and_never_shown(far: Office) -> None:
    asked: list[str] = []

    def describe(_arguments: dict[str, Any]) -> Any:
        return {"LastChangedDate": datetime.now(UTC) - timedelta(days=100)}

    far.calls["DescribeSecret"] = describe
    far.calls["GetSecretValue"] = lambda arguments: asked.append(arguments["SecretId"])
    result = far.run("doctor", "--json")
    found = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert found["china: access key"]["result"] == "warning"
    assert found["china: access key"]["finding"] == "in its secret for 100 days"
    assert "new key" in found["china: access key"]["remedy"]
    assert "partner: access key" not in found
    assert asked == []
    assert found["china: PutImage quota"]["result"] == "unknown"
    far.calls["DescribeSecret"] = refused("AccessDeniedException", "DescribeSecret")
    assert checks(far)["china: access key"]["result"] == "unknown"


def test_the_relays_credentials_that_are_not_the_operators(far: Office) -> None:
    refusal = RegistryDown("assuming the role: AccessDenied: not authorized")
    answer: Any = {"Error": {"Code": "AccessDenied", "Message": "not authorized"}}
    refusal.__cause__ = ClientError(answer, "AssumeRole")
    far.world.destinations["partner"].fail = [refusal]
    far.calls["DescribeSecret"] = refused("AccessDeniedException", "DescribeSecret")
    found = checks(far)["partner: registry"]
    assert found["result"] == "unknown"
    assert found["finding"].startswith("you may not be whom it is reached as, though the relay may")
