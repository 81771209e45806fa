"""A machine with nothing on its PATH but what a test says: for the shell scripts."""

import shutil
import subprocess
from pathlib import Path


class Machine:
    """A folder for PATH, and a record of what was called there. `home` is where a script is run."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "log"
        self.log.touch()

    def has(self, name: str, body: str = "") -> None:
        """A program that notes how it was called, and then does `body`."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.log}"\n{body}\n')
        path.chmod(0o755)

    def has_real(self, *names: str) -> None:
        for name in names:
            found = shutil.which(name)
            assert found is not None
            (self.bin / name).symlink_to(found)

    def has_python(self, version: str, *, venv: bool = True, name: str = "python3") -> None:
        ensurepip = "exit 0" if venv else "exit 1"
        self.has(name, f'case "$*" in *version_info*) echo {version} ;; *ensurepip*) {ensurepip} ;; esac')

    def run(self, script: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", script, *arguments],
            cwd=self.home,
            env={"PATH": str(self.bin), "HOME": str(self.home), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def called(self) -> list[str]:
        """All but Python, whose every question is of no interest."""
        return [line.strip() for line in self.log.read_text().splitlines() if not line.startswith("python")]
