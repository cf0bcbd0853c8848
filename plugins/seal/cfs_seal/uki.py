"""Building UKIs and addons with ukify (systemd)."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import join_arguments
from cfs_core.plugin import CommandError, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cfs_core.plugin import Architecture, CommandRunner, Content, TreeReader

UKIFY = "ukify"
_PLACES = (UKIFY, "/usr/lib/systemd/ukify")
OLDEST = 254
"""The first ukify with the verb `build` and with --uname that is not guessed."""

STUBS = "/usr/lib/systemd/boot/efi"
_NO_STUB = "install systemd-boot's EFI files in the image (Debian: systemd-boot-efi, Fedora: systemd-boot-unsigned)"


@dataclass(frozen=True, slots=True, kw_only=True)
class UkiParts:
    """What goes into a UKI. ``sbat`` is text of its own besides ukify's."""

    linux: Content
    initrd: Content
    uname: str
    arguments: tuple[str, ...]
    os_release: Content | None
    stub: Content
    sbat: str | None = None


def stub_of(image: TreeReader, architecture: Architecture, *, addon: bool = False) -> Content:
    """Return the image's own stub for UKIs, or for addons.

    Raises:
        ImageError: it has none (code ``seal.no-stub``).
    """
    kind = "addon" if addon else "linux"
    path = f"{STUBS}/{kind}{architecture.efi}.efi.stub"
    found = image.content(path)
    if found is None:
        msg = f"the image has no {path}, which is what a UKI starts with"
        raise ImageError(msg, hint=f"{_NO_STUB}, or name a file with --stub", code="seal.no-stub")
    return found


class Ukify:
    """The program, found once."""

    def __init__(self, commands: CommandRunner, work: Path, architecture: Architecture) -> None:
        self._commands = commands
        self._work = work
        self._architecture = architecture
        self._program = self._find()

    def uki(self, parts: UkiParts, out: Path) -> None:
        """Build a UKI.

        Raises:
            CommandError: ukify refuses.
        """
        options = {
            "linux": self._file("linux", parts.linux),
            "initrd": self._file("initrd", parts.initrd),
            "uname": parts.uname,
            **self._common(parts.arguments, parts.stub),
        }
        if parts.os_release is not None:
            options["os-release"] = f"@{self._file('os-release', parts.os_release)}"
        if parts.sbat is not None:
            options["sbat"] = self._text("sbat", parts.sbat)
        self._run(options, out)

    def addon(self, arguments: Sequence[str], stub: Content, out: Path) -> None:
        """Build an addon that only adds *arguments*.

        Raises:
            CommandError: ukify refuses.
        """
        self._run(self._common(arguments, stub), out)

    def _find(self) -> str:
        program = next((place for place in _PLACES if self._commands.find(place)), None)
        hint = "install systemd-ukify (Debian 13, Fedora), or put a ukify of systemd 254 or later into PATH"
        if program is None:
            msg = "ukify is not installed, which builds UKIs"
            raise CommandError(msg, hint=hint, facts={"command": UKIFY})
        said = self._commands.run([program, "--version"]).stdout.decode("utf-8", "replace")
        version = re.search(r"\b(\d{3})\b", said)
        if version is None or int(version[1]) < OLDEST:
            msg = f"this ukify is of {said.strip()[:60]!r}, and the first that can do it is {OLDEST}"
            raise CommandError(msg, hint=hint, facts={"command": UKIFY})
        return program

    def _common(self, arguments: Sequence[str], stub: Content) -> dict[str, str]:
        return {
            "cmdline": self._text("cmdline", join_arguments(arguments)),
            "stub": str(self._file("stub", stub)),
            "efi-arch": self._architecture.efi,
        }

    def _run(self, options: Mapping[str, object], out: Path) -> None:
        words = [f"--{name}={value}" for name, value in options.items()]
        self._commands.run([self._program, "build", *words, f"--output={out}"])

    def _text(self, name: str, text: str) -> str:
        path = self._work / name
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return f"@{path}"

    def _file(self, name: str, content: Content) -> Path:
        path = self._work / name
        with content.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return path
