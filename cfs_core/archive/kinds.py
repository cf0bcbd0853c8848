"""What a file is by its first bytes, for people who handed over another than they thought."""

from __future__ import annotations

HEAD_BYTES = 0x8006
"""How much of a file `kind_of` looks at: what ISO 9660 begins with comes last."""

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip file"),
    (0, b"PK\x05\x06", "an empty zip file"),
    (0, b"\x1f\x8b", "a file compressed with gzip"),
    (0, b"BZh", "a file compressed with bzip2"),
    (0, b"\xfd7zXZ\0", "a file compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    (0, b"\x04\x22\x4d\x18", "a file compressed with lz4"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"!<arch>\n", "an ar archive or a Debian package"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"070701", "a cpio archive"),
    (0, b"070702", "a cpio archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"\xc7\x71", "a cpio archive"),
    (0, b"hsqs", "a squashfs image"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"# Disk DescriptorFile", "a VMDK disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (0, b"XFSB", "an XFS filesystem"),
    (0, b"\x7fELF", "a program or library (ELF)"),
    (0, b"MZ", "an EFI or Windows program"),
    (0, b"SIF_MAGIC", "a Singularity image"),
    (32, b"SIF_MAGIC", "a Singularity image"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS image"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 filesystem"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (512, b"EFI PART", "a disk image"),
    (510, b"\x55\xaa", "a disk image"),
)
_MARKUP = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body")
_TAR_MAGIC_AT = 257


def kind_of(head: bytes) -> str | None:
    """Return in words what a file is that begins with *head*; None for a tar archive, and for what is not known."""
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return None
    for at, magic, words in _MAGICS:
        if head[at : at + len(magic)] == magic:
            return words
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower()
    if text.startswith(_MARKUP):
        return "an XML document" if text.startswith(b"<?xml") else "an HTML page"
    if text.startswith((b"{", b"[")) and b"\0" not in head[:512]:
        return "a JSON document"
    return None
