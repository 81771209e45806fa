"""`make bench`. Asserts nothing about speed; exit status 1 only when something could not be measured at all."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.errors import RelayError
from local.deploy import ROOT
from tests.bench import copier, imports, operator, pipeline
from tests.bench.figures import BenchError, Figures

PARTS: Final[dict[str, Callable[[Figures, Path], None]]] = {
    "copier": copier.measure,
    "pipeline": pipeline.measure,
    "imports": imports.measure,
    "operator": operator.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed, as ratios within one run.")
    parser.add_argument("part", nargs="*", help=f"one of {', '.join(PARTS)}; default: all")
    parts = parser.parse_args().part or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"{unknown[0]!r} is no part; allowed: {', '.join(PARTS)}")

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a second must not leave half of it running
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    figures = Figures()
    began = time.monotonic()
    failed = False
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as folder:
        for part in parts:
            there = Path(folder, part)
            there.mkdir()
            try:
                PARTS[part](figures, there)
            except (BenchError, RelayError, BotoCoreError, ClientError, urllib3.exceptions.HTTPError) as error:
                print(f"bench: {part}: {error}", file=sys.stderr)
                failed = True
            except KeyboardInterrupt:
                print("bench: interrupted", file=sys.stderr)
                return 130
    print(figures.table())
    print(f"\n{os.cpu_count()} cores; took {time.monotonic() - began:.0f} s. A load near the number of cores before")
    print("a part began means that others slowed it: then only the ratios say something.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
