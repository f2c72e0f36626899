"""The command line: `worchflow`, also `python -m worchflow_core.cli`.

One module per family of commands; what is heavy is imported inside the commands, so that help and
completion stay quick.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and leave the process with its exit code."""
    import sys

    from worchflow_core.cli.entry import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
