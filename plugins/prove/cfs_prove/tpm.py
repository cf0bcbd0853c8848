"""A TPM for the virtual machine: swtpm, which emulates one, with nothing in it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from cfs_core.plugin import CommandError, host_commands
from cfs_prove.machine import DIES_WITH_US, THIS_PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SWTPM = "swtpm"
READY_SECONDS = 10.0
SOCKET_LIMIT = 107
"""Bytes of a socket's name (unix(7))."""


def installed() -> bool:
    """Say whether there is a program that emulates a TPM."""
    return host_commands().find(SWTPM) is not None


@contextlib.contextmanager
def emulated(folder: Path) -> Iterator[Path]:
    """Run a TPM with its files in *folder*; yield the socket by which QEMU controls it. It ends with this process.

    Raises:
        CommandError: it is not installed, or does not start.
    """
    program = host_commands().find(SWTPM)
    if program is None:
        msg = f"{SWTPM} is not installed, which emulates a TPM"
        raise CommandError(msg, hint="install swtpm, or leave out --tpm yes", facts={"command": SWTPM})
    state, address = folder / "tpm", folder / "tpm.socket"
    if len(os.fsencode(address)) > SOCKET_LIMIT:
        msg = f"the name {address} is too long for a socket"
        raise CommandError(msg, hint="set TMPDIR to a directory with a shorter name", facts={"command": SWTPM})
    state.mkdir()
    words = [
        sys.executable, "-I", "-S", "-c", DIES_WITH_US, str(os.getpid()), os.fspath(program),
        "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={address}", "--terminate",
    ]  # fmt: skip
    with (folder / "tpm.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - found by name in PATH, arguments made here
            words, executable=THIS_PROGRAM, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(process, address, folder / "tpm.log")
        yield address
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], address: Path, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while not address.exists():
        if process.poll() is not None or time.monotonic() > end:
            said = log.read_text(errors="replace").strip()[-200:]
            msg = f"{SWTPM} does not start: {said or 'it says nothing'}"
            raise CommandError(msg, hint="leave it out with --tpm no", facts={"command": SWTPM})
        time.sleep(0.02)
