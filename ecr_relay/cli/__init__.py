"""The operator's terminal: `ecr-relay`. It needs the `cli` extra.

    app.py       the command tree, and how every run of it ends
    options.py   what every command takes; finding the deployment
    screen.py    tables, colours, JSON
    commands/    flags -> one call in `ecr_relay.operate` -> print
    reference.py writes docs/commands.md from all that

Nothing here imports boto3 until a command runs: `--help` and completion are quick.
"""

import signal
import sys


def main() -> None:
    """Exit status: 0 fine, 1 failed, 2 wrong usage or unusable input, 130 interrupted, 141 the reader has gone."""
    try:
        from ecr_relay.cli.app import run
    except ImportError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"ecr-relay: {error.name} is missing; the command line needs `pip install 'ecr-relay[cli]'`")
    except KeyboardInterrupt:
        sys.exit(130)
    status = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C while the interpreter ends would be a traceback
    sys.exit(status)
