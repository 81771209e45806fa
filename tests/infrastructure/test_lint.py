"""cfn-lint and cdk-nag find nothing; and do find something where there is something."""

from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_sqs as sqs
from cdk_nag import AwsSolutionsChecks
from cfnlint.api import ManualArgs, lint  # type: ignore[import-untyped]  # ships no types

from tests.infrastructure.template import Synthesized


@pytest.mark.parametrize("variant", ["example", "x86", "existing", "far", "full", "oci"])
def test_cfn_lint_finds_nothing(request: pytest.FixtureRequest, variant: str) -> None:
    synthesized: Synthesized = request.getfixturevalue(variant)
    found = lint(synthesized.path.read_text(encoding="utf-8"), config=ManualArgs(regions=["us-east-1"]))
    assert [str(match) for match in found] == []


def test_cfn_lint_finds_something() -> None:
    found = lint('{"Resources": {"Queue": {"Type": "AWS::SQS::Queue", "Properties": {"Colour": "blue"}}}}')
    assert [match.rule.id for match in found] == ["E3002"]


def test_cdk_nag_is_asked(example: Synthesized, out: Path) -> None:
    """Its report lists what we acknowledged, so it has looked; and an assembly with a finding is not written."""
    report = (example.out / "validation-report.json").read_text(encoding="utf-8")
    assert '"acknowledgedId": "AwsSolutions::AwsSolutions-VPC7"' in report
    app = cdk.App(outdir=str(out), stack_traces=False)
    sqs.Queue(cdk.Stack(app, "Bare"), "Queue")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
