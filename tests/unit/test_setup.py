"""The shell scripts on a PATH that holds only what the case says: setting up, and `make image`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.machine import Machine

ROOT = Path(__file__).parents[2]
SCRIPTS = ["scripts/setup-system", "scripts/deploy", "copier_image/build"]
SHELLCHECK = shutil.which("shellcheck")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_they_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["/bin/sh", "-n", str(ROOT / script)], check=False).returncode == 0


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    done = subprocess.run([str(SHELLCHECK), str(ROOT / script)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


class TestSetup:
    SCRIPT = str(ROOT / "scripts" / "setup-system")

    def test_nothing_is_missing(self, machine: Machine) -> None:
        machine.has_python("3.11")
        machine.has("skopeo")
        machine.has("docker-registry")
        done = machine.run(self.SCRIPT)
        assert (done.returncode, done.stdout, done.stderr, machine.called) == (0, "", "", [])

    @pytest.mark.parametrize("version", ["3.10", "3.14", "2.7"])
    def test_a_python_that_is_too_old_or_too_new(self, machine: Machine, version: str) -> None:
        machine.has_python(version)
        done = machine.run(self.SCRIPT)
        assert done.returncode == 1
        assert f"python3 is Python {version}; ecr-relay runs on 3.11 to 3.13; name one: make PYTHON=" in done.stderr

    def test_no_python(self, machine: Machine) -> None:
        done = machine.run(self.SCRIPT)
        assert done.returncode == 1
        assert done.stderr.startswith("setup: no python3; install Python 3.11, 3.12 or 3.13, or name it: make PYTHON=")

    def test_another_python_that_was_named(self, machine: Machine) -> None:
        machine.has_python("3.12", name="python3.12")
        machine.has("skopeo")
        machine.has("docker-registry")
        assert machine.run(self.SCRIPT, PYTHON="python3.12").returncode == 0
        assert "no python3.13" in machine.run(self.SCRIPT, PYTHON="python3.13").stderr

    def test_without_apt_it_says_what_to_install(self, machine: Machine) -> None:
        machine.has_python("3.11")
        done = machine.run(self.SCRIPT)
        assert done.returncode == 1
        assert "missing: skopeo docker-registry. This knows only apt-get" in done.stderr
        assert "dnf, apk, brew: skopeo" in done.stderr

    def test_without_apt_the_demo_needs_no_docker_registry(self, machine: Machine) -> None:
        machine.has_python("3.11")
        machine.has("skopeo")
        done = machine.run(self.SCRIPT)
        assert done.returncode == 0
        assert "(for 'make test' only)" in done.stderr

    def test_without_root_it_says_what_to_run(self, machine: Machine) -> None:
        machine.has_python("3.11", venv=False)
        machine.has("apt-get")
        machine.has("id", "echo 1000")
        done = machine.run(self.SCRIPT)
        assert done.returncode == 1
        assert "needs root" in done.stderr
        assert "install --yes --no-install-recommends skopeo docker-registry python3-venv\n" in done.stderr
        assert not any(line.startswith("apt-get") for line in machine.called)

    def test_a_sudo_that_would_ask_is_not_asked(self, machine: Machine) -> None:
        machine.has_python("3.11")
        machine.has("apt-get")
        machine.has("id", "echo 1000")
        machine.has("sudo", "exit 1")
        assert machine.run(self.SCRIPT).returncode == 1
        assert [line for line in machine.called if line.startswith("sudo")] == ["sudo -n true"]

    def test_by_sudo_where_it_asks_nothing(self, machine: Machine) -> None:
        machine.has_python("3.11")
        machine.has("docker-registry")
        machine.has("apt-get")
        machine.has("id", "echo 1000")
        machine.has("sudo", 'shift; [ "$1" = true ] || "$@"')
        done = machine.run(self.SCRIPT)
        assert done.returncode == 0
        assert [line for line in machine.called if line.startswith("apt-get")] == [
            "apt-get update -qq",
            "apt-get install --yes -qq --no-install-recommends skopeo",
        ]

    def test_by_root(self, machine: Machine) -> None:
        machine.has_python("3.11", venv=False)
        machine.has("apt-get")
        machine.has("id", "echo 0")
        done = machine.run(self.SCRIPT)
        assert (done.returncode, done.stdout) == (
            0,
            "setup: installing skopeo docker-registry python3-venv by apt-get\n",
        )
        assert machine.called[-1].endswith("skopeo docker-registry python3-venv")

    @pytest.mark.parametrize(
        ("fails", "says"),
        [("update", "apt-get update failed; is there a network"), ("install", "apt-get could not install: skopeo")],
    )
    def test_what_apt_cannot_do_is_said(self, machine: Machine, fails: str, says: str) -> None:
        machine.has_python("3.11")
        machine.has("docker-registry")
        machine.has("id", "echo 0")
        machine.has("apt-get", f'[ "$1" != {fails} ]')
        done = machine.run(self.SCRIPT)
        assert done.returncode == 1
        assert says in done.stderr


class TestImage:
    @pytest.fixture
    def script(self, machine: Machine) -> str:
        machine.has_real("cp", "dirname", "find", "ls", "mkdir", "mktemp", "rm", "sed")
        return str(ROOT / "copier_image" / "build")

    LOOK = (
        'for last; do :; done; [ -d "$last" ] && (cd "$last" && find . -name "__pycache__" -o -type f) >"$HOME/context"'
    )

    def test_by_docker_where_an_engine_answers(self, machine: Machine, script: str) -> None:
        machine.has("docker", f'[ "$1" = info ] || {{ {self.LOOK}; }}')
        machine.has("buildah")
        done = machine.run(script, "--platform", "linux/arm64", TMPDIR=str(machine.home))
        assert done.returncode == 0, done.stderr
        assert machine.called[0] == "docker info"
        words = machine.called[1].split()
        assert words[:4] == ["docker", "build", "--platform", "linux/arm64"]
        assert words[words.index("--tag") + 1] == "ecr-relay-copier:0.1.0"
        assert not Path(words[-1]).exists()
        context = set((machine.home / "context").read_text().split())
        assert {"./copier_image/Dockerfile", "./requirements/copier.txt", "./ecr_relay/copy/__main__.py"} <= context
        assert {name.split("/")[1] for name in context} == {"copier_image", "ecr_relay", "requirements"}
        assert not any("__pycache__" in name for name in context)

    def test_the_context_is_all_that_the_dockerfile_copies(self) -> None:
        dockerfile = (ROOT / "copier_image" / "Dockerfile").read_text()
        copied = [
            line.split()[1] for line in dockerfile.splitlines() if line.startswith("COPY") and "--from" not in line
        ]
        assert {name.split("/")[0] for name in copied} == {"requirements", "ecr_relay", "copier_image"}

    def test_by_buildah_where_none_does(self, machine: Machine, script: str) -> None:
        machine.has("docker", "exit 1")
        machine.has("buildah")
        done = machine.run(script)
        assert (done.returncode, done.stdout) == (0, "image: ecr-relay-copier:0.1.0, by buildah\n")

    def test_one_line_where_there_is_neither(self, machine: Machine, script: str) -> None:
        machine.has("docker", "exit 1")
        done = machine.run(script)
        assert done.returncode == 1
        assert done.stderr == (
            "image: no Docker engine answers, and there is no buildah; install either "
            "(Debian: apt-get install buildah)\n"
        )

    def test_a_build_that_fails_is_a_failure(self, machine: Machine, script: str) -> None:
        machine.has("buildah", "exit 125")
        assert machine.run(script).returncode == 125
