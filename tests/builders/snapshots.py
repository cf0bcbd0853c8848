"""A guest whose running states are kept, to go on from any of them in seconds, and whose plug may be pulled."""

from __future__ import annotations

import json
import socket
import subprocess
import time

from builders.guests import Guest

SECONDS = 600
"""For keeping a state: some 500 MB of memory are written."""


class BranchingGuest(Guest):
    """A guest on an overlay of *disk*, which stays as it is.

    Its virtual disk loses nothing that the guest was told is written, and nothing in between: a power cut, with a disk
    that has no cache of its own.
    """

    def __init__(self, disk, folder, **options):
        super().__init__(disk, folder, **options)
        self.overlay = folder / "overlay.qcow2"
        self._from = None
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", self.overlay], check=True
        )  # fmt: skip
        if self.firmware == "uefi":
            raw = folder / "variables.fd"
            self._variables = folder / "variables.qcow2"
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self._variables], check=True)

    def _command(self, address):
        words = super()._command(address)
        for number, word in enumerate(words):
            if word.startswith(f"file={self.disk},"):
                words[number] = f"file={self.overlay},format=qcow2,if=none,id=disk,cache=writethrough"
            if word.endswith("variables.fd"):
                words[number] = f"if=pflash,format=qcow2,unit=1,file={self._variables}"
        monitor = self.folder / "monitor"
        monitor.unlink(missing_ok=True)
        words += ["-qmp", f"unix:{monitor},server=on,wait=off"]
        return words if self._from is None else [*words, "-loadvm", self._from]

    def keep(self, name):
        """Keep what runs, under a name; it goes on."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(self.folder / "monitor"))
            with connection.makefile("rw") as stream:
                words = ("qmp_capabilities", {}), ("human-monitor-command", {"command-line": f"savevm {name}"})
                for command, arguments in words:
                    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                    stream.flush()
                    # Besides answers there are a greeting and events.
                    answer = next(found for line in stream if {"return", "error"} & (found := json.loads(line)).keys())
                    assert answer.get("return") in ({}, ""), answer

    def resume(self, name):
        """Go on from what was kept; disk and firmware variables are as they were then."""
        self.stop()
        self._from = name
        try:
            self.launch()
        finally:
            self._from = None

    def send(self, command):
        """Have the shell run a command; nobody waits for it."""
        self._socket.sendall(command.encode() + b"\n")

    def flattened(self, out):
        """Write the disk as it is now, as a raw image; the guest must be stopped."""
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.overlay, out], check=True)
        return out


def seconds_of(work):
    """Return how long *work* takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start
