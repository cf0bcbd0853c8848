"""The text of refind.conf, and the firmware variables of a choice for one boot."""

import struct
import uuid

import pytest

from cfs_core.plugin import Partition, Volume
from cfs_refind.config import Config, Stanza, quoted, tokens
from cfs_refind.once import load_option


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('menuentry "My Linux" {\n', ["menuentry", "My Linux", "{"]),
        ('options "root=UUID=1 a=""b c"" d,e" # comment', ["options", 'root=UUID=1 a="b c" d,e']),
        ("loader\t/EFI/x,y=z", ["loader", "/EFI/x", "y", "z"]),
        ("# nothing", []),
        ("}\r\n", ["}"]),
        ('options """quoted"" at both ""ends"""', ["options", '"quoted" at both "ends"']),
    ],
)
def test_lines_are_split_as_refind_does(line, words):
    assert tokens(line) == words


@pytest.mark.parametrize("text", ["", "a", 'a "b" c', '"', '""', 'x="y z"', "a=b,c #d"])
def test_what_is_quoted_is_one_token(text):
    assert tokens(f"options {quoted(text)}") == ["options", text]


@pytest.mark.parametrize(
    "data", [b"", b"timeout 5", b"menuentry a {\r\nloader x\r\n}\r\nmenuentry b {\n", b"\xff\x00{\n}\n"]
)
def test_nothing_is_lost(data):
    assert Config.parse(data).data() == data


@pytest.mark.parametrize(("selection", "index"), [("2", 1), ('"beta,alpha"', 1), ("+,ALPHA", 0), ("none", 0), ("9", 0)])
def test_the_default_is_what_refind_selects(selection, index):
    config = Config.parse(f"default_selection {selection}\nmenuentry Alpha {{\n}}\nmenuentry Beta {{\n}}\n".encode())
    assert config.default() is config.stanzas[index]


def test_a_disabled_stanza_is_not_shown():
    assert Config.parse(b"menuentry a {\ndisabled\n}\n").stanzas == ()


def test_a_submenu_does_not_change_its_stanza():
    stanza = Stanza(("menuentry a {\n", "options x\n", "submenuentry b {\n", "options y\n", "}\n", "}\n"))
    assert stanza.get("options") == "x"


def test_the_boot_option_names_partition_file_and_arguments():
    partition = Partition(
        number=1, volume=Volume.ESP, start=1 << 20, size=1 << 29, type_guid="", uuid=str(uuid.UUID(int=7)), name="esp"
    )
    data = load_option(partition, "/EFI/BOOT/BOOTX64.EFI", "once", "BOOTX64.EFI -c x.conf")
    attributes, length = struct.unpack_from("<IH", data)
    name, _, rest = data[6:].partition(b"\0\0\0")
    assert (attributes, (name + b"\0").decode("utf-16-le")) == (1, "once")
    path, arguments = rest[:length], rest[length:]
    kind, sub, size, number, start, sectors, signature, table, signed = struct.unpack_from("<BBHIQQ16sBB", path)
    assert (kind, sub, size, number, start, sectors, table, signed) == (4, 1, 42, 1, 2048, 1 << 20, 2, 2)
    assert uuid.UUID(bytes_le=signature) == uuid.UUID(int=7)
    assert path[42:44] == b"\x04\x04"
    assert path[46:-4].decode("utf-16-le") == "\\EFI\\BOOT\\BOOTX64.EFI\0"
    assert path.endswith(b"\x7f\xff\x04\x00")
    assert arguments.decode("utf-16-le") == "BOOTX64.EFI -c x.conf\0"
