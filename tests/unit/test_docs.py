"""What the documents say exists, and what must be documented is."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from docs import generate
from ecr_relay import errors
from ecr_relay.calls import CONSUMER, COPIER, RECONCILE
from ecr_relay.cli.app import cli
from ecr_relay.config import Destination, EcrSource, OciSource, Rule, parse
from ecr_relay.errors import CopyError, classify
from ecr_relay.messages import Envelope

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(path: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(path.read_text()) if name == language]


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


def shell_lines(path: Path) -> Iterator[str]:
    """Whatever a reader may type: spans of code, and lines of shell blocks without their comments."""
    yield from SPAN.findall(prose(path))
    for block in blocks(path, "sh"):
        yield from block.replace("\\\n", " ").splitlines()


def command_lines(path: Path) -> Iterator[list[str]]:
    for line in shell_lines(path):
        if found := re.search(r"(?:^|[\s/'=])(?:ecr-relay|relay) (?P<rest>[a-z-].*)", line):
            yield shlex.split(found["rest"].replace("…", "").strip("'"), comments=True)


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line names, and what remains; `words` may begin with options that take a value."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        if words[0].startswith("--"):
            words = words[2:]
            continue
        assert words[0] in command.commands, f"{words[0]!r} is no command of {command.name}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@documents
def test_every_command_that_is_mentioned_is_one(path: Path) -> None:
    for line in command_lines(path):
        command, rest = resolve(line)
        known = {name for parameter in command.params for name in parameter.opts}
        used = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert used <= known, f"{line}: {used - known}"


def test_the_readers_commands_are_found_at_all() -> None:
    found = {resolve(line)[0].name for line in command_lines(ROOT / "README.md")}
    assert {"status", "sync", "list", "redrive", "explain", "up", "check"} <= found


@documents
def test_every_target_that_is_mentioned_is_in_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = {name for line in shell_lines(path) for name in re.findall(r"(?:^|\s)make ([a-z-]+)", line)}
    assert mentioned <= targets


def test_every_target_is_in_the_readme() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    assert {name for name in targets if f"`make {name}`" not in (ROOT / "README.md").read_text()} == set()


def anchors(path: Path) -> set[str]:
    """GitHub's names for a document's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {generate.anchor(heading) for heading in headings}


@documents
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", SPAN.sub("", prose(path))):
        if re.match(r"[a-z]+://", target):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@documents
def test_every_file_that_is_named_exists(path: Path) -> None:
    tops = {entry.name for entry in ROOT.iterdir() if entry.is_dir()} - {"build"}
    for name in SPAN.findall(prose(path)):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", name) and "/" in name and name.split("/")[0] in tops:
            assert (ROOT / name).exists(), name


@documents
def test_every_example_is_valid(path: Path) -> None:
    for example in blocks(path, "toml"):
        parse(example, path.name)
    for example in blocks(path, "json"):
        json.loads(example)


def test_the_example_file_is_valid_also_with_its_comments_taken_off() -> None:
    text = (ROOT / "relay.example.toml").read_text()
    parse(text)
    parse(re.sub(r"^# ([\w.]+ = |\[)", r"\1", text, flags=re.MULTILINE))


def test_lint_asks_whether_the_generated_documents_are_what_the_code_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(["--check"]) == 0
    assert "docs/generate.py --check" in (ROOT / "Makefile").read_text()
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert generate.main(["--check"]) == 1
    names = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert names == ["docs/configuration.md", "docs/commands.md"]
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_every_key_of_a_rule_and_a_registry_is_explained_or_shown() -> None:
    path = ROOT / "docs" / "configuring.md"
    words = set(re.findall(r"\b[a-z_]+\b", " ".join([*SPAN.findall(prose(path)), *blocks(path, "toml")])))
    keys = {*Rule.model_fields, *Destination.model_fields, *EcrSource.model_fields, *OciSource.model_fields}
    assert keys - words == set()


PLUGIN = (
    *("sourceType", "srcRegion", "srcAccountId", "srcList", "srcImageList", "srcCredential", "destRegion"),
    *("destAccountId", "destPrefix", "destCredential", "includeUntagged", "ecsClusterName", "ecsVpcId"),
    *("ecsSubnetA", "ecsSubnetB", "alarmEmail"),
)
"""Every parameter of the Data Transfer Hub's ECR plugin (its CloudFormation template)."""


def test_every_parameter_of_the_plugin_has_its_key() -> None:
    table = sections((ROOT / "docs" / "configuring.md").read_text())["From the Data Transfer Hub plugin"]
    rows = dict(re.findall(r"^\| (`.+?) \| (.+) \|$", table, re.MULTILINE))
    assert sorted(name for cell in rows for name in SPAN.findall(cell)) == sorted(PLUGIN)
    known = set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE))
    for here in rows.values():
        assert known & set(re.findall(r"[a-z_]+", " ".join(SPAN.findall(here)))), here


