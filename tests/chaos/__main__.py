"""`make chaos`: the relay on the local cloud while everything around it breaks.

Images are pushed and tags moved at the source while copiers and consumers are killed and a proxy before both
registries and the API answers 429 and 5xx, cuts connections and loses answers. Then nothing more goes wrong, and when
nothing is left to do, every tag at the destination must be what it is at the source: without a reconcile, and without
anybody having restarted anything. Exit status 0 only if that is so; the seed is printed, and repeats the choices.
"""

import argparse
import random
import shutil
import signal
import sys
import time

from local.deploy import ROOT, DeployError
from local.servers import LocalError
from tests.chaos import plan
from tests.chaos.load import LoadError
from tests.chaos.run import Chaos, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--moves", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=3.5, help="of pushes and faults; then it comes to rest")
    parser.add_argument("--broken", type=int, default=5, help="images of which a layer is deleted at the source")
    parser.add_argument("--visibility", type=int, default=90, help="of the copy queue, in s; 360 in the template")
    parser.add_argument("--harshness", type=float, default=1.0, help="multiplies what goes wrong between the storms")
    parser.add_argument("--verbose", action="store_true", help="say each push and move")
    parser.add_argument("--keep", action="store_true", help="keep logs and images of a good run, too")
    options = parser.parse_args()
    try:
        planned = plan.make(options.seed, options.images, options.moves, options.minutes * 60, options.broken)
    except ValueError as error:
        parser.error(str(error))
    folder = ROOT / "build" / "chaos" / f"{options.seed}-{time.strftime('%H%M%S')}"
    folder.mkdir(parents=True)
    print(
        f"seed {options.seed}: {len(planned.images)} images, {planned.moves} moves, {len(planned.kills)} kills planned",
        flush=True,
    )

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a second one must not leave half of it running
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    again = f"python -m tests.chaos --seed {options.seed} --images {options.images} --moves {options.moves}"
    again += f" --minutes {options.minutes:g} --broken {options.broken} --visibility {options.visibility}"
    again += f" --harshness {options.harshness:g}"
    good = False
    try:
        result = Chaos(planned, folder, options.visibility, options.harshness, options.verbose).run()
        print("\n" + table(result), flush=True)
        for line in result.wrong:
            print(f"WRONG  {line}", file=sys.stderr)
        good = not result.wrong
        print(f"\nseed {options.seed}: {'all that must hold holds' if good else 'something does not hold'}", flush=True)
    except (LocalError, DeployError, LoadError, RuntimeError) as error:
        print(f"chaos: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder / "images", ignore_errors=True)
        if good and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs are in {folder.relative_to(ROOT)}; again: {again}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
