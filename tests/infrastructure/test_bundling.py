"""The Lambda asset: what is in it, what is not, that it runs, and that it is the same each time."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stack import bundling
from stack.bundling import ENTRY_POINTS, RESOURCES, ROOT, SERVICES, BundlingError, bundle
from stack.sources import reachable
from tests.infrastructure.template import Synthesized, resolved

ELF_MACHINES = {"arm64": 183, "x86_64": 62}
"""e_machine: EM_AARCH64, EM_X86_64 (elf.h)."""


def files(asset: Path) -> set[str]:
    return {path.relative_to(asset).as_posix() for path in asset.rglob("*") if path.is_file()}


def fingerprint(asset: Path) -> str:
    """Of names, bytes, modes and times."""
    digest = hashlib.sha256()
    for path in sorted([asset, *asset.rglob("*")]):
        stat = path.stat()
        digest.update(f"{path.relative_to(asset)} {stat.st_mode:o} {stat.st_mtime}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def used(method: str) -> set[str]:
    """Service names in `anything.method("service", ...)`, in what the handlers import."""
    found: set[str] = set()
    for path in reachable(ROOT, ENTRY_POINTS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
                [name, *_] = [*node.args, *(key.value for key in node.keywords if key.arg == "service_name")]
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: a service by computed name is not found"
                found.add(str(name.value))
    return found


def test_both_functions_are_one_asset(example: Synthesized) -> None:
    assert example.asset("Consumer") == example.asset("Reconcile")


def test_our_modules_in_it_are_those_that_the_handlers_import(example: Synthesized) -> None:
    asset = example.asset("Consumer")
    ours = {name for name in files(asset) if name.startswith(("ecr_relay/", "handlers/"))}
    assert ours == {path.relative_to(ROOT).as_posix() for path in reachable(ROOT, ENTRY_POINTS)}
    for name in ours:
        assert (asset / name).read_bytes() == (ROOT / name).read_bytes()
    # The copier's and the operator's code is not among them.
    assert not [name for name in ours if name.startswith(("ecr_relay/cli/", "ecr_relay/copy/"))]
    assert "ecr_relay/skopeo.py" not in ours


def test_it_holds_nothing_else_of_ours_and_no_dead_weight(example: Synthesized) -> None:
    asset = example.asset("Consumer")
    locked = {
        line.partition("==")[0].replace("-", "_")
        for line in (ROOT / "requirements" / "lambda.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    top = {name.partition("/")[0].removesuffix(".py") for name in files(asset)}
    imported = {"python_dateutil": "dateutil", "google_re2": "re2", "node_semver": "nodesemver"}
    assert top == {imported.get(name, name) for name in locked} | {"ecr_relay", "handlers"}
    endings = (".pyc", ".pyi", ".typed", ".rst", ".md", ".c", ".pyx", ".exe")
    assert not [name for name in files(asset) if name.endswith(endings) or "/tests/" in name or ".dist-info" in name]
    size = sum((asset / name).stat().st_size for name in files(asset))
    assert size < 15_000_000, "Lambda loads all of it at a cold start"


def test_it_holds_the_services_that_the_code_uses_and_no_other(example: Synthesized) -> None:
    asset = example.asset("Consumer")
    assert used("client") | used("resource") == set(SERVICES)
    assert used("resource") == set(RESOURCES)
    assert {path.name for path in (asset / "botocore" / "data").iterdir() if path.is_dir()} == set(SERVICES)
    assert {path.name for path in (asset / "boto3" / "data").iterdir() if path.is_dir()} == set(RESOURCES)


@pytest.mark.parametrize(("variant", "architecture"), [("example", "arm64"), ("x86", "x86_64")])
def test_its_binaries_are_for_lambdas_python_and_architecture(
    request: pytest.FixtureRequest, variant: str, architecture: str
) -> None:
    synthesized: Synthesized = request.getfixturevalue(variant)
    libraries = list(synthesized.asset("Consumer").rglob("*.so"))
    assert libraries
    for library in libraries:
        assert ".cpython-313-" in library.name
        assert int.from_bytes(library.read_bytes()[18:20], "little") == ELF_MACHINES[architecture]


IMPORT = """
import sys, os
asset, *services = sys.argv[1:]
sys.path.insert(0, asset)
sys.dont_write_bytecode = True
import handlers.consumer, handlers.reconcile
assert callable(handlers.consumer.handler) and callable(handlers.reconcile.handler)
import boto3
for service in services:
    boto3.client(service)
