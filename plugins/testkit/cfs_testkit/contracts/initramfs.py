"""The contract of initramfs providers: they know their own, leave others alone, and survive what images hold."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import tracemalloc
from typing import TYPE_CHECKING, ClassVar

import pytest

from cfs_core.plugin import BootArtifacts, BytesContent, CfsError, EntryKind, Initramfs, InitramfsVerdict
from cfs_core.testing import families
from cfs_testkit.contracts.base import Contract
from cfs_testkit.initrds import bomb, cpio
from cfs_testkit.trees import image_of

if TYPE_CHECKING:
    from collections.abc import Mapping

MEMORY_LIMIT = 128 << 20
"""Bytes that examining any initramfs may take."""


class InitramfsContract(Contract):
    """What an initramfs provider must do. Give `initrd_files`: an initramfs that it recognises."""

    family = families.INITRAMFS

    storage_format: ClassVar[str] = "composefs"
    """The storage format that the initramfs must mount."""

    kernel_version: ClassVar[str] = "6.12.0"
    """The kernel that the initramfs is for."""

    initrd_files: ClassVar[Mapping[str, str | bytes | None]] = {}
    """Files of an initramfs that can mount `storage_format`."""

    image_files: ClassVar[Mapping[str, str | bytes]] = {"/usr/lib/os-release": "ID=test\n"}
    """Files of the image it belongs to."""

    def artifacts(self, initrd: bytes | None) -> BootArtifacts:
        """Return what the image offers to boot from."""
        return BootArtifacts(
            kind=EntryKind.BLS,
            kernel_version=self.kernel_version,
            boot_digest=hashlib.sha256(initrd or b"").hexdigest(),
            kernel=BytesContent(b"kernel"),
            initrd=None if initrd is None else BytesContent(initrd),
        )

    def examine(self, made: Initramfs, initrd: bytes | None, storage: str | None = None) -> InitramfsVerdict:
        """Ask about an initramfs."""
        return made.examine(self.artifacts(initrd), image_of(self.image_files), storage or self.storage_format)

    def never_a_yes(self, made: Initramfs, initrd: bytes | None) -> None:
        """Check that the answer is no, unknown, or an error of cfs."""
        try:
            verdict = self.examine(made, initrd)
        except CfsError:
            return
        assert verdict.supported is not True

    def test_recognises_its_own(self, made: Initramfs) -> None:
        """An initramfs that can mount the format is told, and who will mount it."""
        verdict = self.examine(made, cpio(self.initrd_files))
        assert isinstance(verdict, InitramfsVerdict)
        assert verdict.supported is True, verdict.reason
        assert verdict.handler

    @pytest.mark.parametrize("layout", ["compressed", "after microcode", "padded"])
    def test_recognises_it_however_it_is_packed(self, made: Initramfs, layout: str) -> None:
        """Compressed, behind an uncompressed archive of microcode, or followed by padding: it is the same."""
        archive = cpio(self.initrd_files)
        packed = {
            "compressed": gzip.compress(archive, mtime=0),
            "after microcode": cpio({"kernel/x86/microcode/x.bin": b"microcode"}) + gzip.compress(archive, mtime=0),
            "padded": archive + bytes(-len(archive) % 512),
        }
        assert self.examine(made, packed[layout]).supported is True

    def test_arguments_are_words(self, made: Initramfs) -> None:
        """Kernel arguments it asks for are single words."""
        arguments = self.examine(made, cpio(self.initrd_files)).arguments
        assert isinstance(arguments, tuple)
        assert all(argument and argument.split() == [argument] for argument in arguments)

    def test_says_nothing_about_others(self, made: Initramfs) -> None:
        """An initramfs of somebody else is neither supported nor refused: another provider may know it."""
        other = cpio({"init": "#!/bin/sh\n", "usr/lib/other/mount-root": "x"})
        assert self.examine(made, other).supported is None

    def test_knows_no_other_format(self, made: Initramfs) -> None:
        """A storage format it does not know is never supported."""
        assert self.examine(made, cpio(self.initrd_files), "no-such-format").supported is not True

    def test_no_initramfs_is_no_yes(self, made: Initramfs) -> None:
        """An image without an initramfs cannot mount anything."""
        self.never_a_yes(made, None)
        self.never_a_yes(made, b"")

    def test_a_lost_half_is_no_yes(self, made: Initramfs) -> None:
        """A truncated initramfs is not supported: the kernel would not unpack it."""
        archive = cpio(self.initrd_files)
        for data in (archive, gzip.compress(archive, mtime=0)):
            for eighths in (4, 6, 7):
                self.never_a_yes(made, data[: len(data) * eighths // 8])

    @pytest.mark.parametrize("data", [b"\xff" * 5000, b"070701" + b"z" * 200, b"070701" + b"F" * 104, b"\x1f\x8b" * 99])
    def test_garbage_is_no_crash(self, made: Initramfs, data: bytes) -> None:
        """Whatever an image calls its initramfs: the answer is no, unknown, or an error of cfs."""
        self.never_a_yes(made, data)

    def test_a_bomb_does_not_fill_memory(self, made: Initramfs) -> None:
        """An initramfs that unpacks to very much is read in bounded memory."""
        data = bomb()
        tracemalloc.start()
        try:
            self.never_a_yes(made, data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < MEMORY_LIMIT

    def test_answers_the_same_every_time(self, made: Initramfs) -> None:
        """The same question has the same answer."""
        archive = cpio(self.initrd_files)
        assert self.examine(made, archive) == self.examine(made, archive)

    def test_a_unified_kernel_image_without_sections_is_no_crash(self, made: Initramfs) -> None:
        """A file that is no unified kernel image is not supported."""
        artifacts = dataclasses.replace(
            self.artifacts(None), kind=EntryKind.UKI, kernel=None, uki=BytesContent(b"MZ" + bytes(900))
        )
        try:
            verdict = made.examine(artifacts, image_of(self.image_files), self.storage_format)
        except CfsError:
            return
        assert verdict.supported is not True
