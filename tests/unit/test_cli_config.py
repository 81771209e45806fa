"""`ecr-relay config`: checking, showing and publishing relay.toml."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ecr_relay import config
from ecr_relay.config import RelayConfig
from ecr_relay.operate.configuration import needs_deployment, to_toml
from tests.unit.conftest import ACCOUNT, CONFIG, REGION
from tests.unit.office import Office, opened, refused
from tests.unit.test_config import CERTIFICATE

TOML = f"""
[source]
account = "{ACCOUNT}"
region = "{REGION}"

[[destinations]]
name = "west"
account = "{ACCOUNT}"
region = "eu-west-1"
"""


WEST = {"name": "west", "region": "eu-west-1", "account": ACCOUNT}


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    with opened(RelayConfig.model_validate_json(json.dumps(CONFIG)), monkeypatch) as office:
        yield office


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "relay.toml"
    path.write_text(TOML)
    return path


def test_check_says_that_a_file_is_fine(office: Office, file: Path) -> None:
    result = office.run("config", "check", str(file))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{file} is fine: {ACCOUNT}.{REGION} to west, 1 rule, ")
    answer = office.json("config", "check", str(file))
    assert answer == {
        "file": str(file),
        "source": f"{ACCOUNT}.{REGION}",
        "destinations": ["west"],
        "rules": 1,
        "characters": len(config.parse(TOML).to_parameter()),
    }


def test_check_names_every_mistake_by_its_key(office: Office, file: Path) -> None:
    file.write_text(TOML + '\n[[rules]]\ntagz = ["1.*"]\nuntagged = "yes"\n')
    result = office.run("config", "check", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert f"{file}: rules[0].tagz: unknown key; did you mean 'tags'?" in result.stderr
    assert f"{file}: rules[0].untagged: " in result.stderr


def test_check_reads_what_the_file_names(office: Office, file: Path) -> None:
    file.write_text(TOML + '\n[deployment]\nca_bundle = "company.pem"\n')
    result = office.run("config", "check", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"ecr-relay: {file}: deployment.ca_bundle: {file.with_name('company.pem')}: cannot be read: "
        "No such file or directory\n"
    )
    assert office.run("config", "show", "--file", str(file)).exit_code == 0  # which asks what the file says
    file.with_name("company.pem").write_text(CERTIFICATE)
    assert office.run("config", "check", str(file)).exit_code == 0


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"[source"])
def test_what_is_no_file_or_no_text_is_unusable(office: Office, file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    for command in (["check"], ["push"], ["show", "--file"]):
        result = office.run("config", *command, str(file))
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"ecr-relay: {file}: ")
        assert len(result.stderr.splitlines()) == 1


def test_check_asks_nothing_of_aws(office: Office, file: Path) -> None:
    office.plane.denied.add("DescribeStacks")
    assert office.run("config", "check", str(file)).exit_code == 0
    assert office.run("config", "show", "--file", str(file)).exit_code == 0


def test_show_prints_what_is_in_force_with_every_default(office: Office, file: Path) -> None:
    shown = office.run("config", "show").stdout
    assert config.parse(shown) == office.world.config
    assert 'reconcile_at = "03:00"' in shown
    assert office.run("config", "show", "--file", str(file)).stdout == shown
    answer = office.json("config", "show")
    assert answer["destinations"][0]["put_image_per_second"] == 8.0


def test_a_list_of_images_is_not_shown_as_everything(office: Office, file: Path) -> None:
    file.write_text(TOML + '\n[[rules]]\nimages = "app:1"\n[[rules]]\ntags = ["v*"]\n')
    listed, globbed = office.json("config", "show", "--file", str(file))["rules"]
    assert (listed["images"], globbed["repositories"], globbed["tags"]) == ("app:1", ["*"], ["v*"])
    assert not {"repositories", "tags"} & listed.keys()
    shown = office.run("config", "show", "--file", str(file)).stdout
    assert config.parse(shown) == config.parse(file.read_text())
    assert shown.count("\nrepositories = ") == shown.count("\ntags = ") == 1


def test_push_publishes_rules_and_says_what_changed(office: Office, file: Path) -> None:
    file.write_text(TOML + '\n[[rules]]\nrepositories = ["team/*"]\n')
    assert office.json("config", "push", str(file), "--dry-run")["changed"] == ["rules[0].repositories"]
    assert office.json("config", "push", str(file)) == {
        "parameter": "/relay/config",
        "changed": ["rules[0].repositories"],
        "effective_within_seconds": 60,
    }
    assert config.parse(office.run("config", "show").stdout).rules[0].repositories == ("team/*",)
    assert office.json("config", "push", str(file))["changed"] == []


def test_push_refuses_what_needs_a_deployment_and_changes_nothing(office: Office, file: Path) -> None:
    file.write_text(
        TOML.replace("[[destinations]]", "[[destinations]]\nprefix = 'mirror'")
        + f'\n[[destinations]]\nname = "north"\naccount = "{ACCOUNT}"\nregion = "eu-north-1"\n'
        + '\n[deployment]\nreconcile_at = "04:00"\n'
    )
    result = office.run("config", "push", str(file))
    assert result.exit_code == 1
    assert [line.partition(f"{file}: ")[2].partition(":")[0] for line in result.stderr.splitlines()] == [
        "deployment.reconcile_at",
        "destinations[0]",
        "destinations[1]",
        "",
    ]
    assert "nothing was changed" in result.stderr
    assert config.parse(office.run("config", "show").stdout) == office.world.config


def test_push_without_permission(office: Office, file: Path) -> None:
    file.write_text(TOML + '\n[[rules]]\nrepositories = ["team/*"]\n')
    office.calls["PutParameter"] = refused("AccessDeniedException", "PutParameter")
    result = office.run("config", "push", str(file))
    assert (result.exit_code, "no permission for PutParameter" in result.stderr) == (1, True)


def test_a_stored_configuration_that_is_broken_is_told(office: Office) -> None:
    office.ssm.put_parameter(Name="/relay/config", Value="{}", Type="String", Overwrite=True)
    result = office.run("config", "show")
    assert result.exit_code == 1
    assert "SSM parameter: source: missing" in result.stderr


def test_a_large_configuration_makes_the_parameter_advanced(office: Office, file: Path) -> None:
    globs = ", ".join(f'"team-{number:03}/{"x" * 90}"' for number in range(50))
    file.write_text(TOML + f"\n[[rules]]\nrepositories = [{globs}]\n")
    office.run("config", "push", str(file))
    [parameter] = office.ssm.describe_parameters()["Parameters"]
    assert parameter["Tier"] == "Advanced"


def test_changes_that_need_no_deployment() -> None:
    old = config.parse(TOML)
    new = old.model_copy(
        update={
            "destinations": (
                old.destinations[0].model_copy(update={"name": "other", "max_tasks": 3}),
                old.destinations[0].model_copy(update={"name": "west"}),
            )
        }
    )
    assert list(needs_deployment(old, new)) == []
    assert list(needs_deployment(new, old)) == []
    moved = old.model_copy(update={"source": old.source.model_copy(update={"region": "us-west-2"})})
    assert [reason.partition(":")[0] for reason in needs_deployment(old, moved)] == ["source.region"]


@given(text=st.text(min_size=1, max_size=256), key=st.text(max_size=128))
def test_every_text_survives_as_toml(text: str, key: str) -> None:
    data = {
        **CONFIG,
        "destinations": [{**WEST, "new_repository": {"tags": {key: text}}}],
        "rules": [{"destinations": ["west"]}, {"exclude_tags": ["a", "b"]}],
        "deployment": {
            "network": {"vpc_id": "vpc-0123456789abcdef0", "subnet_ids": ["subnet-0123456789abcdef0"]},
        },
    }
    try:
        wanted = RelayConfig.model_validate_json(json.dumps(data))
    except ValidationError:
        assume(False)
    assert config.parse(to_toml(wanted)) == wanted
