"""Building UKIs and addons with ukify (systemd)."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cfs_core.bls import join_arguments
from cfs_core.plugin import CommandError, ImageError, read_all
from cfs_seal.signing import load_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cfs_core.plugin import Architecture, CommandRunner, Content, TreeReader

UKIFY, MEASURE = "ukify", "systemd-measure"
_PLACES = (UKIFY, "/usr/lib/systemd/ukify")
OLDEST = 254
"""The first ukify with the verb `build` and with --uname that is not guessed."""

PROFILES = 257
"""The first ukify that makes profiles, and the first stub that tells one from another."""

_MEASURES_ALL = 254
"""The first systemd-measure that knows each section of a UKI that ukify makes."""

_STUB_VERSION = re.compile(rb"#### LoaderInfo: systemd-stub (\d{3})")

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
    pcr_key: Path | None = None
    """Signs what a TPM will have measured, phase by phase (``.pcrsig``, systemd-measure(1))."""

    addon_stub: Content | None = None
    """What files of profiles are built on until they are joined."""

    profiles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """More command lines in the same file, by the names of the profiles (UAPI.5, multi-profile UKIs)."""


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
        self._program, self._version = self._find()

    def uki(self, parts: UkiParts, out: Path) -> None:
        """Build a UKI.

        Raises:
            CommandError: ukify refuses, or it or the stub is too old for what is asked for.
        """
        options: dict[str, object] = {
            "linux": self._file("linux", parts.linux),
            "initrd": self._file("initrd", parts.initrd),
            "uname": parts.uname,
            **self._common(parts.arguments, parts.stub),
        }
        if parts.os_release is not None:
            options["os-release"] = f"@{self._file('os-release', parts.os_release)}"
        if parts.sbat is not None:
            options["sbat"] = self._text("sbat", parts.sbat)
        if parts.pcr_key is not None:
            self._check_measure()
            options["pcr-private-key"] = parts.pcr_key
            # Left to itself, ukify asks systemd-keyutil, which few have.
            options["pcr-public-key"] = self._public_key(parts.pcr_key)
        self._run(options, out, *(f"--join-profile={path}" for path in self._profiles(parts)))

    def _profiles(self, parts: UkiParts) -> Iterator[Path]:
        """Build the profiles. ukify puts that of the UKI's own command line first: it is started where none is chosen.

        Raises:
            CommandError: ukify or the stub is too old.
        """
        if not parts.profiles:
            return
        found = _STUB_VERSION.search(read_all(parts.stub))
        stub = int(found[1]) if found else 0
        if min(self._version, stub) < PROFILES:
            msg = f"profiles need ukify and stub of systemd {PROFILES}; here is ukify {self._version} and a stub {stub}"
            hint = "use addons (--addon), or install a newer systemd here (ukify) or in the image (the stub)"
            raise CommandError(msg, hint=hint, facts={"command": UKIFY})
        # Nothing starts a profile by itself: it must have no sections besides its own.
        addon_stub = self._file("addon-stub", parts.addon_stub if parts.addon_stub is not None else parts.stub)
        for name, arguments in parts.profiles.items():
            path = self._work / f"profile-{name}.efi"
            options: dict[str, object] = {
                "profile": self._text(f"profile-{name}", f"ID={name}\n"),
                "stub": addon_stub,
                "cmdline": self._text(f"cmdline-{name}", join_arguments(arguments)),
                "efi-arch": self._architecture.efi,
            }
            self._run(options, path)
            yield path

    def _public_key(self, key: Path) -> Path:
        """Write the public half of a key file.

        Raises:
            ConfigError: it is no RSA key.
        """
        path = self._work / "pcr-public-key"
        public = load_key(key).public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return path

    def _check_measure(self) -> None:
        """Refuse a systemd-measure that lacks sections: ukify would end with a message of its options.

        Raises:
            CommandError: it is not installed, or too old.
        """
        place = next((each for each in (MEASURE, f"/usr/lib/systemd/{MEASURE}") if self._commands.find(each)), None)
        hint = "install systemd of the version of ukify (Debian: systemd), or leave out --pcr-key"
        if place is None:
            msg = f"{MEASURE} is not installed, with which ukify calculates what is signed"
            raise CommandError(msg, hint=hint, facts={"command": MEASURE})
        version = _version_of(self._commands, place)
        if version < _MEASURES_ALL:
            msg = f"this {MEASURE} is of systemd {version}, and the first that knows all of a UKI is {_MEASURES_ALL}"
            raise CommandError(msg, hint=hint, facts={"command": MEASURE})

    def addon(self, arguments: Sequence[str], stub: Content, out: Path) -> None:
        """Build an addon that only adds *arguments*.

        Raises:
            CommandError: ukify refuses.
        """
        self._run(self._common(arguments, stub), out)

    def _find(self) -> tuple[str, int]:
        program = next((place for place in _PLACES if self._commands.find(place)), None)
        hint = "install systemd-ukify (Debian 13, Fedora), or put a ukify of systemd 254 or later into PATH"
        if program is None:
            msg = "ukify is not installed, which builds UKIs"
            raise CommandError(msg, hint=hint, facts={"command": UKIFY})
        version = _version_of(self._commands, program)
        if version < OLDEST:
            msg = f"this ukify is of systemd {version}, and the first that can do it is {OLDEST}"
            raise CommandError(msg, hint=hint, facts={"command": UKIFY})
        return program, version

    def _common(self, arguments: Sequence[str], stub: Content) -> dict[str, str]:
        return {
            "cmdline": self._text("cmdline", join_arguments(arguments)),
            "stub": str(self._file("stub", stub)),
            "efi-arch": self._architecture.efi,
        }

    def _run(self, options: Mapping[str, object], out: Path, *more: str) -> None:
        words = [f"--{name}={value}" for name, value in options.items()]
        self._commands.run([self._program, "build", *words, *more, f"--output={out}"])

    def _text(self, name: str, text: str) -> str:
        path = self._work / name
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return f"@{path}"

    def _file(self, name: str, content: Content) -> Path:
        path = self._work / name
        with content.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return path


def _version_of(commands: CommandRunner, program: str) -> int:
    """Return the version of systemd that a program is of; 0 where it does not say."""
    said = commands.run([program, "--version"]).stdout.decode("utf-8", "replace")
    found = re.search(r"\b(\d{3})\b", said)
    return int(found[1]) if found else 0