standard = os.path.dirname(os.__file__)
for name, module in list(sys.modules.items()):
    path = getattr(module, "__file__", None)
    assert path is None or path.startswith((asset + os.sep, standard + os.sep)), (name, path)
"""


def run_in(python: str, synthesized: Synthesized) -> subprocess.CompletedProcess[str]:
    """Import the handlers in an interpreter that has the asset and the standard library, as Lambda does."""
    environment = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    for part in ("Consumer", "Reconcile"):
        _, function = synthesized.one("AWS::Lambda::Function", part)
        environment |= resolved(function["Environment"]["Variables"])
    command = [python, "-I", "-S", "-c", IMPORT, str(synthesized.asset("Consumer")), *SERVICES]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def python_of_lambda() -> str | None:
    """A Python 3.13, if this machine has one where it is looked for."""
    candidates = [shutil.which(f"python{bundling.PYTHON}"), sys.executable]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += [str(path) for path in pyenv.glob(f"versions/{bundling.PYTHON}.*/bin/python")]
    for candidate in candidates:
        if candidate:
            asked = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
            if asked.stdout.strip() == bundling.PYTHON:
                return candidate
    return None


def test_it_runs_in_the_local_interpreter(example_local: Synthesized) -> None:
    ran = run_in(sys.executable, example_local)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the asset for x86-64 needs such a machine")
def test_it_runs_in_lambdas_python(x86: Synthesized) -> None:
    python = python_of_lambda()
    if python is None:
        pytest.skip(f"no Python {bundling.PYTHON} here")
    ran = run_in(python, x86)
    assert ran.returncode == 0, ran.stderr


def test_the_templates_for_lambda_and_local_differ_in_the_asset_alone(
    example: Synthesized, example_local: Synthesized
) -> None:
    texts = [
        json.dumps(synthesized.body).replace(synthesized.asset("Consumer").name.removeprefix("asset."), "ASSET")
        for synthesized in (example, example_local)
    ]
    assert texts[0] == texts[1]
    assert example.asset("Consumer").name != example_local.asset("Consumer").name


def test_built_twice_it_is_the_same_whatever_the_umask(tmp_path: Path) -> None:
    found = []
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        try:
            found.append(bundle("local", "arm64", cache=tmp_path / f"{umask:o}"))
        finally:
            os.umask(before)
    assert found[0].name == found[1].name
    assert fingerprint(found[0]) == fingerprint(found[1])


def test_built_once_it_is_found(example_local: Synthesized, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(bundling, "_install", refuse)
    assert files(bundle("local", "arm64")) == files(example_local.asset("Consumer"))


def test_two_at_once_end_with_one_whole_asset(tmp_path: Path) -> None:
    both_are_at_it = threading.Barrier(2)

    def fill(target: Path) -> None:
        target.mkdir()
        (target / "part").write_text("whole", encoding="utf-8")
        both_are_at_it.wait(timeout=10)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(bundling._build, tmp_path / "asset", fill) for _ in range(2)]:
            done.result()
    assert [path.name for path in tmp_path.iterdir()] == ["asset"]
    assert (tmp_path / "asset" / "part").read_text(encoding="utf-8") == "whole"


def test_what_fails_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ENTRY_POINTS:
        path = root / Path(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "requirements").mkdir()
    (root / "requirements" / "lambda.txt").write_text(f"./absent.whl --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    with pytest.raises(BundlingError, match=r"pip could not install .*lambda\.txt:\n(.|\n)*absent\.whl"):
        bundle("lambda", "arm64", root=root, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_handler_there_is_no_asset(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "lambda.txt").touch()
    with pytest.raises(BundlingError, match=r"handlers/consumer\.py: no such module"):
        bundle("local", "arm64", root=tmp_path, cache=tmp_path / "cache")
