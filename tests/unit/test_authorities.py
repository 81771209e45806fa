"""`[deployment] ca_bundle`: which files are certificates to believe, and which are not."""

from pathlib import Path

import pytest

from ecr_relay.config import Deployment
from ecr_relay.config.authorities import ca_bundle
from ecr_relay.errors import ConfigError
from tests.unit.test_config import CERTIFICATE

KEY = "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\n"
DAMAGED = CERTIFICATE.replace("MII", "MI*", 1)
CUT = CERTIFICATE.replace("MII", "MIA", 1)


def test_it_is_certificates_and_nothing_between_them(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    # As `openssl s_client -showcerts` prints them; the names are anybody's.
    text = "subject=CN = Löwe\n" + CERTIFICATE.replace("\n", "\r\n") + "and another\n" + CERTIFICATE
    (tmp_path / "pki" / "company.pem").write_bytes(text.encode("latin-1"))
    read = ca_bundle(Deployment(ca_bundle="pki/company.pem"), tmp_path / "relay.toml")
    assert read is not None
    assert read.replace("\r\n", "\n") == CERTIFICATE * 2


def test_its_path_may_be_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "company.pem").write_text(CERTIFICATE)
    assert ca_bundle(Deployment(ca_bundle=str(tmp_path / "company.pem")), Path("relay.toml")) == CERTIFICATE


def test_none_is_asked_for() -> None:
    assert ca_bundle(Deployment(), Path("relay.toml")) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no certificate; allowed: PEM text"),
        ("hunter2", "no certificate; allowed: PEM text"),
        (CERTIFICATE + KEY, "holds a private key; allowed: certificates alone"),
        (KEY, "holds a private key; allowed: certificates alone"),
        (CERTIFICATE + DAMAGED, "a certificate in it is damaged"),
        (CERTIFICATE + CUT, "no certificate; allowed: PEM text"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_bundle_is_refused_by_its_key(content: str | None, says: str, tmp_path: Path) -> None:
    path, file = tmp_path / "company.pem", tmp_path / "relay.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        ca_bundle(Deployment(ca_bundle="company.pem"), file)
    assert str(caught.value).startswith(f"{file}: deployment.ca_bundle: {path}: {says}")
    assert "hunter2" not in str(caught.value)
