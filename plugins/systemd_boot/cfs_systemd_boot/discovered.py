"""Unified kernel images in /EFI/Linux, which systemd-boot shows without an entry file."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cfs_core.bls import EntryName, list_names, read_file
from cfs_core.plugin import BootEntry, EntryKind, Location, Volume
from cfs_systemd_boot.order import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.plugin import TargetView

_SECTION = struct.Struct("<8sIIII")
_SECTION_SIZE = 40
# What Windows' loader allows (Microsoft PE/COFF, NumberOfSections); UKIs have about ten.
_SECTIONS_LIMIT = 96
_DOS_HEADER = 64


def discovered(target: TargetView) -> Iterator[tuple[BootEntry, Shown]]:
    """Yield foreign entries (type 2) and how they sort. Their ``deployment_id`` is the file's name."""
    for volume in (Volume.ESP, Volume.XBOOTLDR):
        directory = Location(volume, "/EFI/Linux")
        for file_name in list_names(target, directory):
            if not file_name.lower().endswith(".efi"):
                continue
            data = read_file(target, directory / file_name)
            release = os_release(pe_section(data or b"", b".osrel") or b"")
            title = _pick(release, "PRETTY_NAME", "IMAGE_ID", "NAME", "ID")
            # systemd-boot shows no UKI that it cannot name.
            if data is None or title is None:
                continue
            # Boot counters are part of a UKI's name as of an entry's.
            name = EntryName.parse(file_name[:-4] + ".conf") or EntryName(stem=file_name[:-4])
            identity = f"{name.stem}.efi"
            version = _pick(release, "IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID") or ""
            entry = BootEntry(
                deployment_id=identity,
                kind=EntryKind.UKI,
                title=title,
                version=version,
                os_id=_pick(release, "ID") or "",
                tries_left=name.tries_left,
                foreign=True,
                files=(directory / file_name,),
                name=identity,
            )
            yield (
                entry,
                Shown(
                    key=identity,
                    id=identity.lower(),
                    sort_key=_pick(release, "IMAGE_ID", "ID"),
                    machine_id="",
                    version=version,
                    tries_left=name.tries_left,
                    tries_done=name.tries_done,
                ),
            )


def _pick(release: dict[str, str], *keys: str) -> str | None:
    return next((release[key] for key in keys if release.get(key)), None)


def os_release(data: bytes) -> dict[str, str]:
    """Parse an os-release file; simple quotes are taken off."""
    found = {}
    for line in data.rstrip(b"\0").decode("utf-8", "replace").splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
    return found


def pe_section(data: bytes, name: bytes) -> bytes | None:
    """Return a section of a PE file by name; None if there is none, or the file is damaged."""
    try:
        (offset,) = struct.unpack_from("<I", data, 0x3C)
        if data[:2] != b"MZ" or data[offset : offset + 4] != b"PE\0\0":
            return None
        count, optional = struct.unpack_from("<H12xH", data, offset + 6)
        table = offset + 24 + optional
        for number in range(min(count, _SECTIONS_LIMIT)):
            label, size, _, raw_size, start = _SECTION.unpack_from(data, table + number * _SECTION_SIZE)
            if label.rstrip(b"\0") == name:
                return data[start : start + min(size, raw_size)]
    except struct.error:
        return None
    return None
