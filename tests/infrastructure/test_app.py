"""The app as a command: where it reads, where it writes, how it fails; and that it writes the same bytes twice."""

import filecmp
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_sqs as sqs

from ecr_relay.config import parse
from stack import app
from stack.bundling import ROOT, BundlingError
from tests.infrastructure.conftest import BASE
from tests.infrastructure.template import Synthesized


def differing(compared: filecmp.dircmp[str]) -> list[str]:
    found = [*compared.left_only, *compared.right_only, *compared.funny_files]
    _, mismatch, errors = filecmp.cmpfiles(compared.left, compared.right, compared.common_files, shallow=False)
    for inner in compared.subdirs.values():
        found += differing(inner)
    return found + mismatch + errors


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with a PATH on which there is nothing, and none of this process's environment."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "stack.app", *arguments],
        cwd=ROOT,
        env={"PATH": "/nonexistent", "HOME": str(Path.home())} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_twice_the_same_bytes_without_node_docker_or_aws(example: Synthesized, out: Path) -> None:
    ran = run("--config", "relay.example.toml", "--out", str(out), PYTHONHASHSEED="7")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert differing(filecmp.dircmp(example.out, out)) == []


def test_a_wrong_configuration_is_a_line_and_status_2(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(BASE.replace("us-east-1", "us-east-9"), encoding="utf-8")
    ran = run("--config", str(path), "--out", str(tmp_path / "out"))
    assert (ran.returncode, ran.stdout) == (2, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"{path}: source.region: 'us-east-9' is no AWS region; did you mean")
    assert not (tmp_path / "out").exists()


def test_below_the_cdk_command_line(example_local: Synthesized, out: Path) -> None:
    """It says by its environment where to write, and with which context."""
    context = json.dumps({"config": "relay.example.toml", "bundle-for": "local"})
    ran = run(CDK_CONTEXT_JSON=context, CDK_OUTDIR=str(out), ECR_RELAY_CONFIG="absent.toml")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert Synthesized(out).body == example_local.body
    assert json.loads((ROOT / "cdk.json").read_text(encoding="utf-8")) == {
        "app": ".venv/bin/python -m stack.app",
        "output": "build/cdk.out",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            BASE + "[deployment]\narchitectur = 'arm64'",
            r"deployment\.architectur: unknown key; did you mean 'architect",
        ),
        (BASE + "[deployment]\nreconcile_at = 3", r"deployment\.reconcile_at: .* not 3"),
        ("source = {", r"not valid TOML: "),
        ("", r"source: missing; this key is required\n.*destinations: missing"),
    ],
)
def test_it_names_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, line: str) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(text, encoding="utf-8")
    assert app.main(["--config", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert re.match(re.escape(f"{path}: ") + line, said.err)
    assert said.out == ""


@pytest.mark.parametrize(("name", "reason"), [("absent.toml", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str) -> None:
    path = tmp_path / name
    assert app.main(["--config", str(path)]) == 2
    assert capsys.readouterr().err == f"{path}: cannot be read: {reason}\n"


def test_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "relay.toml"
    path.write_bytes(b"\xff\xfe")
    assert app.main(["--config", str(path)]) == 2
    assert capsys.readouterr().err == f"{path}: not valid TOML: no UTF-8 text\n"


@pytest.mark.parametrize("arguments", [["--bundle-for", "mars"], ["--what"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        app.main(arguments)
    assert stopped.value.code == 2


def test_the_configuration_by_environment_and_before_it_by_argument(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(app.CONFIG_VARIABLE, str(tmp_path / "environment.toml"))
    assert app.main([]) == 2
    assert "environment.toml: cannot be read" in capsys.readouterr().err
    assert app.main(["--config", str(tmp_path / "argument.toml")]) == 2
    assert "argument.toml: cannot be read" in capsys.readouterr().err


def test_what_validation_finds_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = app.build

    def with_a_finding(*arguments: Any, **options: Any) -> App:
        built = build(*arguments, **options)
        stack = next(child for child in built.node.children if isinstance(child, Stack))
        sqs.Queue(stack, "WithoutDeadLetters")
        return built

    monkeypatch.setattr(app, "build", with_a_finding)
    path = tmp_path / "relay.toml"
    path.write_text(BASE, encoding="utf-8")
    assert app.main(["--config", str(path), "--out", str(tmp_path / "out"), "--bundle-for", "local"]) == 1
    assert "ValidationFailed" in capsys.readouterr().err


def test_what_cannot_be_bundled_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BundlingError("Lambda asset: no index")

    monkeypatch.setattr("stack.relay_stack.lambda_code", fail)
    assert app.main(["--config", str(ROOT / "relay.example.toml"), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "Lambda asset: no index\n"


def test_every_line_that_the_example_leaves_out_is_valid() -> None:
    text = (ROOT / "relay.example.toml").read_text(encoding="utf-8")
    complete = re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE)
    assert complete != text
    assert parse(complete).rules != parse(text).rules
    assert parse(complete).deployment.cluster == "shared"
