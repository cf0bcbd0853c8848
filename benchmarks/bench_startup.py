"""How quickly `cfs` answers: --version and plugins list, against a Python that does nothing. Aim: 150 ms each."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import python, report, run_interleaved


def main() -> None:
    """Run the benchmark."""
    cfs = str(Path(sys.executable).with_name("cfs"))
    costs = run_interleaved(
        {"cfs --version": [cfs, "--version"], "cfs plugins list": [cfs, "plugins", "list"], "python -c ''": python("")},
        runs=9,
    )
    report(costs, "python -c ''")


if __name__ == "__main__":
    main()
