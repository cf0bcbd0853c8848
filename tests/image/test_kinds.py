"""Files of other kinds are called what they are."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import pytest

from cfs_core.errors import ImageError
from cfs_core.tar import HEAD_BYTES, kind_of, read_members


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a", "b")
    return file.getvalue()


def tarred(form):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        made.addfile(tarfile.TarInfo("PK"), io.BytesIO(b""))
    return file.getvalue()


KINDS = {
    "a zip file": zipped(),
    "a file compressed with gzip": gzip.compress(b"x"),
    "a squashfs image": b"hsqs" + bytes(1000),
    "a qcow2 disk image": b"QFI\xfb" + bytes(1000),
    "an HTML page": b"\n  <!DOCTYPE html><html>",
    "an XML document": b"<?xml version='1.0'?><Error/>",
    "a JSON document": b'{"errors": []}',
    "an ext2, ext3 or ext4 filesystem": bytes(1080) + b"\x53\xef" + bytes(100),
    "a disk image": bytes(510) + b"\x55\xaa" + b"EFI PART",
    "an ISO 9660 image": bytes(0x8001) + b"CD001",
    "a pointer of Git LFS, not the file itself": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("words", KINDS)
def test_kinds(words):
    assert kind_of(KINDS[words][:HEAD_BYTES]) == words


@pytest.mark.parametrize(
    "data", [b"", b"PK", bytes(512), b"text\n", tarred(tarfile.GNU_FORMAT), tarred(tarfile.PAX_FORMAT)]
)
def test_tars_and_what_is_not_known(data):
    assert kind_of(data) is None


@pytest.mark.parametrize("words", ["a zip file", "a squashfs image", "an HTML page"])
def test_a_layer_that_is_something_else(words):
    data = KINDS[words].ljust(2048, b"x")
    with pytest.raises(ImageError, match=f"the layer is {words}"):
        list(read_members(io.BytesIO(data)))
