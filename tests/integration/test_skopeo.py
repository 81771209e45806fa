"""skopeo, the installed one, between real registries: what arrives, and what each failure is."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecr_relay.errors import (
    ConfigError,
    CopyError,
    Missing,
    Permanent,
    RegistryDown,
    TagTaken,
    TokenExpired,
    Transient,
)
from ecr_relay.registries import Login
from ecr_relay.skopeo import Skopeo
from local import images
from tests.integration.conftest import USER, DockerRegistry, allow_plain_http, digest_of, wait_for
from tests.integration.faults import Fault, FaultyProxy

NOWHERE = "127.0.0.1:1"  # nobody listens on port 1
ABSENT = "sha256:" + "0" * 64
Start = Callable[..., DockerRegistry]


@pytest.fixture
def source(start_registry: Start) -> DockerRegistry:
    return start_registry()


@pytest.fixture
def destination(start_registry: Start) -> DockerRegistry:
    return start_registry(USER)


@pytest.fixture
def skopeo(tmp_path: Path, source: DockerRegistry, destination: DockerRegistry) -> Iterator[Skopeo]:
    skopeo = Skopeo(tmp_path / "work", stall_seconds=60)
    skopeo.login({destination.host: destination.login})
    yield skopeo
    skopeo.stop()


def through(proxy: FaultyProxy, *others: str) -> str:
    """Its host, to which skopeo may now speak plain HTTP."""
    allow_plain_http(Path(os.environ["HOME"]), [proxy.host, NOWHERE, *others])
    return proxy.host


def skopeos() -> list[int]:
    """The pids of those that this process started, by any of its threads."""
    lists = Path("/proc/self/task").glob("*/children")
    started = [int(pid) for each in lists for pid in each.read_text().split()]
    return [pid for pid in started if b"--preserve-digests" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def the_skopeo() -> int:
    """The pid of the one that runs, once it does."""
    wait_for(skopeos)
    [pid] = skopeos()
    return pid


# --- What arrives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["single", "index", "schema2", "artifact"])
def test_the_same_bytes_arrive(
    kind: str, tmp_path: Path, source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    made = getattr(images, kind)(tmp_path / "image", "seed")
    source.load(made, "team/app", "1")

    skopeo.copy(f"{source.host}/team/app", made.digest, f"{destination.host}/mirror/app")

    assert destination.manifest("mirror/app", made.digest) == made.manifest
    for child in made.children:
        assert digest_of(destination.manifest("mirror/app", child)) == child
    for layer in made.layers:
        destination.request("HEAD", f"/v2/mirror/app/blobs/{layer}")


def test_an_artifact_whose_manifest_has_no_media_type(
    source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    manifest = {
        "schemaVersion": 2,
        "config": source.push_blob("chart", b"{}", images.HELM_CONFIG),
        "layers": [source.push_blob("chart", b"chart", images.HELM_LAYER)],
    }
    digest = source.push_manifest("chart", manifest, images.OCI_MANIFEST, "1")
    skopeo.copy(f"{source.host}/chart", digest, f"{destination.host}/chart")
    assert digest_of(destination.manifest("chart", digest)) == digest


def test_no_tag_is_made(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    digest = source.push_image("app", "latest")
    skopeo.copy(f"{source.host}/app", digest, f"{destination.host}/app")
    tags = destination.storage / "docker/registry/v2/repositories/app/_manifests/tags"
    assert not tags.exists()


def test_copies_share_what_they_know_of_layers(
    source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    """What one repository has, another of the same registry gets by mounting: nothing is uploaded but the config."""
    layers = tuple(f"layer {number}".encode() for number in range(5))
    first, second = source.push_image("one", layers=layers), source.push_image("two", layers=(*layers, b"a sixth"))
    with FaultyProxy(destination.host) as proxy:
        host = through(proxy, source.host)
        skopeo.login({host: USER})
        skopeo.copy(f"{source.host}/one", first, f"{host}/one")
        assert len([seen for seen in proxy.seen if seen.startswith("PATCH")]) == 6
        proxy.seen.clear()
        skopeo.copy(f"{source.host}/two", second, f"{host}/two")
        assert len([seen for seen in proxy.seen if seen.startswith("PATCH")]) == 2


def test_one_first_and_then_many_at_once(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    """As the copier does: of a layer that all push at once, a docker-registry has answered 500 to who asked for it."""
    first, *others = [source.push_image("app", layers=(b"shared", f"own {number}".encode())) for number in range(12)]
    skopeo.copy(f"{source.host}/app", first, f"{destination.host}/app")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda digest: skopeo.copy(f"{source.host}/app", digest, f"{destination.host}/app"), others))
    for digest in (first, *others):
        assert digest_of(destination.manifest("app", digest)) == digest


def test_progress_is_told_while_bytes_move(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    digest = source.push_image("app", layers=(os.urandom(2_000_000),))
    told: list[int] = []
    with FaultyProxy(source.host, Fault("GET .*blobs", hang_after=1_000_000)) as proxy:
        host = through(proxy, destination.host)
        threading.Timer(3, proxy.released.set).start()
        with contextlib.suppress(Transient):  # a newer skopeo connects again and fetches the rest
            skopeo.copy(f"{host}/app", digest, f"{destination.host}/app", told.append)
    assert told
    assert told == sorted(told)
    assert told[-1] > 500_000


# --- What each failure is -------------------------------------------------------------------------------------------


def test_what_the_source_does_not_have(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    source.push_image("app", "1")
    with pytest.raises(Missing, match="manifest unknown"):
        skopeo.copy(f"{source.host}/app", ABSENT, f"{destination.host}/app")
    with pytest.raises(Missing, match="manifest unknown"):
        skopeo.copy(f"{source.host}/nothing", ABSENT, f"{destination.host}/nothing")


def test_a_layer_that_the_source_lost(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    digest = source.push_image("app", layers=(b"kept", b"lost"))
    source.lose_blob(digest_of(b"lost"))
    with pytest.raises(Transient, match=f"reading blob {digest_of(b'lost')}"):
        skopeo.copy(f"{source.host}/app", digest, f"{destination.host}/app")


def test_a_child_that_the_source_lost(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    """Not Missing: the image that was asked for is there."""
    kept, lost = source.push_image("app", layers=(b"kept",)), source.push_image("app", layers=(b"lost",))
    index = source.push_index("app", "1", [kept, lost])
    source.lose_blob(lost)
    with pytest.raises(CopyError) as caught:
        skopeo.copy(f"{source.host}/app", index, f"{destination.host}/app")
    assert type(caught.value) is Transient
    assert "copying image 2/2 from manifest list" in str(caught.value)


def test_a_wrong_password_for_the_destination(
    source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    digest = source.push_image("app")
    for login in (Login("relay", "wrong"), None):
        skopeo.login({destination.host: login})
        with pytest.raises(RegistryDown, match="authentication required"):
            skopeo.copy(f"{source.host}/app", digest, f"{destination.host}/app")


def test_a_wrong_password_for_the_source_blames_no_image(
    source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    digest = destination.push_image("app")
    for login in (Login("relay", "wrong"), None):
        skopeo.login({destination.host: login})
        with pytest.raises(CopyError, match="authentication required") as caught:
            skopeo.copy(f"{destination.host}/app", digest, f"{source.host}/app")
        assert type(caught.value) is RegistryDown


def test_nobody_listens(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    digest = source.push_image("app")
    allow_plain_http(Path(os.environ["HOME"]), [source.host, NOWHERE])
    with pytest.raises(RegistryDown, match="connection refused"):
        skopeo.copy(f"{source.host}/app", digest, f"{NOWHERE}/app")
    with pytest.raises(RegistryDown, match="connection refused"):
        skopeo.copy(f"{NOWHERE}/app", digest, f"{source.host}/copied")


def test_a_source_without_tls(source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    digest = source.push_image("app", layers=(b"one",))
    allow_plain_http(Path(os.environ["HOME"]), [destination.host])
    skopeo.copy(f"{source.host}/app", digest, f"{destination.host}/app", plain_http=True)
    assert digest_of(destination.manifest("app", digest)) == digest


def test_a_certificate_by_an_authority_of_ones_own(start_registry: Start, tmp_path: Path) -> None:
    source, destination = start_registry(USER, tls=True), start_registry()
    digest = source.push_image("app", layers=(b"one",))
    skopeo = Skopeo(tmp_path / "task")
    skopeo.login({source.host: USER})
    where = f"{source.host}/app", digest, f"{destination.host}/app"
    with pytest.raises(RegistryDown, match="x509: certificate signed by unknown authority"):
        skopeo.copy(*where)
    skopeo.copy(*where, ca_certificate=source.certificate.read_text())
    assert digest_of(destination.manifest("app", digest)) == digest


def said(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


NOT_AUTHORIZED = (
    "User: arn:aws:sts::123456789012:assumed-role/relay/task is not authorized to perform: ecr:PutImage on resource: "
    "arn:aws:ecr:eu-west-1:123456789012:repository/app because no identity-based policy allows the ecr:PutImage action"
)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("PUT .*manifests", 429, said("TOOMANYREQUESTS", "Rate exceeded")), RegistryDown),
        (Fault("PATCH .*uploads", 429, said("TOOMANYREQUESTS", "Rate exceeded")), RegistryDown),
        (Fault("HEAD .*blobs", 429, headers={"Retry-After": "0"}), RegistryDown),
        (Fault("PUT .*manifests", 500, b"<html>"), Transient),
        (Fault("POST .*uploads", 502, b"<html>"), Transient),
        (Fault("PATCH .*uploads", 503, b"<html>"), Transient),
        (Fault("HEAD .*blobs", 504), Transient),
        (Fault("PATCH .*uploads", cut_after=0), Transient),
        (Fault("PUT .*manifests", cut_after=0), Transient),
        (Fault("PUT .*manifests", 403, said("DENIED", NOT_AUTHORIZED)), Permanent),
        (Fault("POST .*uploads", 403, said("DENIED", "Your authorization token has expired.")), TokenExpired),
        (Fault("HEAD .*blobs", 403), Transient),
        (
            Fault("POST .*uploads", 404, said("NAME_UNKNOWN", "The repository with name 'app' does not exist")),
            Transient,
        ),
        (
            Fault("PUT .*manifests", 404, said("BLOB_UNKNOWN", "Layers with digests 'x' required for pushing")),
            Transient,
        ),
        (Fault("PUT .*manifests", 400, said("TAG_INVALID", "The image tag '1' already exists")), TagTaken),
        (Fault("PUT .*manifests", 400, said("MANIFEST_INVALID", "manifest payload size limit exceeded")), Permanent),
        (Fault("PUT .*manifests", 413, b"too large"), Permanent),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.pattern}-{value.status or 'cut'}",
)
def test_faults_of_the_destination(
    fault: Fault, kind: type[CopyError], source: DockerRegistry, start_registry: Start, skopeo: Skopeo
) -> None:
    digest = source.push_image("app", layers=(b"denied", b"unauthorized 429"))
    with FaultyProxy(start_registry().host, fault) as proxy:
        fault.headers.setdefault("Content-Type", "application/json")
        with pytest.raises(CopyError) as caught:
            skopeo.copy(f"{source.host}/app", digest, f"{through(proxy, source.host)}/app")
    assert type(caught.value) is kind, caught.value


def test_a_second_run_after_the_token_expired_uploads_no_layer_again(
    source: DockerRegistry, start_registry: Start, skopeo: Skopeo
) -> None:
    """What the copier does with a copy that outlasts its login; ECR's words, after all layers have arrived."""
    digest = source.push_image("app", layers=(b"one", b"two"))
    expired = Fault("PUT .*manifests", 403, said("DENIED", "Your authorization token has expired."), times=1)
    expired.headers["Content-Type"] = "application/json"
    destination = start_registry()
    with FaultyProxy(destination.host, expired) as proxy:
        host = through(proxy, source.host)
        with pytest.raises(TokenExpired):
            skopeo.copy(f"{source.host}/app", digest, f"{host}/app")
        assert len([seen for seen in proxy.seen if seen.startswith("PATCH")]) == 3  # two layers and the config
        skopeo.copy(f"{source.host}/app", digest, f"{host}/app")
        assert len([seen for seen in proxy.seen if seen.startswith("PATCH")]) == 3
    assert digest_of(destination.manifest("app", digest)) == digest


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET .*manifests", 429, headers={"Retry-After": "0"}),
        Fault("GET .*manifests", 503),
        Fault("GET .*blobs", 500),
        Fault("GET .*blobs", 403),
        Fault("GET .*manifests", 403, said("DENIED", "requested access to the resource is denied")),
        Fault("GET .*manifests", cut_after=10),
        Fault("GET .*blobs", cut_after=3),
        Fault("GET .*blobs", 200, b"other bytes"),
        Fault("GET .*manifests", 200, b"{}", {"Content-Type": images.OCI_MANIFEST}),
    ],
    ids=lambda fault: f"{fault.pattern}-{fault.status or 'cut'}",
)
def test_faults_of_the_source(
    fault: Fault, source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    digest = source.push_image("app", layers=(b"some layer",))
    with FaultyProxy(source.host, fault) as proxy, pytest.raises(CopyError) as caught:
        skopeo.copy(f"{through(proxy, destination.host)}/app", digest, f"{destination.host}/app")
    assert type(caught.value) is (RegistryDown if fault.status == 429 else Transient), caught.value


def test_the_query_of_a_url_is_not_told(source: DockerRegistry, start_registry: Start, skopeo: Skopeo) -> None:
    digest = source.push_image("app")
    with FaultyProxy(start_registry().host, Fault("PATCH", cut_after=0)) as proxy:
        with pytest.raises(Transient, match=r"/blobs/uploads/.*\?…") as caught:
            skopeo.copy(f"{source.host}/app", digest, f"{through(proxy, source.host)}/app")
        assert "_state" not in str(caught.value)


# --- Ends that are no answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Fault("GET .*manifests", hang=True), Fault("GET .*blobs", hang_after=1_000_000)],
    ids=["before the first byte", "in the middle of a layer"],
)
def test_a_stalled_source(fault: Fault, tmp_path: Path, source: DockerRegistry, destination: DockerRegistry) -> None:
    digest = source.push_image("app", layers=(os.urandom(2_000_000),))
    skopeo = Skopeo(tmp_path / "work", stall_seconds=1.5)
    skopeo.login({destination.host: USER})
    with FaultyProxy(source.host, fault) as proxy:
        host = through(proxy, destination.host)
        begun = time.monotonic()
        with pytest.raises(Transient, match=r"no byte moved for 1\.5 s"):
            skopeo.copy(f"{host}/app", digest, f"{destination.host}/app")
        assert time.monotonic() - begun < 10
    assert skopeos() == []


def test_a_copy_that_takes_too_long(tmp_path: Path, source: DockerRegistry, destination: DockerRegistry) -> None:
    digest = source.push_image("app")
    skopeo = Skopeo(tmp_path / "work", command_timeout_seconds=1)
    with FaultyProxy(source.host, Fault("GET .*manifests", hang=True)) as proxy:
        host = through(proxy, destination.host)
        with pytest.raises(Transient, match="deadline exceeded"):
            skopeo.copy(f"{host}/app", digest, f"{destination.host}/app")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_copy_that_is_ended(end: str, source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo) -> None:
    digest = source.push_image("app")
    with FaultyProxy(source.host, Fault("GET .*blobs", hang=True)) as proxy, ThreadPoolExecutor(1) as pool:
        host = through(proxy, destination.host)
        copying = pool.submit(skopeo.copy, f"{host}/app", digest, f"{destination.host}/app")
        pid = the_skopeo()
        begun = time.monotonic()
        if end == "kill":
            os.kill(pid, signal.SIGKILL)
            reason = "skopeo was killed by signal 9"
        else:
            skopeo.stop()
            reason = "stopped"
        with pytest.raises(Transient, match=f"^{reason}$"):
            copying.result(timeout=10)
        assert time.monotonic() - begun < 5
        assert skopeos() == []
        if end == "stop":
            with pytest.raises(Transient, match=r"^stopped$"):
                skopeo.copy(f"{host}/app", digest, f"{destination.host}/app")


