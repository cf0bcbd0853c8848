"""Limits are settings: their defaults, that they reach the parsers, that errors name setting and entry."""

from __future__ import annotations

import pytest

from cfs_core.config.settings import Rank, Settings, layer_from_table, options_layer
from cfs_core.deploy.limits import image_limits
from cfs_core.errors import ImageError, LimitError
from cfs_core.image.limits import ImageLimits
from cfs_core.image.merge import merge_layers
from cfs_core.tar import TarLimits, read_members
from cfs_testkit.builders.oci import Dir, Image, layer, pax_header, raw_header, write_layout


class Stream:
    def __init__(self, data):
        self.data = data

    def read(self, count):
        taken, self.data = self.data[:count], self.data[count:]
        return taken


def parsed(*parts, limits=None):
    return list(read_members(Stream(b"".join(parts) + bytes(1024)), limits))


def test_the_defaults_are_those_of_the_parsers():
    assert image_limits(Settings()) == ImageLimits()


def test_each_setting_arrives():
    names = [
        "layer-size",
        "layer-unpacked-size",
        "layer-trailer",
        "compression-ratio",
        "layer-entries",
        "image-entries",
    ]
    names += ["file-size", "path-bytes", "path-depth", "extension-bytes", "xattr-count", "xattr-bytes"]
    given = {f"limits.{name}": number for number, name in enumerate(names, 11)}
    found = image_limits(Settings().with_layer(options_layer(given)))
    tar = found.layer.tar
    assert (found.layer.blob_bytes, found.layer.decompression.total_bytes, found.layer.trailer_bytes) == (11, 12, 13)
    assert (found.layer.decompression.ratio, tar.entries, found.entries, tar.file_bytes) == (14, 15, 16, 17)
    assert (tar.path_bytes, tar.path_depth, tar.extension_bytes) == (18, 19, 20)
    assert (tar.xattr_count, tar.xattr_bytes) == (21, 22)


def test_an_image_cannot_advise_them():
    advice = layer_from_table({"limits": {"layer-entries": 5}}, "image:/x.toml", Rank.IMAGE)
    assert (dict(advice.values), len(advice.warnings)) == ({}, 1)


def test_a_long_path_is_taken_and_a_long_name_is_named():
    path = b"/".join([b"d" * 250] * 20)
    member = parsed(pax_header((b"path", path)), raw_header(b"x", b"0", 0))[0]
    assert member.entry.path == b"/" + path
    with pytest.raises(LimitError, match=r"255 bytes in one file name.*nnnn") as caught:
        parsed(pax_header((b"path", b"usr/" + b"n" * 256)), raw_header(b"x", b"0", 0))
    assert "Linux" in caught.value.hint
    assert "setting" not in caught.value.facts


def test_what_is_over_a_limit_names_setting_and_entry():
    with pytest.raises(LimitError, match="in the entry 'usr/big'") as caught:
        parsed(raw_header(b"usr/big", b"0", 10), limits=TarLimits(file_bytes=9))
    assert caught.value.facts["setting"] == "limits.file-size"
    assert "limits.file-size" in caught.value.hint


def test_malformed_entries_are_named():
    header = bytearray(raw_header(b"usr/odd", b"0", 0))
    header[100:108] = b"garbage\0"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ImageError, match=r"malformed mode .* \(in the entry 'usr/odd'\)"):
        parsed(bytes(header))
    with pytest.raises(ImageError, match=r"\(after the entry '/usr/a'\)"):
        parsed(raw_header(b"usr/a", b"0", 0), b"x" * 512)


def test_all_entries_together():
    from cfs_core.model.layer import LayerEntry
    from cfs_core.model.tree import Directory

    entries = [LayerEntry(b"/%d" % number, Directory(0o755)) for number in range(3)]
    with pytest.raises(LimitError, match="more than 5") as caught:
        merge_layers([entries, entries], entry_limit=5)
    assert caught.value.facts["setting"] == "limits.image-entries"


def test_from_the_environment_to_the_error(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cfs_storage_composefs")
    from cfs_core.cli.main import run

    write_layout(tmp_path / "l", {"t": Image([layer({f"usr/{number}": "" for number in range(20)})])})
    assert run(["image", "digest", f"oci:{tmp_path}/l:t"]) == 0
    monkeypatch.setenv("CFS_LIMITS_LAYER_ENTRIES", "10")
    assert run(["image", "digest", f"oci:{tmp_path}/l:t"]) == LimitError.exit_status
    assert "limits.layer-entries" in capsys.readouterr().err


def test_contradictions_are_refused_or_applied(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cfs_storage_composefs")
    from cfs_core.cli.main import run

    layers = [layer({"usr/d/a": "lower"}, "none"), layer({"usr/d/a": "upper", "usr/d/.wh.a": ""}, "none")]
    write_layout(tmp_path / "l", {"t": Image(layers), "plain": Image([layer({"usr/d": Dir()}, "none")])})
    assert run(["image", "digest", f"oci:{tmp_path}/l:t"]) == ImageError.exit_status
    error = capsys.readouterr().err
    assert "[image.contradiction]" in error
    assert "layer 2 has '/usr/d/a'" in error
    assert "set image.contradictions" in error
    monkeypatch.setenv("CFS_IMAGE_CONTRADICTIONS", "apply")
    assert run(["image", "digest", f"oci:{tmp_path}/l:t"]) == 0
    applied = capsys.readouterr()
    assert "image.contradictions-applied" in applied.err
    assert run(["image", "digest", f"oci:{tmp_path}/l:plain"]) == 0
    assert capsys.readouterr().out == applied.out
