"""What should not be in an image is told by name and size, and keeps nobody from installing it."""

from __future__ import annotations

import json

import pytest
from builders import bootable

from cfs_testkit.builders.oci import File

LEFT = {
    "host keys": (
        {"etc/ssh/ssh_host_rsa_key": File("x", mode=0o600), "etc/ssh/ssh_host_rsa_key.pub": File("x")},
        "image.host-keys", "ssh_host_rsa_key)",
    ),
    "a seed": ({"var/lib/systemd/random-seed": File(b"x" * 512)}, "image.random-seed", "/var/lib/systemd/random-seed"),
    "logs": ({"var/log/dpkg.log": File("x" * 2048), "var/log/apt/term.log": File("x" * 1024)}, "image.logs", "3 KiB"),
    "caches": (
        {"var/cache/apt/archives/a.deb": File(b"x" * (2 << 20)), "var/lib/apt/lists/a": File(b"y" * (3 << 20))},
        "image.package-cache", "/var/cache/apt 2 MiB, /var/lib/apt/lists 3 MiB",
    ),
}  # fmt: skip
CLEAN = {
    "public keys": {"etc/ssh/ssh_host_rsa_key.pub": File("x"), "etc/ssh/sshd_config": File("x")},
    "empty logs": {"var/log/wtmp": File("")},
    "a small cache": {"var/cache/apt/pkgcache.bin": File(b"x" * 1000)},
}


def findings(cli, tmp_path, files):
    image = bootable.layout(tmp_path / "oci", t=bootable.image(**files)) + ":t"
    status, out, err = cli("image", "check", image, "--format", "json")
    assert status == 0, err
    (judgement,) = json.loads(out)["judgements"]
    return judgement["findings"]


@pytest.mark.parametrize(("files", "code", "said"), LEFT.values(), ids=LEFT)
def test_what_is_left_over_is_told(files, code, said, cli, tmp_path):
    (found,) = findings(cli, tmp_path, files)
    assert (found["code"], found["severity"]) == (code, "warning")
    assert said in found["message"]
    assert found["hint"].startswith("in the image")


@pytest.mark.parametrize("files", CLEAN.values(), ids=CLEAN)
def test_what_belongs_there_is_not(files, cli, tmp_path):
    assert findings(cli, tmp_path, files) == []
