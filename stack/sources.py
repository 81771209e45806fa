"""Which of our own modules an entry point needs: its imports, followed."""

import ast
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

OWN_PACKAGES = ("ecr_relay", "handlers")


def reachable(root: Path, entry_points: Iterable[str]) -> list[Path]:
    """The files of the modules that `entry_points` import, directly or not, themselves and their packages included.

    Paths are below `root` and sorted. An import within a function counts; one by computed name is not seen. Raises
    FileNotFoundError for an entry point that does not exist.
    """
    waiting = list(entry_points)
    for name in waiting:
        if _file(root, name) is None:
            raise FileNotFoundError(f"{root / Path(*name.split('.'))}.py: no such module")
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = _file(root, name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting.extend(_parents(name))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting.extend(_imports(path, package))
    return sorted(found.values())


def _file(root: Path, name: str) -> Path | None:
    """Where a module is; None for what is no module of ours, as `from module import name` makes us ask."""
    base = root.joinpath(*name.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(1, len(parts)):
        yield ".".join(parts[:length])


def _imports(path: Path, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in OWN_PACKAGES:
                yield name
