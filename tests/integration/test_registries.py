"""One contract for every kind of registry, the fake one included; and a docker-registry's own ways."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import boto3
import pytest
from moto import mock_aws

from ecr_relay.config import NewRepository
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, TagTaken, Transient
from ecr_relay.registries import Login, Registry, Writable
from ecr_relay.registries.ecr import Ecr
from ecr_relay.registries.oci import Oci
from local.images import OCI_INDEX, OCI_MANIFEST
from tests.fakes.registry import FakeRegistry
from tests.integration.conftest import USER, DockerRegistry, digest_of
from tests.integration.faults import Fault, FaultyProxy

ABSENT = "sha256:" + "0" * 64
ACCOUNT, REGION = "123456789012", "eu-west-1"
Start = Callable[..., DockerRegistry]


@dataclass
class Subject:
    """A registry and what pushes into it behind its back: `push(repository, content, *tags)` returns the digest."""

    registry: Registry
    push: Callable[..., str]
    raw: Callable[[str, str], bytes]
    refuses_taken_tags: bool = True
    refer: Callable[[str, str, str], str] | None = None
    """`refer(repository, subject, content)` pushes something that refers to `subject`, as a client does there."""

    @property
    def destination(self) -> Writable:
        """Skips the test for what images are only read from."""
        if isinstance(self.registry, Oci):
            pytest.skip("a source only")
        return cast("Writable", self.registry)


def manifest(content: str) -> str:
    """Bytes that a JSON library would not write the same way again."""
    return '{ "schemaVersion": 2,\n   "mediaType":"%s", "annotations": {"content":"%s"},"manifests":[] }' % (  # noqa: UP031
        OCI_MANIFEST,
        content,
    )


@pytest.fixture(params=["fake", "moto", "docker-registry", "docker-registry with Basic auth"])
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    if request.param == "fake":
        fake = FakeRegistry()
        yield Subject(
            fake,
            fake.push,
            lambda repository, digest: fake.content[repository].manifests[digest].encode(),
            refer=lambda repository, subject, content: fake.push(repository, content, subject=subject),
        )
    elif request.param == "moto":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        with mock_aws():
            yield moto_subject()
    else:
        login = USER if "Basic" in request.param else None
        registry: DockerRegistry = request.getfixturevalue("start_registry")(login)
        yield docker_subject(registry)


def moto_subject() -> Subject:
    client = boto3.client("ecr", region_name=REGION)

    def push(repository: str, content: str, *tags: str) -> str:
        text = manifest(content)
        names = {each["repositoryName"] for each in client.describe_repositories()["repositories"]}
        if repository not in names:
            client.create_repository(repositoryName=repository)
        for tag in tags:
            client.put_image(
                repositoryName=repository, imageManifest=text, imageTag=tag, imageDigest=digest_of(text.encode())
            )
        return digest_of(text.encode())

    def raw(repository: str, digest: str) -> bytes:
        answer = client.batch_get_image(repositoryName=repository, imageIds=[{"imageDigest": digest}])
        return answer["images"][0]["imageManifest"].encode()

    # moto lets an immutable tag move to a manifest that it has; tests/unit/test_registries_ecr.py has ECR's own answer.
    return Subject(Ecr(client, ACCOUNT), push, raw, refuses_taken_tags=False)


def docker_subject(registry: DockerRegistry) -> Subject:
    def push(repository: str, content: str, *tags: str) -> str:
        layer = registry.push_blob(repository, content.encode(), "application/octet-stream")
        text = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": registry.push_blob(repository, b"{}", "application/vnd.oci.image.config.v1+json"),
                "layers": [layer],
            },
            indent=5,
        ).encode()
        for tag in tags:
            registry.push_manifest(repository, text, OCI_MANIFEST, tag)
        return digest_of(text)

    known: dict[str, list[dict[str, object]]] = {}

    def refer(repository: str, subject: str, content: str) -> str:
        """As the specification's "Referrers Tag Schema" has it."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": registry.push_blob(repository, b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [registry.push_blob(repository, content.encode(), "text/plain")],
            "subject": {
                "mediaType": OCI_MANIFEST,
                "digest": subject,
                "size": len(registry.manifest(repository, subject)),
            },
        }
        digest = registry.push_manifest(repository, manifest, OCI_MANIFEST)
        size = len(registry.manifest(repository, digest))
        known.setdefault(subject, []).append({"mediaType": OCI_MANIFEST, "digest": digest, "size": size})
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": known[subject]}
        registry.push_manifest(repository, index, OCI_INDEX, subject.replace(":", "-"))
        return digest

    oci = Oci(registry.host, scheme="http", login=registry.login)
    return Subject(oci, push, registry.manifest, refer=refer)


