"""The commands of e2fsprogs, run on a region of a file."""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import CommandError, CommandRunner, DiskError, DiskFullError, Finding
from cfs_disk.ext4.metadata_copy import copy_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cfs_core.plugin import Region

TAR_VERSION = (1, 47, 1)
"""First mke2fs that fills a filesystem from a tar stream."""

_OLDEST = (1, 47, 0)
_BATCH = 20_000
_FULL = re.compile(r"no space|could not allocate|no free space|inode allocation", re.IGNORECASE)

_NO_COMPLAINT = (b"debugfs: ", b"debugfs 1.", b"Allocated inode: ", b"Checksum set to ")
"""The echo of each command, the banner, and what mknod and set_bg say when they work."""

# floppy, small, big and huge are what mke2fs adds to ext4 by size. They change nothing here, but without them it warns
# that they are not defined, and what it says on standard error counts as a failure.
_CONFIG = """\
[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tdefault_mntopts = acl,user_xattr
\tenable_periodic_fsck = 0
\tblocksize = 4096
\tinode_size = 256
\tinode_ratio = 16384
[fs_types]
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize,verity
\t}
\tfloppy = {
\t\tinode_size = 256
\t}
\tsmall = {
\t\tinode_size = 256
\t}
\tbig = {
\t\tinode_size = 256
\t}
\thuge = {
\t\tinode_size = 256
\t}
"""
"""Own profile, so that the host's /etc/mke2fs.conf decides nothing. ``metadata_csum_seed`` and ``orphan_file``, newer
defaults, stay off: GRUB before 2.12 refuses the first, kernels before 5.15 and e2fsprogs before 1.47 the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeOptions:
    """What is not fixed. Sizes in bytes."""

    uuid: str
    hash_seed: str
    label: str
    inodes: int
    journal_mib: int
    epoch: int
    prezeroed: bool


class Ext4Tools:
    """mke2fs, debugfs and e2fsck with a fixed profile and a fixed clock."""

    def __init__(self, commands: CommandRunner, scratch: Path) -> None:
        self._commands = commands
        self._scratch = scratch

    def check_host(self) -> list[Finding]:
        """Return what is missing."""
        missing = [name for name in ("mkfs.ext4", "debugfs", "e2fsck") if self._commands.find(name) is None]
        if missing:
            message = f"{', '.join(missing)} not found"
            return [Finding.error("disk.tool-missing", message, "install e2fsprogs (Debian: apt install e2fsprogs)")]
        version = self.version()
        if version < _OLDEST:
            text = ".".join(map(str, version))
            hint = "install e2fsprogs 1.47.0 or newer (Debian 12 has it)"
            return [Finding.error("disk.tool-old", f"mkfs.ext4 {text} is too old", hint)]
        return []

    def version(self) -> tuple[int, ...]:
        """Return the version of mkfs.ext4.

        Raises:
            DiskError: it does not say.
        """
        text = self._commands.run(["mkfs.ext4", "-V"]).stderr
        found = re.search(rb"(\d+)\.(\d+)(?:\.(\d+))?", text)
        if found is None:
            msg = f"mkfs.ext4 does not say its version: {text[:80]!r}"
            raise DiskError(msg)
        return tuple(int(part or 0) for part in found.groups())

    def make(self, region: Region, options: MakeOptions, source: Sequence[str], prefix: Sequence[str] = ()) -> None:
        """Run mkfs.ext4; *source* are its arguments for the contents, *prefix* goes before the whole command.

        Raises:
            DiskFullError: the contents do not fit.
            DiskError: anything else it complains about.
        """
        extended = [
            f"offset={region.offset}",
            "nodiscard",
            "root_owner=0:0",
            f"hash_seed={options.hash_seed}",
            "assume_storage_prezeroed=1" if options.prezeroed else "lazy_itable_init=0,lazy_journal_init=0",
        ]
        argv = [
            *prefix,
            "mkfs.ext4", "-q", "-F",
            "-b", "4096",
            "-I", "256",
            # The default is 5 %, gigabytes of a large disk; a little must stay for root to log in and clean up.
            "-m", "1",
            "-N", str(options.inodes),
            "-J", f"size={options.journal_mib}",
            "-U", options.uuid,
            "-L", options.label,
            "-E", ",".join(extended),
            *source,
        ]  # fmt: skip
        with self._workspace() as place:
            config = place / "mke2fs.conf"
            config.write_text(_CONFIG, encoding="ascii")
            env = self._env(options.epoch) | {"MKE2FS_CONFIG": str(config)}
            argv += [str(_plain(region, place)), str(region.size // 4096)]
            try:
                # Trouble can come with exit status 0: "too small for a journal".
                complaint = self._commands.run(argv, env=env).stderr.decode(errors="replace").strip()
            except CommandError as error:
                complaint = error.message
        if _FULL.search(complaint):
            msg = f"the contents do not fit into the ext4 volume of {region.size} bytes: {complaint[-500:]}"
            raise DiskFullError(msg, hint="make the volume larger", facts={"available": region.size})
        if complaint:
            msg = f"mkfs.ext4 complained: {complaint[-500:]}"
            raise DiskError(msg)

    def edit(self, region: Region, commands: Iterable[bytes], epoch: int) -> None:
        """Feed *commands* to debugfs, in batches.

        Raises:
            DiskError: debugfs said anything but the commands (its exit status is 0 in any case).
        """
        batch: list[bytes] = []
        for command in commands:
            batch.append(command)
            if len(batch) >= _BATCH:
                self._edit(region, batch, epoch)
                batch = []
        if batch:
            self._edit(region, batch, epoch)

    def _edit(self, region: Region, batch: list[bytes], epoch: int) -> None:
        with self._workspace() as place:
            script = place / "debugfs.commands"
            script.write_bytes(b"\n".join(batch) + b"\n")
            done = self._commands.run(["debugfs", "-w", "-f", str(script), _at(region, place)], env=self._env(epoch))
        output = done.stdout.splitlines() + done.stderr.splitlines()
        complaints = [line for line in output if line and not line.startswith(_NO_COMPLAINT)]
        if complaints:
            text = complaints[0].decode(errors="replace")
            msg = f"debugfs complained: {text}"
            if _FULL.search(text):
                raise DiskFullError(msg, hint="make the volume larger", facts={"available": region.size})
            raise DiskError(msg)

    def check(self, region: Region, *, needs_replay: bool = False) -> list[Finding]:
        """Run ``e2fsck -fn``; with *needs_replay* on a copy of the metadata whose journal ``e2fsck -p`` replays.

        Raises:
            DiskError: the journal cannot be followed, or there is no room for the copy.
        """
        with self._workspace() as place:
            where = _at(region, place)
            if needs_replay:
                where = str(place / "metadata")
                try:
                    copy_metadata(region, place / "metadata")
                except OSError as error:
                    msg = f"no copy of the metadata of {region.path} can be made in {place}: {error.strerror}"
                    raise DiskError(msg, hint="set TMPDIR to a filesystem with more room") from error
                # It also frees what was deleted and still open; 1: something was set right.
                self._commands.run(["e2fsck", "-p", where], ok=frozenset({0, 1, 4, 8, 12}))
            # 4: errors are left, as -n repairs none; 8: it could not go on (e2fsck(8)). What it printed tells which.
            done = self._commands.run(["e2fsck", "-fn", where], ok=frozenset({0, 4, 8, 12}))
        if done.returncode == 0:
            return []
        lines = [line for line in (done.stdout + done.stderr).decode(errors="replace").splitlines() if line.strip()]
        wanted = [line for line in lines if not line.startswith(("e2fsck 1.", "Pass "))][:20]
        return [Finding.error("ext4.fsck", line, where=str(region.path)) for line in wanted or ["e2fsck failed"]]

    def _env(self, epoch: int) -> dict[str, str]:
        # e2fsprogs takes 0 for not set, and then the host's clock.
        return {"E2FSPROGS_FAKE_TIME": str(max(epoch, 1))}

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="e2fs-", dir=self._scratch) as directory:
            yield Path(directory)


def _plain(region: Region, place: Path) -> Path:
    """Return a path without ``?``, which e2fsprogs takes for the start of options."""
    path = region.path.absolute()
    if "?" not in str(path):
        return path
    alias = place / "disk"
    alias.symlink_to(path)
    return alias


def _at(region: Region, place: Path) -> str:
    return f"{_plain(region, place)}?offset={region.offset}"
