"""What an initramfs begins with: a cpio archive, or one of the compressions of the kernel (lib/decompress.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.kernel import described

if TYPE_CHECKING:
    from cfs_core.model.content import Content

CPIO_MAGICS = (b"070701", b"070702")
"""What a member of a cpio archive begins with, that the kernel unpacks: newc, without and with a checksum."""

INITRD_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x1f\x9e": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"]\x00\x00": "lzma",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x89LZO": "lzo",
}
"""What a compressed initramfs begins with, and the kernel's name for it."""

_HEAD = 4096


def initrd_compression(content: Content) -> str | None:
    """Return how the first part of an initramfs is compressed, None if it is not.

    What is behind it is looked at by who unpacks it (the providers of the initramfs family).

    Raises:
        ImageError: the kernel would not unpack it; the message says what it is instead.
    """
    with content.open() as file:
        head = file.read(_HEAD)
    if head.startswith(CPIO_MAGICS):
        return None
    for magic, name in INITRD_COMPRESSIONS.items():
        if head.startswith(magic):
            return name
    msg = f"it is neither a cpio archive nor compressed in a way that kernels know: {described(head)}"
    raise ImageError(msg)