# --- The contract ---------------------------------------------------------------------------------------------------


def test_it_says_where_it_is(subject: Subject) -> None:
    assert subject.registry.host
    assert "://" not in subject.registry.host


def test_tags_and_digests(subject: Subject) -> None:
    digest = subject.push("team/app", "one", "1", "latest")
    registry = subject.registry
    assert registry.resolve("team/app", "latest") == digest
    assert registry.resolve("team/app", "2") is None
    assert registry.has("team/app", digest)
    assert not registry.has("team/app", ABSENT)


def test_no_repository(subject: Subject) -> None:
    registry = subject.registry
    assert registry.resolve("nothing", "latest") is None
    assert not registry.has("nothing", ABSENT)
    with pytest.raises(Missing):
        list(registry.images("nothing"))


def test_listings(subject: Subject) -> None:
    one = subject.push("team/app", "one", "1", "latest")
    two = subject.push("team/app", "two", "2")
    subject.push("other", "three", "3")
    assert sorted(subject.registry.repositories()) == ["other", "team/app"]
    tagged = [(each.tag, each.digest) for each in subject.registry.images("team/app") if each.tag]
    assert sorted(tagged) == [("1", one), ("2", two), ("latest", one)]


def test_a_repository_is_made_once(subject: Subject) -> None:
    settings = NewRepository(scan_on_push=True, tags={"made-by": "ecr-relay"})
    subject.destination.ensure_repository("new", settings)
    subject.destination.ensure_repository("new", settings)
    assert list(subject.registry.repositories()) == ["new"]
    assert list(subject.registry.images("new")) == []


def test_a_tag_is_put_and_moved_and_the_bytes_stay(subject: Subject) -> None:
    one, two = subject.push("app", "one", "1"), subject.push("app", "two", "2")
    before = subject.raw("app", one)
    for digest in (one, two, one, one):
        subject.destination.put_tag("app", digest, "latest")
        assert subject.registry.resolve("app", "latest") == digest
    assert subject.registry.resolve("app", "2") == two
    assert subject.raw("app", one) == before


def test_a_tag_needs_its_manifest(subject: Subject) -> None:
    subject.push("app", "one", "1")
    with pytest.raises(Missing):
        subject.destination.put_tag("app", ABSENT, "latest")
    assert subject.registry.resolve("app", "latest") is None


def test_immutable_tags(subject: Subject) -> None:
    subject.destination.ensure_repository("app", NewRepository(immutable_tags=True))
    one, two = subject.push("app", "one", "1"), subject.push("app", "two", "2")
    assert subject.destination.tag_is_taken("app", two, "1")
    assert not subject.destination.tag_is_taken("app", one, "1")
    assert not subject.destination.tag_is_taken("app", two, "3")
    subject.destination.put_tag("app", one, "1")
    if subject.refuses_taken_tags:
        with pytest.raises(TagTaken, match="1"):
            subject.destination.put_tag("app", two, "1")
        assert subject.registry.resolve("app", "1") == one


def test_manifests(subject: Subject) -> None:
    digest = subject.push("app", "one", "1")
    found = subject.registry.manifest("app", digest)
    assert found is not None
    assert (found.digest, found.media_type, found.content) == (digest, OCI_MANIFEST, subject.raw("app", digest))
    assert subject.registry.manifest("app", ABSENT) is None
    assert subject.registry.manifest("nothing", ABSENT) is None
    assert subject.registry.children("app", digest) == ()


def test_referrers(subject: Subject) -> None:
    """docker-registry has no referrers API, so its clients keep an index under a tag."""
    if subject.refer is None:
        pytest.skip("moto has no ListImageReferrers")
    digest = subject.push("app", "one", "1")
    assert subject.registry.referrers("app", digest) == ()
    signatures = {subject.refer("app", digest, "signature"), subject.refer("app", digest, "sbom")}
    assert set(subject.registry.referrers("app", digest)) == signatures
    assert subject.registry.referrers("app", ABSENT) == ()


def test_listings_with_details(subject: Subject) -> None:
    one = subject.push("app", "one", "1", "latest")
    if subject.refer is not None and not isinstance(subject.registry, Oci):
        signature = subject.refer("app", one, "signature")
        untagged = [each for each in subject.registry.images("app", details=True) if each.tag is None]
        assert [(each.digest, each.subject) for each in untagged] == [(signature, one)]
    tagged = [(each.tag, each.digest) for each in subject.registry.images("app", details=True) if each.tag]
    assert sorted(tagged) == [("1", one), ("latest", one)]
    with pytest.raises(Missing):
        list(subject.registry.images("nothing", details=True))


