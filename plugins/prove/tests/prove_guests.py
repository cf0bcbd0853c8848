"""A program in QEMU's place that writes what a guest would, and runs with it."""

from __future__ import annotations

import json
import sys

from cfs_core.plugin import (
    Architecture,
    BootEntry,
    BootloaderProvider,
    BootMenu,
    DiskMenu,
    EntryKind,
    Firmware,
    LoaderConsole,
)
from cfs_prove.proof import ProofOptions, prove

ID = "5ab4" * 32
ROOT = f"29 1 0:27 / / ro - overlay composefs:{ID} ro,metacopy=on,verity=require"
GOOD = "cfs-prove state running\ncfs-prove kernel-log-read yes\ncfs-prove end\n"
REPORT = f"cfs-prove begin\ncfs-prove uptime 1\ncfs-prove kernel 6.12\ncfs-prove root {ROOT}\ncfs-prove firmware bios\n"
LOGIN = f"Linux version 6.12\r\ncfs-setup-root: root is composefs {ID}, verity required\r\n\r\nhost login: "

EMULATOR = """\
#!{python}
import base64, json, os, re, sys, time
if "--version" in sys.argv:
    print("QEMU emulator version {version} (Debian)")
    sys.exit()
where = {{}}
for word in sys.argv:
    if word.startswith("file,id="):
        fields = dict(item.split("=", 1) for item in word.split(",")[1:])
        where[fields["id"]] = fields["path"]
open({notes!r}, "a").write(json.dumps([os.getpid(), sys.argv]) + "\\n")
accelerator = sys.argv[sys.argv.index("-accel") + 1]
script = next(word for word in sys.argv if "cfs.prove.script=" in word).partition("cfs.prove.script=")[2]
secret = re.search(r"cfs-prove ([0-9a-f]{{32}}) ", base64.b64decode(script).decode())[1]
def write(name, text):
    with open(where[name], "a") as file:
        file.write(text)
def report(text):
    write("report", text.replace("cfs-prove ", "cfs-prove " + secret + " "))
{acts}
"""


class Emulator:
    """What stands in QEMU's place; called with what it is to do."""

    def __init__(self, folder, notes):
        self._folder, self._notes = folder, notes

    def __call__(self, acts, version="10.0.2"):
        path = self._folder / "qemu-system-x86_64"
        path.write_text(EMULATOR.format(python=sys.executable, version=version, notes=str(self._notes), acts=acts))
        path.chmod(0o755)

    def calls(self):
        """Return process id and arguments of each start."""
        return [json.loads(line) for line in self._notes.read_text().splitlines()]


def run(disk, **options):
    given = {
        "firmware": Firmware.BIOS,
        "accelerator": "tcg",
        "timeout_seconds": 20,
        "architecture": Architecture.AMD64,
        "reporter_seconds": 0.3,
        "quiet_seconds": 0.5,
    }
    return prove(disk, ProofOptions(**(given | options)))


LOADER = LoaderConsole(name="Loader", started=(r"^Loader \d",), failed=(r"^error: ",), harmless=(r"^args: ",))


def a_menu(name="loader", firmware=(Firmware.BIOS,), arguments=("root=a", "x=b"), **fields):
    provider = BootloaderProvider(
        name=name, summary="", factory=lambda _context: None, firmware=frozenset(firmware),
        entries=frozenset({EntryKind.BLS}), console=LOADER,
    )  # fmt: skip
    entries = [
        BootEntry(deployment_id=each, kind=EntryKind.BLS, title=each, version="1", os_id="x", arguments=words)
        for each, words in {"one": tuple(arguments), "two": ("other",)}.items()
    ]
    return DiskMenu(loader=provider, menu=BootMenu(entries=tuple(entries), **fields))
