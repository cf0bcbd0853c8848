"""The origin file of a deployment: an ini file as bootc writes it, with a section of ours, ``[cfs]`` (formats F.1)."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from typing import Self

from cfs_core.model.boot import EntryKind
from cfs_core.model.disk import Location, Volume

ORIGIN_LIMIT = 1 << 20
"""Bytes; a line for each boot file makes a few KiB."""

UNVERIFIED = "ostree-unverified-image:"
"""bootc writes this in front of every reference: what verifies an image is the host's policy, not the origin file."""

BootFile = tuple[Location, str]
"""A file outside of the repository, and its SHA-256 in hex."""

_FACTS = ("bootloader", "version", "created", "architecture")
_FILE = re.compile(r"([0-9a-f]{64}) ([A-Z_]+):(/.+)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginFile:
    """Where a deployment came from; what a file does not say is None or empty."""

    image: str | None = None
    """The reference that updates come from."""

    boot_type: EntryKind | None = None
    boot_digest: str | None = None
    manifest_digest: str | None = None
    verified: tuple[str, ...] = ()
    """What policies verified when it was installed."""

    bootloader: str | None = None
    """Name of the bootloader that it was installed with."""

    bootloader_distribution: str | None = None
    """Distribution of the plugin that has that bootloader."""

    files: tuple[BootFile, ...] = ()
    """Loader, menu and kernel files that were installed with it."""

    version: str | None = None
    """The image's label ``org.opencontainers.image.version``."""

    created: str | None = None
    """When the image was made, as its configuration says (RFC 3339)."""

    architecture: str | None = None
    """The image's, in OCI's names."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an origin file; a line of ours that is malformed is passed over.

        Raises:
            ValueError: it is no ini file.
        """
        parser = configparser.RawConfigParser(strict=False, interpolation=None)
        try:
            parser.read_string(text)
        except configparser.Error as cause:
            msg = "is not an origin file"
            raise ValueError(msg) from cause
        image = parser.get("origin", "container-image-reference", fallback=None)
        kind = parser.get("boot", "boot_type", fallback=None)
        ours = dict(parser.items("cfs")) if parser.has_section("cfs") else {}
        found = [_FILE.match(value) for name, value in ours.items() if name.startswith("file.")]
        return cls(
            image=image.removeprefix(UNVERIFIED) if image else None,
            boot_type=EntryKind(kind) if kind in set(EntryKind) else None,
            boot_digest=parser.get("boot", "digest", fallback=None),
            manifest_digest=parser.get("image", "manifest_digest", fallback=None),
            verified=tuple(filter(None, ours.get("verified", "").split("; "))),
            bootloader=ours.get("bootloader") or None,
            bootloader_distribution=ours.get("bootloader-distribution") or None,
            files=tuple(
                (Location(Volume[match[2]], match[3]), match[1])
                for match in found
                if match and match[2] in Volume.__members__
            ),
            version=ours.get("version") or None,
            created=ours.get("created") or None,
            architecture=ours.get("architecture") or None,
        )

    def format(self) -> str:
        """Return the text of the file."""
        lines = [
            "[origin]",
            f"container-image-reference = {UNVERIFIED}{self.image}",
            "[boot]",
            f"boot_type = {self.boot_type.value if self.boot_type else ''}",
            f"digest = {self.boot_digest}",
            "[image]",
            f"manifest_digest = {self.manifest_digest}",
        ]
        # What a policy verified may quote what somebody else signed.
        verified = _line("; ".join(self.verified))
        ours = [f"verified = {verified}"] if verified else []
        ours += [f"{name} = {_line(value)}" for name in _FACTS if (value := getattr(self, name))]
        ours += [f"bootloader-distribution = {self.bootloader_distribution}"] if self.bootloader_distribution else []
        ours += [f"file.{number} = {hexes} {location}" for number, (location, hexes) in enumerate(self.files)]
        lines += ["[cfs]", *ours] if ours else []
        return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def unread_message(name: str, distribution: str | None) -> str:
    """Return what to say of a disk whose loader, as its origin file has it, no installed plugin reads."""
    whose = f" of {distribution}" if distribution else ""
    return f"was installed with the bootloader {name!r}{whose}, which no installed plugin reads"