def test_deletes(subject: Subject) -> None:
    registry = subject.destination
    one, two = subject.push("app", "one", "1", "latest"), subject.push("app", "two", "2")
    assert {line.tag for line in registry.lines("app", one)} == {"1", "latest"}
    assert registry.lines("app", "sha256:" + "0" * 64) == registry.lines("nothing", one) == ()
    registry.delete("app", one, "latest")
    assert registry.resolve("app", "latest") is None
    assert registry.resolve("app", "1") == one
    registry.delete("app", one, "2")  # which is another's
    assert registry.resolve("app", "2") == two
    registry.delete("app", one, "1")  # its last tag
    assert not registry.has("app", one)
    registry.delete("app", two, None)
    assert not registry.has("app", two)
    for tag in ("1", None):
        registry.delete("app", one, tag)
        registry.delete("nothing", one, tag)


def test_what_a_repository_has_otherwise(subject: Subject) -> None:
    registry = subject.destination
    assert registry.differences("app", NewRepository()) == ()
    registry.ensure_repository("app", NewRepository(immutable_tags=True))
    assert registry.differences("app", NewRepository(immutable_tags=True)) == ()
    assert registry.differences("app", NewRepository()) == ("tags IMMUTABLE, asked MUTABLE",)


# --- A docker-registry's own ----------------------------------------------------------------------------------------


def test_a_wrong_password(start_registry: Start) -> None:
    registry = start_registry(USER)
    digest = registry.push_image("app", "1")
    oci = Oci(registry.host, scheme="http", login=Login("relay", "wrong"))
    for call in (
        lambda: oci.resolve("app", "1"),
        lambda: oci.has("app", digest),
        lambda: list(oci.images("app")),
        lambda: oci.manifest("app", digest),
        lambda: oci.referrers("app", digest),
    ):
        with pytest.raises(RegistryDown, match="401 Unauthorized") as caught:
            call()
        assert "wrong" not in str(caught.value)


def test_a_certificate_by_an_authority_of_ones_own(start_registry: Start) -> None:
    registry = start_registry(USER, tls=True)
    digest = registry.push_image("app", "1")
    with pytest.raises(RegistryDown, match="certificate verify failed"):
        Oci(registry.host, login=USER).resolve("app", "1")
    believed = Oci(registry.host, login=USER, ca_certificate=registry.certificate.read_text())
    assert believed.resolve("app", "1") == digest


def test_nobody_listens(start_registry: Start) -> None:
    registry = start_registry()
    registry.stop()
    with pytest.raises(RegistryDown, match="Connection refused"):
        Oci(registry.host, scheme="http").resolve("app", "1")


def test_the_catalog_comes_by_pages(start_registry: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = start_registry(USER)
    names = [f"team/app{number}" for number in range(7)]
    for name in names:
        registry.push_image(name, "1")
    monkeypatch.setattr("ecr_relay.registries.oci._PAGE", 3)
    assert list(Oci(registry.host, scheme="http", login=USER).repositories()) == names


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (
            Fault("HEAD", 429, headers={"Retry-After": "17"}),
            RegistryDown,
            "429 Too Many Requests; it opens again in 17",
        ),
        (Fault("HEAD", 503), Transient, "503 Service Unavailable"),
        (Fault("HEAD", 403), Permanent, "403 Forbidden"),
        (Fault("GET /v2/.*/manifests", cut_after=3), Transient, "of 127"),
    ],
    ids=lambda value: value.pattern + str(value.status or "") if isinstance(value, Fault) else "",
)
def test_faults(fault: Fault, kind: type[CopyError], words: str, start_registry: Start) -> None:
    registry = start_registry()
    digest = registry.push_image("app", "1")
    with FaultyProxy(registry.host, fault) as proxy:
        oci = Oci(proxy.host, scheme="http")
        with pytest.raises(CopyError, match=words) as caught:
            oci.resolve("app", "1") if "HEAD" in fault.pattern else oci.manifest("app", digest)
    assert type(caught.value) is kind


def test_a_read_is_tried_again(start_registry: Start) -> None:
    registry = start_registry()
    digest = registry.push_image("app", "1")
    with FaultyProxy(registry.host, Fault("HEAD", 503, times=2)) as proxy:
        assert Oci(proxy.host, scheme="http").resolve("app", "1") == digest
