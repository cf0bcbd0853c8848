"""EFI programs and images as small as they can be, for the tests of this plugin."""

import struct

from cfs_core.plugin import Architecture, BytesContent

MODULES = (
    "part_gpt", "part_msdos", "fat", "ext2", "search", "search_fs_uuid", "normal", "configfile", "linux", "loadenv",
    "test", "echo", "chain", "btrfs", "xfs",
)  # fmt: skip


class Image:
    root = None

    def __init__(self, files):
        self.files = files

    def names(self, path):
        prefix = path.rstrip("/") + "/"
        return tuple(sorted({name[len(prefix) :].split("/")[0] for name in self.files if name.startswith(prefix)}))

    def content(self, path):
        return BytesContent(self.files[path]) if path in self.files else None

    def read(self, path, *, limit=1 << 24):
        return self.files.get(path)


MACHINES = {Architecture.AMD64: 0x8664, Architecture.ARM64: 0xAA64}


def efi(body=b"", *, signed=False, architecture=Architecture.AMD64):
    """A PE32+ file with a certificate table, or without."""
    data = bytearray(64 + 24 + 112 + 16 * 8)
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, 64)
    data[64:68] = b"PE\0\0"
    struct.pack_into("<HHIIIH", data, 64 + 4, MACHINES[architecture], 0, 0, 0, 0, 112 + 16 * 8)
    struct.pack_into("<H", data, 64 + 24, 0x20B)
    struct.pack_into("<H", data, 64 + 24 + 68, 10)
    if signed:
        struct.pack_into("<II", data, 64 + 24 + 112 + 4 * 8, len(data) + len(body), 8)
    return bytes(data) + body + (b"PKCS #7." if signed else b"")


def elf(name):
    """A module: an ELF file with a section .modname."""
    names = b"\0.shstrtab\0.modname\0"
    text = name.encode() + b"\0"
    head = bytearray(64)
    head[:7] = b"\x7fELF\2\1\1"
    struct.pack_into("<Q", head, 40, 64 + len(names) + len(text))
    struct.pack_into("<HHH", head, 58, 64, 3, 1)
    section = struct.Struct("<IIQQQQIIQQ")
    table = section.pack(*[0] * 10)
    table += section.pack(1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)
    table += section.pack(11, 1, 0, 0, 64 + len(names), len(text), 0, 0, 1, 0)
    return bytes(head) + names + text + table


def program(*more, without=(), prefix="/EFI/debian", signed=False):
    """GRUB for EFI with these modules. Like a real one it speaks of others too: normal mentions ext2."""
    objects = b""
    for name in (*MODULES, *more):
        if name not in without:
            module = elf(name)
            module += bytes(-len(module) % 8)
            objects += struct.pack("<II", 0, 8 + len(module)) + module
    text = prefix.encode() + b"\0"
    objects += struct.pack("<II", 3, 8 + len(text)) + text
    mods = struct.pack("<4sIQQ", b"mimg", 0, 24, 24 + len(objects)) + objects
    core = b"\xb8mimg\0ext2\0xfs\0chain\0linux\0loadenv\0" + bytes(40)
    return efi(core + mods + b"\0" + prefix.encode() + b"\0", signed=signed)


def modules(target, *more):
    """A directory of modules."""
    directory = f"/usr/lib/grub/{target}"
    files = {f"{directory}/{name}.mod": name.encode() for name in (*MODULES, *more)}
    return files | {
        f"{directory}/kernel.img": b"kernel",
        f"{directory}/moddep.lst": b"linux: boot relocator\nnormal: boot\n",
        f"{directory}/boot.mod": b"boot",
        f"{directory}/boot.img": bytes(510) + b"\x55\xaa",
        f"{directory}/diskboot.img": bytes(512),
    }


def shim(loader="grubx64.efi"):
    """A shim, signed, that starts *loader* from its own directory."""
    return efi(b"\0" + f"\\{loader}\0".encode("utf-16-le"), signed=True)
