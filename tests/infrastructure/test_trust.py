"""`ca_bundle`: who is believed beside the public authorities, in the functions and in the copier."""

import ssl
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import SSLError

from ecr_relay.errors import RegistryDown
from ecr_relay.registries.oci import Oci
from ecr_relay.skopeo import Skopeo
from tests.infrastructure.conftest import BASE
from tests.infrastructure.template import Json, Synthesized, synthesize
from tests.integration.conftest import DockerRegistry, digest_of

NAMES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
PARTS = ("Consumer", "Reconcile", "Copier")


def variables(synthesized: Synthesized, part: str) -> Json:
    if part != "Copier":
        _, function = synthesized.one("AWS::Lambda::Function", part)
        return dict(function["Environment"]["Variables"])
    _, task = synthesized.one("AWS::ECS::TaskDefinition")
    return {pair["Name"]: pair["Value"] for pair in task["ContainerDefinitions"][0]["Environment"]}


def here(synthesized: Synthesized, part: str) -> dict[str, str]:
    """The variables, with the paths that the files have in the assembly."""
    if part == "Copier":
        inside, outside = "/etc/containers/", synthesized.context / "copier_image" / "containers"
    else:
        inside, outside = "/var/task/", synthesized.asset(part)
    found = {name: str(variables(synthesized, part)[name]) for name in NAMES}
    assert all(value.startswith(inside) for value in found.values())
    return {name: str(outside / value.removeprefix(inside)) for name, value in found.items()}


@pytest.mark.parametrize("part", PARTS)
def test_the_file_has_the_companys_and_the_public_ones(full: Synthesized, company: DockerRegistry, part: str) -> None:
    [file] = set(here(full, part).values())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    believed = set(context.get_ca_certs(binary_form=True))
    assert ssl.PEM_cert_to_DER_cert(company.certificate.read_text()) in believed
    names = str(context.get_ca_certs())
    assert all(name in names for name in ("Amazon Root CA 1", "ISRG Root X1", "DigiCert Global Root G2"))
    assert Path(file).stat().st_mode & 0o444 == 0o444


def test_the_dockerfile_puts_it_there(full: Synthesized) -> None:
    dockerfile = (full.context / "copier_image" / "Dockerfile").read_text(encoding="utf-8")
    assert "\nCOPY copier_image/containers/ /etc/containers/\n" in dockerfile


@pytest.mark.parametrize("part", PARTS)
def test_without_the_key_there_is_nothing_of_it(existing: Synthesized, part: str) -> None:
    assert not set(NAMES) & set(variables(existing, part))
    assert not [*existing.context.rglob("*.pem"), *existing.asset("Consumer").glob("*.pem")]


def test_another_file_is_another_asset_and_another_image(
    full: Synthesized, existing: Synthesized, company: DockerRegistry, tmp_path: Path
) -> None:
    (tmp_path / "renewed.pem").write_text(company.certificate.read_text() * 2)
    toml = BASE + 'deployment = { ca_bundle = "renewed.pem" }'
    other = synthesize(toml, tmp_path / "cdk.out", file=tmp_path / "relay.toml")
    three = full, existing, other
    assert len({synthesized.asset("Consumer").name for synthesized in three}) == 3
    assert len({synthesized.context.name for synthesized in three}) == 3


def test_both_functions_have_the_same(full: Synthesized) -> None:
    assert here(full, "Consumer") == here(full, "Reconcile")


@pytest.mark.parametrize("part", ["Consumer", "Copier"])
def test_by_it_botocore_and_the_registries_clients_believe_the_company(
    full: Synthesized, company: DockerRegistry, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = company.push_image("app", "1")

    def ask() -> None:
        session = boto3.Session(aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1")
        session.client("ecr", endpoint_url=f"https://{company.host}").describe_repositories()

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SSLError):
        ask()
    for name, value in here(full, part).items():
        monkeypatch.setenv(name, value)
    ask()  # a registry is no ECR, but it answers
    assert Oci(company.host).resolve("app", "1") == digest


def test_by_it_skopeo_believes_the_company(
    full: Synthesized, company: DockerRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = company.push_image("app", "1", layers=(b"one",))
    monkeypatch.setenv("HOME", str(tmp_path))

    def copy(to: str) -> None:
        Skopeo(tmp_path / to).copy(f"{company.host}/app", digest, f"{company.host}/{to}")

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RegistryDown, match="x509: certificate signed by unknown authority"):
        copy("before")
    for name, value in here(full, "Copier").items():
        monkeypatch.setenv(name, value)
    copy("after")
    assert digest_of(company.manifest("after", digest)) == digest
