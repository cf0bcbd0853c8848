"""What an import remembers of a layer is what reading the layer again says."""

import io
import tarfile

import pytest
from composefs_builders.repositories import layer_stream, open_repository

from cfs_core.plugin import Digest, Node
from cfs_storage_composefs.repository import identities
from cfs_storage_composefs.streams import entries
from cfs_storage_composefs.streams.importer import LayerImport


def everything():
    """A layer with each kind of entry, and files around each border."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name, kind=tarfile.REGTYPE, data=b"", **fields):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime, info.uid, info.gid = kind, len(data), 1.5, 7, 8
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))

        add("usr", tarfile.DIRTYPE, mode=0o755, pax_headers={"SCHILY.xattr.user.a": "1"})
        for size in (0, 1, 64, 65, 4096, 1 << 20, (1 << 20) + 1):
            add(f"usr/{size}", data=bytes([size % 251]) * size, mode=0o640)
        add("usr/caps", data=b"x" * 100, pax_headers={"SCHILY.xattr.security.capability": "y"})
        add("usr/link", tarfile.SYMTYPE, linkname="../x")
        add("usr/again", tarfile.LNKTYPE, linkname="usr/65")
        for name, kind in (("fifo", tarfile.FIFOTYPE), ("char", tarfile.CHRTYPE), ("block", tarfile.BLKTYPE)):
            add(f"usr/{name}", kind, devmajor=5, devminor=300)
        add("usr/.wh.gone")
        add("usr/empty/.wh..wh..opq")
        add("usr/.wh..wh.aufs", data=b"z" * 200)
    return out.getvalue()


def told(repository, diff_id):
    """Return what entries say, in a form that can be compared."""
    found = []
    for entry in repository.layer_entries(diff_id):
        names = {name for kind in type(entry.what).__mro__ for name in getattr(kind, "__slots__", ())}
        facts = {name: getattr(entry.what, name) for name in names if name not in {"entries", "__weakref__"}}
        assert isinstance(entry.what, Node) or set(facts) <= {"target"}
        found.append((entry.path, type(entry.what), facts))
    return found


def test_what_is_remembered_is_what_is_stored(tmp_path):
    tar = everything()
    with open_repository(tmp_path) as repository:
        repository.import_layer(layer_stream(tar))
        remembered = told(repository, Digest.of(tar))
        again = told(repository, Digest.of(tar))
    assert remembered == again
    assert len(remembered) == 16
    with open_repository(tmp_path) as repository:
        assert told(repository, Digest.of(tar)) == remembered


def test_it_is_told_once_and_then_read(tmp_path, monkeypatch):
    tar = everything()
    read = []
    original = identities.unpacked
    monkeypatch.setattr(identities, "unpacked", lambda packed: read.append(packed) or original(packed))
    with open_repository(tmp_path) as repository:
        repository.import_layer(layer_stream(tar))
        told(repository, Digest.of(tar))
        told(repository, Digest.of(tar))
    assert len(read) == 1


@pytest.mark.parametrize("room", [10, 600])
def test_too_much_is_read_again(tmp_path, monkeypatch, room):
    tar = everything()
    monkeypatch.setattr(entries, "PACKED_BYTES", room)
    monkeypatch.setattr(entries, "_BATCH", 4)
    monkeypatch.setattr(identities, "unpacked", None)
    packed = []
    original = LayerImport.entries
    monkeypatch.setattr(LayerImport, "entries", lambda self: packed.append(original(self)) or packed[-1])
    with open_repository(tmp_path) as repository:
        repository.import_layer(layer_stream(tar))
        assert len(told(repository, Digest.of(tar))) == 16
    assert packed == [None]


def test_all_layers_together_have_a_limit(tmp_path, monkeypatch):
    tars = [everything(), everything() + bytes(10240)]
    monkeypatch.setattr(identities, "PACKED_BYTES", 1500)
    kept = []
    original = identities.unpacked
    monkeypatch.setattr(identities, "unpacked", lambda packed: kept.append(packed) or original(packed))
    with open_repository(tmp_path) as repository:
        for tar in tars:
            repository.import_layer(layer_stream(tar))
        for tar in tars:
            told(repository, Digest.of(tar))
    assert len(kept) == 1
