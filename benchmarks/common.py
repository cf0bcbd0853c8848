"""Running programs for benchmarks: wall time, CPU time and peak memory, the best of several interleaved runs.

Linux counts the memory of the process that starts a program as its own until then: keep the benchmark itself small.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a program took. Times in seconds, memory in MiB."""

    wall: float
    user: float
    system: float
    peak: float
    output: bytes = b""

    @property
    def cpu(self) -> float:
        """User and system time together."""
        return self.user + self.system


def run(argv: Sequence[str | os.PathLike[str]]) -> Cost:
    """Run a program to its end and measure it.

    Raises:
        SystemExit: it failed.
    """
    begun = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        output = process.stdout.read() if process.stdout is not None else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{argv[0]} failed with exit status {process.returncode}")
    return Cost(time.perf_counter() - begun, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024, output)


def run_interleaved(programs: Mapping[str, Sequence[str | os.PathLike[str]]], runs: int = 3) -> dict[str, Cost]:
    """Run each program *runs* times, in turn, and keep the run of each that took the least CPU time."""
    best: dict[str, Cost] = {}
    for _ in range(runs):
        for name, argv in programs.items():
            cost = run(argv)
            if name not in best or cost.cpu < best[name].cpu:
                best[name] = cost
    return best


def python(code: str, *arguments: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """Return the command that runs *code* with this Python, in a process of its own: so is its peak memory."""
    return [sys.executable, "-c", code, *arguments]


def judge(name: str) -> str | None:
    """Return the path of a program to compare with, from the directory CFS_JUDGES or PATH; None if it is missing."""
    places = [os.environ.get("CFS_JUDGES", ""), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(place for place in places if place))


def report(costs: Mapping[str, Cost], reference: str | None = None, target: float | None = None) -> None:
    """Print a table, with ratios of CPU time to *reference*, the last column, where it was measured."""
    base = costs.get(reference) if reference else None
    print(f"{'':<34}{'wall s':>9}{'user s':>9}{'sys s':>9}{'CPU s':>9}{'peak MiB':>10}{'ratio':>8}")
    for name, cost in costs.items():
        ratio = f"{cost.cpu / base.cpu:8.2f}" if base else ""
        print(f"{name:<34}{cost.wall:9.2f}{cost.user:9.2f}{cost.system:9.2f}{cost.cpu:9.2f}{cost.peak:10.0f}{ratio}")
    if base is None:
        print(f"{reference or 'nothing'} to compare with is not installed (CFS_JUDGES, PATH)")
    elif target is not None:
        print(f"target: ratio of CPU time to {reference} at most {target}")
