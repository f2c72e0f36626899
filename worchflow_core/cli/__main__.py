"""`python -m worchflow_core.cli`: the same as `worchflow`."""

from __future__ import annotations

from worchflow_core.cli import main

if __name__ == "__main__":
    main()
