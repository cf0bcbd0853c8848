"""What is a kernel, in which forms, and for which CPU; what is none says what it is."""

from __future__ import annotations

import gzip
import io
import random
import struct
from pathlib import Path

import pytest
from builders.pe import pe_bytes

from cfs_core.errors import ImageError
from cfs_core.image.initrd import initrd_compression
from cfs_core.image.kernel import read_kernel, read_program
from cfs_core.model.boot import Architecture, KernelForm
from cfs_core.model.content import BytesContent
from cfs_core.model.elf import elf_architecture, elf_interpreter
from cfs_testkit.programs import kernel, optional_header, program

AMD64, ARM64, I386, RISCV64 = (Architecture(name) for name in ("amd64", "arm64", "386", "riscv64"))
EFI, BZIMAGE, IMAGE, GZIP, ELF = KernelForm
DRIVER = 11
WINDOWS_CONSOLE = 3


@pytest.mark.parametrize(
    ("data", "forms", "architecture", "version"),
    [
        (kernel("amd64", "6.1.0-x"), {EFI, BZIMAGE}, AMD64, "6.1.0-x"),
        (kernel("amd64", "6.1.0-x", stub=False), {BZIMAGE}, AMD64, "6.1.0-x"),
        (kernel("386", "5.4"), {EFI, BZIMAGE}, I386, "5.4"),
        (kernel("arm64"), {EFI, IMAGE}, ARM64, None),
        (kernel("arm64", stub=False), {IMAGE}, ARM64, None),
        (kernel("riscv64"), {EFI, IMAGE}, RISCV64, None),
        (gzip.compress(kernel("arm64"), mtime=0), {GZIP}, ARM64, None),
        (gzip.compress(kernel("riscv64", stub=False), mtime=0), {GZIP}, RISCV64, None),
        (pe_bytes([(".text", b"zboot")], 0xAA64), {EFI}, ARM64, None),
        (pe_bytes([(".text", b"x")], 0x1C2), {EFI}, None, None),
        (program("amd64"), {ELF}, AMD64, None),
    ],
)
def test_a_kernel_says_how_it_is_started(data, forms, architecture, version):
    found = read_kernel(BytesContent(data))
    assert (found.forms, found.architecture, found.version) == (forms, architecture, version)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is empty"),
        (bytes(5000), "all zeros"),
        (b"version https://example.com/spec/v1\noid sha256:00\n", "pointer file of a large-file store"),
        (b"not a kernel\n", "text file that begins with 'not a kernel'"),
        (b"\xca\xfe\xba\xbe" + bytes(99), "begins with the bytes ca fe ba be"),
        (kernel()[:100], "ends in its section table"),
        (kernel()[:-100], "ends outside of the file"),
        (kernel(stub=False)[:-100], "it is damaged"),
        (b"MZ" + bytes(200), "no PE header"),
        (pe_bytes([], optional=optional_header(WINDOWS_CONSOLE)), "PE file of subsystem 3"),
        (gzip.compress(kernel("arm64"), mtime=0)[:-9], "has no end"),
        (b"\x1f\x8bgarbage" * 9, "cannot be read"),
        (gzip.compress(b"text\n", mtime=0), "unpacked, it is a text file"),
    ],
)
def test_what_is_no_kernel_says_what_it_is(data, problem):
    with pytest.raises(ImageError, match=problem):
        read_kernel(BytesContent(data))


def test_a_changed_byte_of_a_compressed_kernel_is_found():
    data = bytearray(gzip.compress(kernel("arm64") + random.Random(2).randbytes(5000), mtime=0))
    data[-2000] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        read_kernel(BytesContent(bytes(data)))


def test_kernels_of_debian_are_taken():
    found = sorted(Path(__file__).parents[2].glob(".cache/demo/*/boot/vmlinuz-*"))
    if not found:
        pytest.skip("no kernel was downloaded")
    for path in found:
        data = path.read_bytes()
        read = read_kernel(BytesContent(data))
        if read.architecture is not AMD64:
            continue  # an Image has neither a version nor an end in its header
        assert (read.forms, read.version) == ({EFI, BZIMAGE}, path.name.removeprefix("vmlinuz-"))
        with pytest.raises(ImageError, match="ends outside of the file"):
            read_kernel(BytesContent(data[:-4096]))


def test_programs_for_uefi():
    assert read_program(BytesContent(pe_bytes([]))).architecture is AMD64
    assert read_program(BytesContent(pe_bytes([], optional=optional_header(DRIVER)))).is_efi
    for data, problem in [
        (b"", "it is empty"),
        (pe_bytes([], optional=b""), "its subsystem is None"),
        (pe_bytes([], optional=optional_header(WINDOWS_CONSOLE)), "its subsystem is 3"),
        (pe_bytes([(".text", b"x" * 600)])[:-600], "outside of the file"),
    ]:
        with pytest.raises(ImageError, match=problem):
            read_program(BytesContent(data))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"070701" + bytes(104), None),
        (b"070702" + bytes(104), None),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd\0", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x89LZO\0", "lzo"),
    ],
)
def test_what_an_initramfs_begins_with(data, kind):
    assert initrd_compression(BytesContent(data)) == kind


@pytest.mark.parametrize("data", [b"", b"initrd", b"\x04\x22\x4d\x18", bytes(4096)])
def test_what_no_kernel_unpacks(data):
    with pytest.raises(ImageError, match="neither a cpio archive nor"):
        initrd_compression(BytesContent(data))


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "386", "riscv64"])
def test_an_elf_file_names_its_cpu_and_its_interpreter(architecture):
    static, dynamic = program(architecture), program(architecture, interpreter="/lib/ld.so")
    assert elf_architecture(static) is Architecture(architecture)
    assert elf_interpreter(io.BytesIO(static)) is None
    assert elf_interpreter(io.BytesIO(dynamic)) == "/lib/ld.so"
    for cut in (20, 60, 100):
        with pytest.raises(ImageError, match=r"damaged|cannot be started"):
            elf_interpreter(io.BytesIO(dynamic[:cut]))


def test_elf_files_of_32_bits_that_say_a_cpu_of_64_are_unknown():
    assert elf_architecture(b"\x7fELF\1\1" + bytes(12) + struct.pack("<H", 62)) is None
    assert elf_architecture(b"\x7fELF") is None
