"""`make screens`: docs/screens.md, what an operator sees, from the commands against the local cloud.

Images, ids and times are a run's own; everything else is what the commands print. A pipe gets 80 columns, and so does
the terminal that `sync --wait` is shown on.
"""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import urllib3

from local import images
from local.deploy import ROOT, DeployError
from local.servers import LocalError
from local.up import LocalCloud, local_cloud

PAGE: Final = ROOT / "docs" / "screens.md"
GIVING_UP_S: Final = 240.0
WIDTH: Final = 80
LAYERS: Final = (40_000_000, 30_000_000, 20_000_000)
"""Large enough that a copy is seen running."""

_HEAD: Final = """\
# Screens

<!-- Written by `make screens`; do not edit. -->

What the commands print, here against the local cloud (`--state DIR` is left out). On a terminal there are colours, and
`status --watch` fills the screen. Every command has `--json`: [commands.md](commands.md).
"""
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screens:
    """Runs commands against one local cloud, and keeps what they print."""

    def __init__(self, cloud: LocalCloud, folder: Path, state: Path) -> None:
        self._cloud = cloud
        self._folder = folder
        self._state = state
        self._source = cloud.endpoints.source_registry
        self._program = str(ROOT / ".venv" / "bin" / "ecr-relay")
        self.parts = [_HEAD]

    def write(self) -> None:
        broken = self._break("shop/broken:1.0")
        self._push(images.single(self._folder / "web", "web"), "shop/web:1.0")
        self._until(lambda: self._images("shop/web") == ["copied"], "shop/web has arrived")
        self._push(images.single(self._folder / "big", "big", LAYERS), "shop/big:2.1")
        self._until(lambda: bool(self._json("status")["running"]), "a copy runs")
        self._show("status", "How it goes: what waits, what runs, what failed, how long pushes take.")
        self._until(lambda: bool(self._json("dlq", "list")["letters"]), "the broken image is a dead letter")
        self._show("dlq list", "What was given up, and why.")
        letter = self._json("dlq", "list")["letters"][0]["id"]
        self._show(f"dlq show {letter[:8]}", "One of them: the message, what the ledger knows, the copy's own log.")
        self._delete("shop/web")
        self._show("sync --dry-run", "What a full sync would do.")
        self._watch("sync --wait", "The full sync, followed until every copy has ended; one of them fails again.")
        self._show("doctor", "What the deployment lacks. The local cloud has no Service Quotas and no mail.")
        self._show("explain shop/broken:1.0", "Why an image is where it is.")
        self._mend("shop/broken", broken)
        self._show("dlq redrive --all", "The layer is back at the source; once more, then.")
        self._show("wait shop/broken:1.0 --destination west", "For a pipeline that must not deploy before.")
        self._show("images", "All that the ledger knows.")
        self._show("status", "And how it goes afterwards.")

    # What happens

    def _break(self, image: str) -> images.Made:
        """Pushed, with a layer that the source has lost by the time it is copied."""
        repository = image.partition(":")[0]
        made = images.single(self._folder / "broken", "broken")
        self._json("pause")
        self._push(made, image)
        url = f"http://{self._source}/v2/{repository}/blobs/{made.layers[0]}"
        _expect(urllib3.request("DELETE", url, retries=False).status == 202, "the source would not lose the layer")
        self._json("resume")
        return made

    def _mend(self, repository: str, made: images.Made) -> None:
        """Only the layer: a push would be an event, and would copy it by itself."""
        digest = made.layers[0]
        begun = urllib3.request("POST", f"http://{self._source}/v2/{repository}/blobs/uploads/", retries=False)
        location = begun.headers["Location"]
        url = location if location.startswith("http") else f"http://{self._source}{location}"
        blob = (self._folder / "broken" / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
        joint = "&" if "?" in url else "?"
        answer = urllib3.request("PUT", f"{url}{joint}digest={digest}", body=blob, retries=False)
        _expect(answer.status == 201, "the source would not take the layer back")

    def _push(self, made: images.Made, image: str) -> None:
        command = ["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
        subprocess.run([*command, made.source, f"docker://{self._source}/{image}"], check=True)

    def _delete(self, repository: str) -> None:
        """All of it at the destination."""
        (destination,) = self._cloud.config.destinations
        ecr = self._cloud.clients("ecr", destination.region)
        ids = ecr.list_images(repositoryName=repository)["imageIds"]
        ecr.batch_delete_image(repositoryName=repository, imageIds=ids)

    def _images(self, repository: str) -> list[str]:
        return [image["status"] for image in self._json("images", "--repository", repository)["images"]]

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + GIVING_UP_S
        while not holds():
            _expect(time.monotonic() < ends, f"after {GIVING_UP_S:.0f} s it is not so that {what}")
            self._cloud.check()

    # What is seen

    def _command(self, *arguments: str) -> list[str]:
        return [self._program, *arguments, "--state", str(self._state)]

    def _json(self, *arguments: str) -> dict[str, list[dict[str, str]]]:
        done = subprocess.run(self._command(*arguments, "--json"), capture_output=True, text=True, check=False)
        _expect(done.returncode == 0, f"ecr-relay {' '.join(arguments)}: {done.stderr.strip()}")
        found: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
        return found

    def _show(self, line: str, title: str) -> None:
        done = subprocess.run(self._command(*line.split()), capture_output=True, text=True, check=False)
        self._keep(line, title, done.stdout + done.stderr, done.returncode)

    def _watch(self, line: str, title: str) -> None:
        """On a terminal, for its progress bar: each of its states once, as they came."""
        terminal, end = pty.openpty()
        environ = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}
        with subprocess.Popen(
            self._command(*line.split()), stdout=subprocess.PIPE, stderr=end, text=True, env=environ
        ) as process:
            os.close(end)
            frames = list(_frames(terminal))
            _expect(process.stdout is not None, "no stdout")
            shown = process.stdout.read() if process.stdout else ""
        os.close(terminal)
        self._keep(line, title, "\n".join([*frames, shown]), process.returncode)

    def _keep(self, line: str, title: str, text: str, status: int) -> None:
        print(f"\n$ ecr-relay {line}\n{text}", flush=True)
        ended = f"(exit status {status})\n" if status else ""
        lines = "\n".join(part for one in text.rstrip().splitlines() for part in _folded(one.rstrip()))
        self.parts.append(f"{title}\n\n```text\n$ ecr-relay {line}\n{lines}\n{ended}```\n")


def _folded(line: str) -> list[str]:
    """As a terminal does it to a line that is printed whole, such as a message's body."""
    return [line[start : start + WIDTH] for start in range(0, len(line), WIDTH)] or [""]


def _frames(terminal: int) -> Iterator[str]:
    """What a progress bar said, whenever its words have changed. The bar and the clock change all the time."""
    text, said = "", ""
    while True:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:  # Linux: the other side has closed it
            chunk = b""
        text += chunk.decode(errors="replace")
        *whole, text = re.split(r"[\r\n]+", text)
        for one in [*whole, text] if not chunk else whole:
            frame = _ESCAPE.sub("", one).strip()
            words = frame.partition("  ")[0].partition("━")[0].partition(" ━")[0].strip()
            if words and words not in ("starting", said):
                said = words
                yield frame
        if not chunk:
            return


class Unexpected(Exception):
    """Something did not go as it should; the message says what."""


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Unexpected(otherwise)


def main() -> int:
    if shutil.which("skopeo") is None:
        print("screens: skopeo is not on PATH; `make screens` installs it, or says how", file=sys.stderr)
        return 1
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screens-", dir=ROOT / "build") as folder:
        state = Path(folder, "state")
        try:
            with local_cloud(state, say=lambda text: print(text, flush=True)) as cloud:
                screens = Screens(cloud, Path(folder, "images"), state)
                screens.write()
        except (Unexpected, LocalError, DeployError) as error:
            print(f"\nscreens: {error}", file=sys.stderr)
            return 1
    PAGE.write_text("\n".join(screens.parts), encoding="utf-8")
    print(f"\n{PAGE.relative_to(ROOT)} is written.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
