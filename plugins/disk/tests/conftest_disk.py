"""What the disk plugin's tests share: a context with real commands, terse trees, patterns."""

from __future__ import annotations

import os
from pathlib import Path

from cfs_core.plugin import (
    Attributes,
    BytesContent,
    CopyObject,
    HashAlgorithm,
    Location,
    MakeDirectory,
    MakeHardLink,
    Partition,
    PlacingAction,
    PluginContext,
    Region,
    Volume,
)
from cfs_core.system.command import HostCommands

EPOCH = 1_700_000_000


class Quiet:
    def debug(self, *_args: object, **_facts: object) -> None: ...

    info = warning = error = start = advance = finish = debug


def quiet_context(base: Path) -> PluginContext:
    scratch = base / "scratch"
    scratch.mkdir()
    return PluginContext(
        provider="test",
        commands=HostCommands(os.environ),
        progress=Quiet(),
        log=Quiet(),
        scratch=scratch,
        source_date_epoch=EPOCH,
        seed="seed",
    )


def partition_of(region: Region, volume: Volume = Volume.ROOT) -> Partition:
    return Partition(
        number=1,
        volume=volume,
        start=region.offset,
        size=region.size,
        type_guid="",
        uuid="",
        name="EFI-SYSTEM" if volume is Volume.ESP else "root",
        label="EFI-SYSTEM" if volume is Volume.ESP else "root",
        fs_uuid="ABCD-0123" if volume is Volume.ESP else "11111111-2222-3333-4444-555555555555",
    )


def pattern(size: int, shift: int = 0) -> bytes:
    return (bytes((index + shift) % 251 for index in range(251)) * (size // 251 + 1))[:size]


class Tree:
    """Builds contents of a volume, tersely."""

    def __init__(self, volume: Volume = Volume.ROOT) -> None:
        self.volume = volume
        self.contents: dict[str, PlacingAction] = {}

    def add(self, kind: type, path: str, /, **facts: object) -> None:
        self.contents[path] = kind(why="test", location=Location(self.volume, path), **facts)

    def directory(self, path: str, **attributes: object) -> None:
        self.add(MakeDirectory, path, attributes=Attributes(**{"mode": 0o755, **attributes}))

    def file(self, path: str, data: bytes, verity: HashAlgorithm | None = None, **attributes: object) -> None:
        self.add(CopyObject, path, source=BytesContent(data), verity=verity, attributes=Attributes(**attributes))

    def link(self, path: str, existing: str) -> None:
        self.add(MakeHardLink, path, existing=Location(self.volume, existing))
