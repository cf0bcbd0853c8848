"""What a program of an image is linked with (System V ABI, chapter 5: Dynamic Linking)."""

from __future__ import annotations

import struct

from cfs_core.plugin import ImageError

_HEAD = 64
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS, _STRINGS_SIZE = 1, 5, 10
_SEGMENT_LIMIT, _TAG_LIMIT = 128, 4096


def needed_libraries(data: bytes) -> tuple[str, ...]:
    """Return the names of the shared libraries that the ELF file *data* asks for (DT_NEEDED), in its order.

    Raises:
        ImageError: damaged, or no ELF file.
    """
    try:
        order = {1: "<", 2: ">"}[data[5]]
        wide = data[4] == 2  # noqa: PLR2004 - ELFCLASS64
        tags = _dynamic(data, order, wide=wide)
        strings = next(value for tag, value in tags if tag == _STRINGS)
        size = next(value for tag, value in tags if tag == _STRINGS_SIZE)
        start = _file_offset(data, order, strings, wide=wide)
        table = data[start : start + size]
        return tuple(table[value : table.index(b"\0", value)].decode("ascii") for tag, value in tags if tag == _NEEDED)
    except StopIteration:
        return ()
    except (struct.error, KeyError, IndexError, OverflowError, ValueError) as error:
        message = "it is a damaged ELF file"
        raise ImageError(message, hint="install its package in the image again") from error


def _segments(data: bytes, order: str, *, wide: bool) -> list[tuple[int, int, int, int]]:
    """Return type, offset, address and size in the file of each program header."""
    table, size, count = (
        (*struct.unpack_from(f"{order}Q", data, 32), *struct.unpack_from(f"{order}HH", data, 54))
        if wide
        else (*struct.unpack_from(f"{order}I", data, 28), *struct.unpack_from(f"{order}HH", data, 42))
    )
    # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz; without p_flags there in 32 bits
    layout = struct.Struct(f"{order}I4xQQ8xQ" if wide else f"{order}III4xI")
    return [layout.unpack_from(data, table + at * size) for at in range(min(count, _SEGMENT_LIMIT))]


def _dynamic(data: bytes, order: str, *, wide: bool) -> list[tuple[int, int]]:
    """Return tags and values of the dynamic section; empty for a static program."""
    found = next((each for each in _segments(data, order, wide=wide) if each[0] == _DYNAMIC), None)
    if found is None:
        return []
    _, offset, _, size = found
    entry = struct.Struct(f"{order}qQ" if wide else f"{order}iI")
    count = min(size // entry.size, _TAG_LIMIT)
    return [entry.unpack_from(data, offset + at * entry.size) for at in range(count)]


def _file_offset(data: bytes, order: str, address: int, *, wide: bool) -> int:
    for kind, offset, start, size in _segments(data, order, wide=wide):
        if kind == _LOAD and start <= address < start + size:
            return offset + address - start
    message = f"address {address:#x} is in no segment"
    raise ValueError(message)
