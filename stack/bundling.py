"""The Lambda asset: locked dependencies and our own modules, without what Lambda has no use for.

The same lock and the same sources give the same bytes, whoever builds it and when. It lies below `build/lambda` under
a name that is a hash of what it is made of, so that a second synthesis finds it, and is moved there in one step, so
that two at once do not see each other's halves.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from aws_cdk import aws_lambda as lambda_

from stack.sources import reachable

BundleFor = Literal["lambda", "local"]
"""`lambda`: Lambda's Python and the configured architecture. `local`: the running interpreter, for the local cloud."""

Architecture = Literal["arm64", "x86_64"]

PYTHON: Final = "3.13"
"""Of the Lambda runtime."""

ENTRY_POINTS: Final = ("handlers.consumer", "handlers.reconcile")

SERVICES: Final = ("dynamodb", "ecr", "ecs", "events", "secretsmanager", "sqs", "ssm", "sts")
"""The services whose API descriptions the asset holds; botocore brings 400. A test holds it equal to what is used."""

RESOURCES: Final = ("dynamodb",)
"""The same for boto3's resource descriptions."""

ROOT: Final = Path(__file__).parents[1]
CACHE: Final = ROOT / "build" / "lambda"

_MACHINES: Final = {"arm64": "aarch64", "x86_64": "x86_64"}

_PLATFORMS: Final = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34")
"""What Amazon Linux 2023 (glibc 2.34), under Lambda's Python 3.13, can load."""

_DEAD_WEIGHT: Final = (
    "*.dist-info",
    "bin",
    "**/*.pyi",
    "**/py.typed",
    "aws_lambda_powertools/event_handler",
    "aws_lambda_powertools/utilities/auth_alpha",
    "aws_lambda_powertools/utilities/circuit_breaker",
    "aws_lambda_powertools/utilities/data_masking",
    "aws_lambda_powertools/utilities/feature_flags",
    "aws_lambda_powertools/utilities/idempotency",
    "aws_lambda_powertools/utilities/kafka",
    "aws_lambda_powertools/utilities/parameters",
    "aws_lambda_powertools/utilities/parser",
    "aws_lambda_powertools/utilities/streaming",
    "aws_lambda_powertools/utilities/validation",
    "boto3/examples",
    "botocore/data/*/*/examples-1.json",
    "pydantic/mypy.py",
    "pydantic/v1",
)
"""Parts of the dependencies that nothing here imports. A test imports the handlers from an asset without them."""

_MODIFIED: Final = 946_684_800
"""2000-01-01: every file's time, since a zip archive remembers it, and cannot remember one before 1980."""


class BundlingError(RuntimeError):
    """The asset could not be built; `str()` says why in a line or a few."""


def lambda_code(bundle_for: BundleFor, architecture: Architecture, more: Mapping[str, bytes]) -> lambda_.Code:
    """The code of both functions, and `more` files beside it. Raises BundlingError."""
    return lambda_.Code.from_asset(str(bundle(bundle_for, architecture, more)))


def bundle(
    bundle_for: BundleFor,
    architecture: Architecture,
    more: Mapping[str, bytes] = MappingProxyType({}),
    *,
    root: Path = ROOT,
    cache: Path = CACHE,
) -> Path:
    """The directory that holds the asset, built if it is not there yet. `architecture` is ignored for `local`; `more`
    is files, by name. Raises BundlingError.
    """
    lock = root / "requirements" / "lambda.txt"
    options = _pip_options(bundle_for, architecture)
    try:
        sources = reachable(root, ENTRY_POINTS)
    except FileNotFoundError as error:
        raise BundlingError(f"Lambda asset: {error}") from None
    installed = _digest(_ingredients(lock, options))
    dependencies = cache / f"dependencies-{installed}"
    _build(dependencies, lambda target: _install(target, lock, options))

    # Read once, so that what is written is what its name was made from, also while somebody edits.
    ours = {path.relative_to(root): path.read_bytes() for path in sources} | {
        Path(name): content for name, content in more.items()
    }
    contents = _digest([installed.encode(), *(part for name, text in ours.items() for part in (bytes(name), text))])
    asset = cache / f"asset-{contents}"

    def assemble(target: Path) -> None:
        # Links, so that an asset for every edit costs no more than what was edited.
        shutil.copytree(dependencies, target, copy_function=os.link)
        for name, text in ours.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(text)

    _build(asset, assemble)
    return asset


def _pip_options(bundle_for: BundleFor, architecture: Architecture) -> list[str]:
    if bundle_for == "local":
        return []
    machine = _MACHINES[architecture]
    platforms = [option for name in _PLATFORMS for option in ("--platform", f"{name}_{machine}")]
    return ["--python-version", PYTHON, "--implementation", "cp", *platforms]


def _ingredients(lock: Path, options: list[str]) -> Iterator[bytes]:
    yield lock.read_bytes()
    yield Path(__file__).read_bytes()
    # Without options it is the running interpreter that decides.
    interpreter = "" if options else f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"
    yield " ".join((interpreter, *options)).encode()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _build(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` make a directory and put it at `path`, whole or not at all; nothing to do if it is there."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as scratch:
        made = Path(scratch) / path.name
        fill(made)
        _normalize(made)
        try:
            made.rename(path)
        except OSError:
            if not path.is_dir():  # else another process was first, with the same bytes
                raise


def _install(target: Path, lock: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-user", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", *options]
    command += ["--target", str(target), "--requirement", str(lock)]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        raise BundlingError(f"Lambda asset: pip could not install {lock}:\n{ran.stderr.strip()}")
    _prune(target)


def _prune(target: Path) -> None:
    for pattern in _DEAD_WEIGHT:
        for path in list(target.glob(pattern)):
            _remove(path)
    for package, kept in (("botocore", SERVICES), ("boto3", RESOURCES)):
        for service in list((target / package / "data").iterdir()):
            if service.is_dir() and service.name not in kept:
                _remove(service)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _normalize(target: Path) -> None:
    """Times and modes that depend on neither the clock nor the umask; Lambda must be able to read every file."""
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (_MODIFIED, _MODIFIED))
