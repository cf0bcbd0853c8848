"""Write the SHA-256 fs-verity digest of the V1 image of a tree of three small files, by the numbers of these pages."""

# ruff: noqa: INP001, D103, PLR2004, T201
import hashlib
import struct

FILES, MASK = {b"hello": b"hello\n", b"world": b"w" * 64, b"zero": b""}, 0xFFFFFFFF


def rotate(x: int, n: int) -> int:
    return (x << n | x >> (32 - n)) & MASK


def xxh32_short(data: bytes, seed: int) -> int:  # below 16 bytes
    h = (seed + 374761393 + len(data)) & MASK
    for at in range(0, len(data) - 3, 4):
        h = rotate((h + struct.unpack_from("<I", data, at)[0] * 3266489917) & MASK, 17) * 668265263 & MASK
    for byte in data[len(data) // 4 * 4 :]:
        h = rotate((h + byte * 374761393) & MASK, 11) * 2654435761 & MASK
    h = (h ^ h >> 15) * 2246822519 & MASK
    h = (h ^ h >> 13) * 3266489917 & MASK
    return h ^ h >> 16


def inode(layout: int, xattrs: int, mode: int, links: int, size: int, u: int, index: int) -> bytes:
    return struct.pack("<HHHHIIIIHHI", layout, xattrs, mode, links, size, 0, u, index, 0, 0, 0)  # B.6


def image() -> bytes:
    suffix = b"overlay.opaque"  # B.4, B.5
    name_filter = MASK ^ 1 << (xxh32_short(suffix, 0x25BBE08F + 4) & 31)
    xattrs = struct.pack("<IB7xBBH", name_filter, 0, len(suffix), 4, 1) + suffix + b"y" + bytes(1)
    nodes = {b"%02x" % n: None for n in range(256)} | FILES
    position, body, nids = 1152 + 32 + len(xattrs), b"", {b".": (36, 2), b"..": (36, 2)}
    for index, (name, data) in enumerate(sorted(nodes.items()), 1):
        room = 4096 - (position + 32) % 4096
        pad = -(-room // 32) * 32 if data and room < len(data) else 0  # B.7
        node = inode(4 if data else 0, 0, 0o20644 if data is None else 0o100644, 1, len(data or b""), 0, index)
        node += data or b""
        nids[name] = ((position + pad) // 32, 3 if data is None else 1)
        body += bytes(pad) + node + bytes(-len(node) % 32)
        position = 1152 + 32 + len(xattrs) + len(body)
    names, heads, offset = sorted(nids), b"", 12 * len(nids)  # B.8: more than 2048, so one block
    for name in names:
        heads += struct.pack("<QHBB", nids[name][0], offset, nids[name][1], 0)
        offset += len(name)
    first = -(-position // 4096)
    root = inode(0, 1 + (len(xattrs) - 12) // 4, 0o40755, 2, 4096, first, 0) + xattrs
    block = struct.pack(
        "<IIIBBHQQIIII", 0xE0F5E1E2, 0, 6, 12, 0, 36, len(nodes) + 1, 0, 0, first + 1, 0, position // 4096
    )
    start = struct.pack("<IIII", 0xD078629A, 1, 0, 1).ljust(1024, b"\0") + block.ljust(128, b"\0")
    return (start + root + body).ljust(first * 4096, b"\0") + (heads + b"".join(names)).ljust(4096, b"\0")


data = level = image()
while len(level) != 32:  # A.1
    level += bytes(-len(level) % 4096)
    level = b"".join(hashlib.sha256(level[i : i + 4096]).digest() for i in range(0, len(level), 4096))
print(hashlib.sha256(struct.pack("<BBBBIQ32s208x", 1, 1, 12, 0, 0, len(data), level)).hexdigest())  # A.2
