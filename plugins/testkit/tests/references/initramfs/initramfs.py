"""Looks for /usr/lib/toy/mount in archives, compressed or not, one behind the other."""

import zlib

from cfs_core.plugin import ImageError, Initramfs, InitramfsVerdict, LimitError

LIMIT = 32 << 20
PROGRAM = "usr/lib/toy/mount"


class Toy(Initramfs):
    def examine(self, artifacts, image, storage_format):
        if storage_format != "composefs":
            return InitramfsVerdict(supported=None)
        if artifacts.initrd is None:
            return InitramfsVerdict(supported=None)
        with artifacts.initrd.open() as file:
            data = file.read(LIMIT + 1)
        if PROGRAM in names(data):
            return InitramfsVerdict(supported=True, handler="toy", arguments=("rw",))
        return InitramfsVerdict(supported=None)


def names(data):
    found = []
    while data := data.lstrip(b"\0"):
        if data[:2] == b"\x1f\x8b":
            inflater = zlib.decompressobj(31)
            try:
                unpacked = inflater.decompress(data, LIMIT)
            except zlib.error as error:
                raise ImageError("damaged") from error
            if not inflater.eof:
                raise LimitError("too long, or cut off")
            found += names(unpacked)
            data = inflater.unused_data
            continue
        data = archive(data, found)
    return found


def archive(data, found):
    at = 0
    while True:
        head = data[at : at + 110]
        if head[:6] != b"070701" or len(head) < 110:
            raise ImageError("no archive")
        try:
            size, length = int(head[54:62], 16), int(head[94:102], 16)
        except ValueError as error:
            raise ImageError("no number") from error
        name = data[at + 110 : at + 110 + length].rstrip(b"\0").decode(errors="replace")
        at += 110 + length
        at += -at % 4 + size
        at += -at % 4
        if at > len(data):
            raise ImageError("cut off")
        if name == "TRAILER!!!":
            return data[at:]
        found.append(name)
