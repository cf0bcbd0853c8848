"""A kernel that writes its command line to the first serial port and resets the machine: what GRUB starts in a second.

Source: Linux, Documentation/arch/x86/boot.rst (protocol 2.10); the code is 32-bit and runs wherever it is put.
"""

import struct

_SECTOR = 512
_CODE = bytes.fromhex(
    "8bbe28020000"  # mov edi, [esi + 0x228]: cmd_line_ptr
    "66baf803"  # mov dx, 0x3f8
    "b001ee"  # mov al, 1; out dx, al
    "8a07"  # next: mov al, [edi]
    "84c0"  # test al, al
    "7404"  # jz end
    "ee47"  # out dx, al; inc edi
    "ebf6"  # jmp next
    "b002ee"  # end: mov al, 2; out dx, al
    "66baf90cb006ee"  # mov dx, 0xcf9; mov al, 6; out dx, al: reset
    "f4ebfd"  # hlt; jmp $-1
)
START, END = b"\x01", b"\x02"
"""What stands around the command line on the serial port."""


def tiny_kernel() -> bytes:
    """Return a bzImage for machines with BIOS."""
    setup = bytearray(2 * _SECTOR)
    setup[0x1F1] = 1  # sectors of setup code
    struct.pack_into("<I", setup, 0x1F4, _SECTOR // 16)
    struct.pack_into("<HH", setup, 0x1FE, 0xAA55, 0x66EB)
    struct.pack_into("<4sH", setup, 0x202, b"HdrS", 0x20A)
    setup[0x211] = 1  # loaded high
    struct.pack_into("<I", setup, 0x214, 0x100000)
    struct.pack_into("<I", setup, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<IBB", setup, 0x230, 0x1000, 1, 12)
    struct.pack_into("<I", setup, 0x238, 2047)  # bytes of a command line
    struct.pack_into("<QI", setup, 0x258, 0x100000, 0x10000)
    return bytes(setup) + _CODE.ljust(_SECTOR, b"\0")
