"""Keys of Secure Boot on the ESP, from where systemd-boot enrols them (systemd-boot(7), loader.conf(5))."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import ConfigError, CopyObject, FileContent, Location, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SETTING = "secure-boot-keys"
NEEDED = ("PK.auth", "KEK.auth", "db.auth")
PLACE = Location(Volume.ESP, "/loader/keys/auto")
"""Enrolled without a question in virtual machines; on others somebody chooses it in the menu (`if-safe`)."""


def keys_from(settings: Mapping[str, object]) -> tuple[FileContent, ...]:
    """Return the signed updates in the directory that settings name, PK, KEK and db; empty where they name none.

    Raises:
        ConfigError: one is not there.
    """
    given = settings.get(SETTING)
    if given is None:
        return ()
    if not isinstance(given, str):
        msg = f"bootloader.systemd-boot.{SETTING} is not the name of a directory"
        raise ConfigError(msg, hint="name a directory that `cfs secureboot keys` made")
    found = []
    for name in NEEDED:
        path = Path(given) / name
        if not path.is_file():
            msg = f"there is no {path} to enrol"
            raise ConfigError(msg, hint="name a directory that `cfs secureboot keys` made with --secure-boot-enroll")
        found.append(FileContent.of(path))
    return tuple(found)


def plan_keys(keys: Sequence[FileContent]) -> Iterator[CopyObject]:
    """Put *keys* where systemd-boot looks for them when firmware is in setup mode."""
    for key in keys:
        yield CopyObject(location=PLACE / key.path.name, source=key, why="key of Secure Boot to enrol")
