"""Run one command line, and leave when the parent does: for children that know no supervisor."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading


def main() -> None:
    """Run the command line after the first argument, a socket that the parent holds open."""
    from worchflow_core.cli import main as run

    link = socket.socket(fileno=int(sys.argv[1]))

    def watch() -> None:
        while link.recv(64):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="worchflow-parent", daemon=True).start()
    run(sys.argv[2:])


if __name__ == "__main__":
    main()
