"""Which modules an entry point needs."""

from pathlib import Path

import pytest

from stack.sources import reachable


def write(root: Path, **modules: str) -> None:
    for name, text in modules.items():
        path = root / Path(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def names(root: Path, *entry_points: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in reachable(root, entry_points)]


def package(root: Path, name: str, text: str = "") -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "__init__.py").write_text(text, encoding="utf-8")


def test_follows_every_form_of_import_and_leaves_the_rest(tmp_path: Path) -> None:
    package(tmp_path, "ecr_relay")
    package(tmp_path, "ecr_relay/parts", "from .first import thing\n")
    write(
        tmp_path,
        handlers__one="import os, json\nimport ecr_relay.a\nfrom ecr_relay import b\nfrom ecr_relay.parts import x\n",
        ecr_relay__a="def f():\n    from ecr_relay.lazy import thing\n",
        ecr_relay__b="from ecr_relay.b2 import CONSTANT\nimport boto3\n",
        ecr_relay__b2="from ecr_relay.a import f\nCONSTANT = 1\n",
        ecr_relay__lazy="thing = 1\n",
        ecr_relay__parts__first="from ..deep import value\nthing = 1\n",
        ecr_relay__parts__second="",
        ecr_relay__deep="value = 1\n",
        ecr_relay__unused="",
        stack__mine="",
    )
    assert names(tmp_path, "handlers.one") == [
        "ecr_relay/__init__.py",
        "ecr_relay/a.py",
        "ecr_relay/b.py",
        "ecr_relay/b2.py",
        "ecr_relay/deep.py",
        "ecr_relay/lazy.py",
        "ecr_relay/parts/__init__.py",
        "ecr_relay/parts/first.py",
        "handlers/one.py",
    ]


def test_an_entry_point_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"handlers/gone\.py: no such module"):
        reachable(tmp_path, ["handlers.gone"])
