"""Kernels, programs for UEFI, programs of the image, initramfs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import struct

import lz4.block
import zstandard
from builders.pe import addon_bytes, pe_bytes, uki_bytes
from builders.tiny_kernel import tiny_kernel
from grub_files import elf, shim
from grub_files import program as grub_program

from cfs_core.image.artifacts import find_artifacts
from cfs_core.image.initrd import initrd_compression
from cfs_core.image.kernel import read_kernel, read_program
from cfs_core.image.pe import find_pe, read_pe
from cfs_core.image.sealed import sealed_words
from cfs_core.model.elf import elf_architecture, elf_interpreter
from cfs_core.plugin import BytesContent, CfsError
from cfs_fuzz.target import target
from cfs_grub.program import built_in, loader_name
from cfs_initramfs.contents import read_contents
from cfs_initramfs.elf import needed_libraries
from cfs_initramfs.modules import read_modules
from cfs_initramfs.uki import initrd_section
from cfs_seal import der
from cfs_seal.pe_signatures import attach, digest, layout_of, signatures
from cfs_systemd_boot.binary import version
from cfs_testkit.initrds import cpio
from cfs_testkit.programs import kernel, program
from cfs_testkit.trees import image_of

HEX = "ab" * 64


def kernels() -> list[bytes]:
    """Return kernels in all forms that are known, and what is none."""
    arm = kernel("arm64")
    made = [kernel(), kernel(stub=False), arm, gzip.compress(arm, mtime=0), tiny_kernel(), kernel("riscv64")]
    return [*made, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", b"#!/bin/sh\n", b"\x7fELF", b""]


@target("kernel", kernels, (b"MZ", b"PE\0\0", b"HdrS", b"ARM\x64", b"zimg", b"gzip", b"zstd22", b"\x1f\x8b\x08"))
def recognise(data: bytes) -> None:
    """What kind of kernel a file is."""
    with contextlib.suppress(CfsError):
        read_program(BytesContent(data))
    read_kernel(BytesContent(data))


def unified() -> list[bytes]:
    """Return UKIs, an addon and loaders."""
    loader = pe_bytes([(".text", b"x" * 90), (".sdmagic", b"#### LoaderInfo: systemd-boot 257.1 ####\0")])
    return [uki_bytes(f"composefs={HEX} quiet"), uki_bytes(None, initrd=None), addon_bytes("a=1"), loader]


@target(
    "pe", unified, (b".linux\0\0", b".initrd\0", b".cmdline", b".osrel\0\0", b".profile", b".uname\0\0", b"composefs=")
)
def read_uki(data: bytes) -> None:
    """A program for UEFI as a UKI at each place where there may be one, as an addon and as a loader."""
    content = BytesContent(data)
    find_pe(data)
    version(data)
    for files in (
        {"boot/EFI/Linux/a.efi": data, "boot/EFI/Linux/a.efi.extra.d/b.addon.efi": data},
        {"usr/lib/modules/6.1/uki.efi": data},
    ):
        with contextlib.suppress(CfsError):
            for found in find_artifacts(image_of(files)):
                sealed_words(found)
    with contextlib.suppress(CfsError), content.open() as file:
        initrd_section(content, file)
    for section in read_pe(content).base:
        section.name.encode()


def signed() -> list[bytes]:
    """Return programs with signatures, which are DER and no more."""
    optional = bytearray(112 + 16 * 8)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<I", optional, 60, 0x400)
    struct.pack_into("<I", optional, 108, 16)
    plain = pe_bytes([(".text", b"x" * 90), (".data", b"y" * 900)], optional=bytes(optional))
    content = der.element(der.SEQUENCE, der.oid("1.2.840.113549.1.7.2"), der.set_of(der.integer(1)))
    out = io.BytesIO()
    attach(plain, [content, content], out)
    return [plain, out.getvalue(), content]


@target("pe-signatures", signed, (b"\x30\x82", b"\x06\x09", b"\xa0\x82"))
def read_signatures(data: bytes) -> None:
    """The table of signatures, and DER."""
    with contextlib.suppress(CfsError):
        for element in der.read(data).children():
            element.children()
    layout_of(data)
    digest(data)
    for signature in signatures(data):
        der.read(signature)


def grubs() -> list[bytes]:
    """Return GRUB's program, shim and a module."""
    return [grub_program(), grub_program(signed=True), shim(), elf("normal")]


@target("grub-program", grubs, (b"mimg", b"\x7fELF\2\1\1", b".modname", b"\xff" * 4, b"\\\0g\0r\0"), largest=16384)
def read_grub(data: bytes) -> None:
    """Modules that are built into GRUB, and what shim starts."""
    built_in(data)
    loader_name(data)


def executables() -> list[bytes]:
    """Return ELF files."""
    return [program(), program("arm64"), program(interpreter="/lib64/ld-linux-x86-64.so.2"), elf("x")]


@target("elf", executables, (b"\x7fELF\2\1\1", b"\x7fELF\1\2\1", b"/lib64/ld.so\0", b"\xff" * 8))
def read_elf(data: bytes) -> None:
    """A program of the image: CPU, interpreter, libraries."""
    elf_architecture(data)
    with contextlib.suppress(CfsError):
        needed_libraries(data)
    elf_interpreter(io.BytesIO(data))


def _lz4(data: bytes) -> bytes:
    block = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + len(block).to_bytes(4, "little") + block


def initrds() -> list[bytes]:
    """Return archives in every packing that kernels know, alone and after one another."""
    plain = cpio(
        {
            "init": "-> usr/lib/systemd/systemd",
            "etc": None,
            "etc/initrd-release": "ID=x\n",
            "usr/bin/sh": program(),
            "usr/lib/modules/6.1/kernel/fs/erofs.ko.xz": b"x",
            "conf/modules": "overlay\n",
            "scripts/local-bottom/ORDER": "/x\n",
        }
    )
    packed = [
        gzip.compress(plain, mtime=0),
        lzma.compress(plain, check=lzma.CHECK_CRC32),
        bz2.compress(plain),
        _lz4(plain),
    ]
    packed += [lzma.compress(plain, format=lzma.FORMAT_ALONE), zstandard.ZstdCompressor().compress(plain)]
    return [plain, *packed, plain + bytes(512) + packed[0], b"\x89LZO\0\r\n\x1a\n"]


@target(
    "initramfs", initrds, (b"070701", b"070702", b"TRAILER!!!\0", b"FFFFFFFF", b"\x02\x21\x4c\x18", b"\x28\xb5\x2f\xfd")
)
def read_initrd(data: bytes) -> None:
    """An initramfs: which packings, and what is in it."""
    with contextlib.suppress(CfsError):
        initrd_compression(BytesContent(data))
    read_contents(io.BytesIO(data))


_LISTS = b"fs/erofs.ko.xz: lib/a.ko\nlib/a.ko:\n\0kernel/fs/ext4.ko\n\0softdep erofs pre: a post: b\n"


@target("modules", lambda: [_LISTS], (b"softdep ", b" pre: ", b".ko.zst:", b"\0", b"\xff"))
def order_modules(data: bytes) -> None:
    """What depmod wrote."""
    lists = [*data.split(b"\0"), b"", b""][:3]
    names = ("modules.dep", "modules.builtin", "modules.softdep")
    image = image_of({f"usr/lib/modules/6.1/{name}": text for name, text in zip(names, lists, strict=True)})
    found = read_modules(image, "6.1")
    for name in list(found.paths)[:50]:
        found.order(name)
