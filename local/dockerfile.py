"""What an image runs, read from its Dockerfile, so that the local task runs what the image would."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ImageConfig:
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]


def read(path: Path) -> ImageConfig:
    """ENTRYPOINT, CMD and ENV of the last stage. Raises ValueError for a shell form and for no ENTRYPOINT at all."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        keyword, _, rest = line.strip().partition(" ")
        match keyword.upper():
            case "FROM":
                entrypoint, command, environment = (), (), {}
            case "ENTRYPOINT":
                entrypoint, command = _exec_form(path, rest), ()
            case "CMD":
                command = _exec_form(path, rest)
            case "ENV":
                environment.update(_env(rest))
    if not entrypoint:
        raise ValueError(f"{path}: the last stage has no ENTRYPOINT")
    return ImageConfig(entrypoint, command, environment)


def _exec_form(path: Path, text: str) -> tuple[str, ...]:
    try:
        words = json.loads(text)
    except ValueError:
        raise ValueError(f"{path}: {text.strip()!r} is no JSON array; only the exec form is run here") from None
    return tuple(str(word) for word in words)


def _env(text: str) -> dict[str, str]:
    words = shlex.split(text)
    if words and "=" not in words[0]:  # the old form, ENV NAME value
        return {words[0]: " ".join(words[1:])}
    return dict(word.split("=", 1) for word in words if "=" in word)