def sections(text: str) -> dict[str, str]:
    """Heading -> what stands below it, up to the next heading."""
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


OPERATING = sections((ROOT / "docs" / "operating.md").read_text())


def subclasses(error: type[Exception]) -> Iterator[type[Exception]]:
    for inner in error.__subclasses__():
        yield inner
        yield from subclasses(inner)


def test_every_error_and_every_alarm_has_its_remedy() -> None:
    named = {error.__name__ for error in subclasses(errors.RelayError) if error.__module__ == errors.__name__}
    assert named - {CopyError.__name__} <= OPERATING.keys()
    stack = "".join(path.read_text() for path in (ROOT / "stack").glob("*.py"))
    alarms = set(re.findall(r'"(\w+Alarm)"', stack))
    assert len(alarms) >= 3
    assert all(any(heading.startswith(alarm) for heading in OPERATING) for alarm in alarms)


@pytest.mark.parametrize("kind", ["Transient", "Permanent", "RegistryDown"])
def test_the_words_of_an_error_are_of_its_class(kind: str) -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", OPERATING[kind], re.MULTILINE)
    assert len(rows) > 3
    for words in (words for row in rows for words in SPAN.findall(row)):
        if not re.match(r"AssumeRole|GetSecretValue|must be", words):  # by the call, and not by its words
            assert classify(words).__name__ == kind, words


def test_the_query_asks_for_fields_that_the_logs_have() -> None:
    query = next(block for block in blocks(ROOT / "docs" / "operating.md", "") if block.startswith("fields"))
    asked = set(re.findall(r"[a-z_]+", query.splitlines()[0].removeprefix("fields @timestamp"))) | {"repository", "tag"}
    sources = (ROOT / "ecr_relay").rglob("*.py")
    written = "".join(path.read_text() for path in sources if "cli" not in path.relative_to(ROOT).parts)
    facts = set(re.findall(r'"([a-z_]+)":', written)) | set(Envelope.model_fields) | {"message"}
    assert asked <= facts


def test_the_log_lines_of_the_runbook_are_written_somewhere() -> None:
    sources = [*(ROOT / "ecr_relay").rglob("*.py"), *(ROOT / "handlers").glob("*.py")]
    written = "".join(path.read_text() for path in sources)
    lines = re.findall(
        r"^\| ((?:`[a-z ]+`(?:, )?)+) \| (?:consumer|copier|reconcile) \|", OPERATING["Following one image"], re.M
    )
    assert len(lines) > 8
    assert [line for row in lines for line in SPAN.findall(row) if f'"{line}"' not in written] == []


def statements(policy: dict[str, Any]) -> Iterator[str]:
    for statement in policy["Statement"]:
        action = statement["Action"]
        yield from [action] if isinstance(action, str) else action


PROGRAMS = (CONSUMER, RECONCILE, COPIER)
WHOLE = """
[source]
account = "111122223333"
region = "us-east-1"
[[destinations]]
name = "plain"
account = "444455556666"
region = "us-east-1"
[[destinations]]
name = "full"
account = "444455556666"
region = "eu-west-1"
[destinations.new_repository]
lifecycle_policy = '''{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged"},
                               "action": {"type": "expire"}}]}'''
repository_policy = '{"Version": "2012-10-17"}'
tags = { owner = "platform" }
[[rules]]
deletes = "propagate"
destinations = ["full"]
"""


def test_a_role_of_another_account_may_what_the_relays_own_roles_may() -> None:
    policies = [json.loads(block) for block in blocks(ROOT / "docs" / "deploying.md", "json")]
    destination = next(policy for policy in policies if "ecr:PutImage" in set(statements(policy)))
    config = parse(WHOLE)
    plain, full = (
        {"ecr:GetAuthorizationToken"}.union(*(one.at(config, destination) for one in PROGRAMS))
        for destination in config.destinations
    )
    assert set(statements(destination)) == plain
    parts = sections((ROOT / "docs" / "deploying.md").read_text())
    assert full - plain == set(re.findall(r"ecr:\w+", parts["Another account"].rpartition("| with |")[2])) - plain
    text = parts["A source in another account or region"]
    listed = {action for one in PROGRAMS for action in (*one.source, *one.listing)}
    assert set(re.findall(r"ecr:\w+", text)) == listed | {"ecr:GetAuthorizationToken"}


def test_the_cdk_is_one_version() -> None:
    deploy = (ROOT / "scripts" / "deploy").read_text()
    assert len(set(re.findall(r"aws-cdk@[\d.]+", deploy))) == 1
