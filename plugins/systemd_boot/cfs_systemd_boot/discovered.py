"""Unified kernel images in /EFI/Linux, which systemd-boot shows without an entry file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls import EntryName, list_names, read_file
from cfs_core.plugin import BootEntry, CfsError, EntryKind, Location, Volume, find_pe, parse_os_release
from cfs_systemd_boot.order import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.plugin import TargetView


def discovered(target: TargetView) -> Iterator[tuple[BootEntry, Shown]]:
    """Yield foreign entries (type 2) and how they sort. Their ``deployment_id`` is the file's name."""
    for volume in (Volume.ESP, Volume.XBOOTLDR):
        directory = Location(volume, "/EFI/Linux")
        for file_name in list_names(target, directory):
            if not file_name.lower().endswith(".efi"):
                continue
            data = read_file(target, directory / file_name)
            release = _release(data)
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


def _release(data: bytes | None) -> dict[str, str]:
    """Return the os-release of a unified kernel image; empty where it has none, or is damaged."""
    program = find_pe(data)
    try:
        return dict(parse_os_release(program.text(".osrel"))) if program is not None else {}
    except CfsError:
        return {}


def _pick(release: dict[str, str], *keys: str) -> str | None:
    return next((release[key] for key in keys if release.get(key)), None)