def test_the_destination_dies_in_the_middle(
    source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    digest = source.push_image("app", layers=(os.urandom(3_000_000),))
    with FaultyProxy(source.host, Fault("GET .*blobs", hang_after=1_000_000)) as proxy, ThreadPoolExecutor(1) as pool:
        host = through(proxy, source.host, destination.host)
        copying = pool.submit(skopeo.copy, f"{host}/app", digest, f"{destination.host}/app")
        uploads = destination.storage / "docker/registry/v2/repositories/app/_uploads"
        wait_for(lambda: any(file.stat().st_size for file in uploads.glob("*/data")))
        destination.stop()
        proxy.released.set()
        with pytest.raises(CopyError) as caught:
            copying.result(timeout=30)
        assert type(caught.value) is Transient, caught.value
    with pytest.raises(RegistryDown, match="connection refused"):
        skopeo.copy(f"{source.host}/app", digest, f"{destination.host}/app")
    destination.start()
    skopeo.copy(f"{source.host}/app", digest, f"{destination.host}/app")
    assert digest_of(destination.manifest("app", digest)) == digest


def test_no_skopeo_outlives_a_copier_that_is_killed(
    tmp_path: Path, source: DockerRegistry, destination: DockerRegistry
) -> None:
    digest = source.push_image("app")
    with FaultyProxy(source.host, Fault("GET .*manifests", hang=True)) as proxy:
        program = f"""
            from pathlib import Path
            from ecr_relay.skopeo import Skopeo
            names = "{through(proxy, destination.host)}/app", "{digest}", "{destination.host}/app"
            Skopeo(Path("{tmp_path}/work")).copy(*names)
        """
        copier = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
        try:
            wait_for(lambda: [seen for seen in proxy.seen if "/manifests/" in seen])
            [skopeo] = [int(pid) for pid in Path(f"/proc/{copier.pid}/task/{copier.pid}/children").read_text().split()]
        finally:
            copier.kill()
            copier.wait()
        wait_for(lambda: not Path(f"/proc/{skopeo}").exists() or "Z" in Path(f"/proc/{skopeo}/stat").read_text())


# --- Secrets --------------------------------------------------------------------------------------------------------


def test_no_process_list_or_environment_shows_a_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: DockerRegistry, destination: DockerRegistry
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/secret-path")
    skopeo = Skopeo(tmp_path / "work")
    skopeo.login({destination.host: USER})
    digest = source.push_image("app")
    with FaultyProxy(source.host, Fault("GET .*blobs", hang=True)) as proxy, ThreadPoolExecutor(1) as pool:
        host = through(proxy, destination.host)
        copying = pool.submit(skopeo.copy, f"{host}/app", digest, f"{destination.host}/app")
        process = Path(f"/proc/{the_skopeo()}")
        shown = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
        skopeo.stop()
        with pytest.raises(Transient):
            copying.result(timeout=10)
    assert b"correct horse" not in shown
    assert b"secret-path" not in shown


def test_the_auth_file_is_private(tmp_path: Path) -> None:
    skopeo = Skopeo(tmp_path / "work")
    skopeo.login({"one.example": USER, "two.example": None})
    skopeo.login({"three.example:5000": USER})
    [file] = (tmp_path / "work").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert list(json.loads(file.read_text())["auths"]) == ["three.example:5000"]


def test_a_developers_own_logins_are_not_used(
    source: DockerRegistry, destination: DockerRegistry, skopeo: Skopeo
) -> None:
    docker = Path(os.environ["HOME"]) / ".docker"
    docker.mkdir()
    skopeo.login({destination.host: USER})
    (skopeo_auth := docker / "config.json").write_text((Path(os.environ["HOME"]).parent / "work/auth.json").read_text())
    assert destination.host in skopeo_auth.read_text()
    skopeo.login({})
    with pytest.raises(RegistryDown, match="authentication required"):
        skopeo.copy(f"{source.host}/app", source.push_image("app"), f"{destination.host}/app")


def test_no_skopeo(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not installed"):
        Skopeo(tmp_path, executable="no-such-skopeo")
