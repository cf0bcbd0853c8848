"""Trees of Debian 13, made by mmdebstrap from this machine's own mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SUITE = "trixie"


def make_tree(target: Path | str, packages: tuple[str, ...], *options: str, mode: str = "auto", seconds: float = 1200):
    """Make a tree with *packages*; *target* is a tar file, or ``-`` for none. Skip where there is no mirror."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed; scripts/host-setup does that")
    if mode == "auto":
        mode = "root" if os.geteuid() == 0 else "unshare"
    line = subprocess.run(
        [CHECKOUT / "scripts/host-setup", "apt-line", SUITE], capture_output=True, text=True, check=False
    )
    if line.returncode != 0:
        pytest.skip(f"no Debian mirror: {line.stderr.strip()}")
    proxies = subprocess.run(
        ["apt-config", "dump", "Acquire::http::Proxy"], capture_output=True, text=True, check=False
    )
    hand_on = [f"--aptopt={each}" for each in proxies.stdout.splitlines() if "DIRECT" not in each and '""' not in each]
    out = ["--format=null", SUITE, "/dev/null"] if target == "-" else ["--format=tar", SUITE, str(target)]
    done = subprocess.run(
        [
            "mmdebstrap", f"--mode={mode}", "--variant=minbase", '--aptopt=Acquire::Retries "5"', *hand_on,
            f"--include={','.join(packages)}", *options, *out, line.stdout.strip(),
        ],
        capture_output=True, text=True, check=False, timeout=seconds, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"no Debian tree can be made here: {done.stderr[-600:]}")


def copy_of_the_checkout(folder: Path) -> Path:
    """Copy what git knows, or would add, to *folder*."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, check=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = CHECKOUT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder
