"""Telling what a directory is: a repository, the place for a new one, or somebody else's (formats D.3)."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from cfs_core.plugin import FormatOptions, FormatVersion, HashAlgorithm, StorageError
from cfs_storage_composefs.errors import DamagedError
from cfs_storage_composefs.fsverity import VerityUnsupportedError, enable, measure
from cfs_storage_composefs.linux import entries, open_below
from cfs_storage_composefs.objects.stored import open_object
from cfs_storage_composefs.repository import metadata
from cfs_storage_composefs.repository.metadata import Metadata

if TYPE_CHECKING:
    from pathlib import Path

CATEGORIES = ("images", "streams")
META_PREFIX = ".meta-"
"""Temporary names of meta.json."""


def identify(fd: int, path: Path, *, create: bool, options: FormatOptions) -> tuple[Metadata, bool]:
    """Return what meta.json (or what is there in its place) says, and whether objects must be sealed."""
    where = str(path / metadata.NAME)
    read = _read_metadata(fd, where)
    if read is None:
        sample = _any_object(fd)
        if sample is not None:
            read = _infer(fd, sample)
        elif not create:
            msg = f"{path} is not a composefs repository: it has neither meta.json nor objects"
            raise StorageError(msg, hint=f"make one with: cfs repo init --repo {path}")
        else:
            _refuse_foreign(fd, path)
            _write_metadata(fd, _new_metadata(options))
            read = _read_metadata(fd, where)
        if read is None:
            msg = f"{where} was there a moment ago, and is gone"
            raise StorageError(msg, hint=f"let nobody else write to {path}, and try again")
    _compare(read[0], options, path)
    return read


def _new_metadata(options: FormatOptions) -> Metadata:
    return Metadata(algorithm=options.algorithm or HashAlgorithm.SHA512, version=options.version or FormatVersion.V1)


def _compare(found: Metadata, options: FormatOptions, path: Path) -> None:
    for title, wanted, there in (
        ("hash", options.algorithm, found.algorithm),
        ("format", options.version, found.version),
    ):
        if wanted is not None and wanted is not there:
            msg = f"the repository at {path} uses {title} {there.value}, not {wanted.value}"
            raise StorageError(msg, hint="a repository cannot change it; use another one (--repo)")


def _read_metadata(fd: int, where: str) -> tuple[Metadata, bool] | None:
    try:
        file = os.open(metadata.NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        data = opened.read(metadata.LIMIT + 1)
        if len(data) > metadata.LIMIT:
            msg = f"{where} is longer than {metadata.LIMIT} bytes"
            raise DamagedError(msg, hint="this is not a composefs repository")
        return Metadata.parse(data, where), measure(opened.fileno()) is not None


def _write_metadata(fd: int, facts: Metadata) -> None:
    """Write meta.json under a temporary name, seal it if the filesystem can, and link it. Never replaces one."""
    name = META_PREFIX + secrets.token_hex(6)
    writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=fd)
    try:
        with os.fdopen(writer, "wb") as file:
            file.write(facts.to_bytes())
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        reader = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
        try:
            with contextlib.suppress(VerityUnsupportedError):
                enable(reader, facts.algorithm)
        finally:
            os.close(reader)
        with contextlib.suppress(FileExistsError):
            os.link(name, metadata.NAME, src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        os.unlink(name, dir_fd=fd)
    os.fsync(fd)


def _refuse_foreign(fd: int, path: Path) -> None:
    """Accept an empty directory, or what an interrupted creation leaves."""
    ours = {"objects", *CATEGORIES, "bootc", "lost+found"}
    foreign = [name for name in entries(fd) if name not in ours and not name.startswith(META_PREFIX)]
    if foreign:
        msg = f"{path} is not a composefs repository, and not empty: it has {min(foreign)!r}"
        raise StorageError(msg, hint="choose an empty or a new directory")


def _any_object(fd: int) -> tuple[str, HashAlgorithm] | None:
    """Return the path of some object and the algorithm that its name's length tells."""
    lengths = {2 * algorithm.size - 2: algorithm for algorithm in HashAlgorithm}
    for number in range(256):
        shard = f"{number:02x}"
        with contextlib.suppress(FileNotFoundError), open_below(fd, ["objects", shard]) as directory:
            for name in entries(directory):
                if len(name) in lengths:
                    return f"{shard}/{name}", lengths[len(name)]
    return None


def _infer(fd: int, sample: tuple[str, HashAlgorithm]) -> tuple[Metadata, bool]:
    """Tell the facts of a repository without meta.json, as composefs-rs before 0.5 made them."""
    with open_below(fd, ["objects"]) as objects:
        file = open_object(objects, sample[0])
    try:
        return Metadata(algorithm=sample[1], version=FormatVersion.V2), measure(file) is not None
    finally:
        os.close(file)
