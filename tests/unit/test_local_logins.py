"""`local up --secrets`: what the secrets of a configuration hold on one machine."""

import json
from pathlib import Path

import pytest

from ecr_relay.config import RelayConfig, parse
from ecr_relay.errors import ConfigError
from local import logins
from local.up import read_config

HUB = "arn:aws:secretsmanager:eu-west-1:111111111111:secret:hub-AbCdEf"
CHINA = "arn:aws:secretsmanager:eu-west-1:111111111111:secret:china-AbCdEf"
CONFIG = f"""
[source]
type = "oci"
host = "docker.io"
credentials.secret_arn = "{HUB}"

[[destinations]]
name = "beijing"
account = "222222222222"
region = "cn-north-1"
credentials.secret_arn = "{CHINA}"

[[rules]]
repositories = ["nginx"]

[deployment]
region = "eu-west-1"
account = "111111111111"
"""
KEYS = {"access_key_id": "222222222222", "secret_access_key": "local"}
LOGIN = {"username": "me", "password": "hunter2"}


@pytest.fixture
def config() -> RelayConfig:
    return parse(CONFIG)


def secrets(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "secrets.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_of_registries_are_known_and_a_login_is_given(config: RelayConfig, tmp_path: Path) -> None:
    assert {arn: json.loads(value) for arn, value in logins.read(None, config).items()} == {CHINA: KEYS}
    path = secrets(tmp_path, f'["{HUB}"]\nusername = "me"\npassword = "hunter2"\n')
    assert {arn: json.loads(value) for arn, value in logins.read(path, config).items()} == {CHINA: KEYS, HUB: LOGIN}


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (f'["{HUB}"]\npassword = "hunter2"\n', 0o640, "others may read it: `chmod 600 "),
        ('["arn:other"]\npassword = "hunter2"\n', 0o600, "the configuration names no secret 'arn:other'"),
        (f'"{HUB}" = "hunter2"\n', 0o600, "should be a table of texts, such as username and password"),
        (f'["{HUB}"]\npassword = hunter2\n', 0o600, "not valid TOML"),
        (None, 0o600, "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used(
    config: RelayConfig, tmp_path: Path, text: str | None, mode: int, says: str
) -> None:
    path = secrets(tmp_path, text or "", mode)
    if text is None:
        path.unlink()
    with pytest.raises(ConfigError) as caught:
        logins.read(path, config)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "nope.toml")
    assert str(caught.value) == f"{tmp_path / 'nope.toml'}: No such file or directory"
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "binary.toml")
    assert str(caught.value) == f"{tmp_path / 'binary.toml'}: no UTF-8 text"
