"""The early-boot script in the shells of initramfs: command line, settings, the placeholder image."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
from importlib.resources import files

import pytest

SCRIPT = files("cfs_initramfs").joinpath("boot/cfs-setup-root")
SHELLS = ("dash", "bash", "busybox", "/usr/lib/klibc/bin/sh")
A, B = "ab" * 64, "cd" * 64
SHORT = "12" * 32


@pytest.fixture(params=SHELLS)
def script(request, tmp_path):
    """Run the script with a command line."""
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"no {request.param} here")
    shell = [path, "sh"] if request.param == "busybox" else [path]

    def run(cmdline, *words, **environment):
        (tmp_path / "cmdline").write_text(cmdline)
        return subprocess.run(
            [*shell, os.fspath(SCRIPT), *words],
            env={"PATH": os.environ["PATH"], "CFS_CMDLINE": str(tmp_path / "cmdline"), **environment},
            capture_output=True, check=False, timeout=30,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("cmdline", "algorithm", "expected"),
    [
        (f"root=x composefs={A} quiet\n", "", f"{A} required"),
        (f"composefs=?{A}", "", f"{A} optional"),
        (f"composefs={SHORT}", "", f"{SHORT} required"),
        (f'composefs="{A}"', "", f"{A} required"),
        (f'"composefs={A}"', "", f"{A} required"),
        (f'a="b composefs={B}" composefs={A}', "", f"{A} required"),
        (f"xcomposefs={B} composefs.other={B} composefs={A}", "", f"{A} required"),
        (f"composefs={A} composefs={B}", "", f"{A} required"),
        (f"composefs={A} composefs.digest=v1-sha512-12:{B}", "", f"{B} required"),
        (f"composefs.digest=?v2-sha512-12:{B}\tcomposefs={A}", "", f"{B} optional"),
        (f"composefs.digest=v1-sha256-12:{SHORT} composefs.digest=v1-sha512-12:{A}", "sha512", f"{A} required"),
        (f"composefs.digest=v1-sha256-12:{SHORT} composefs.digest=v1-sha512-12:{A}", "sha256", f"{SHORT} required"),
        (f"composefs.digest=v1-sha256-12:{SHORT} composefs={A}", "sha512", f"{A} required"),
        (f"composefs.digest=v1-blake3-12:{A} composefs={B}", "", f"{B} required"),
        (f"* ? [a-z] composefs={A}", "", f"{A} required"),
    ],
)
def test_what_the_command_line_asks_for(script, cmdline, algorithm, expected):
    result = script(cmdline, "parse", *([algorithm] if algorithm else []))
    assert result.stdout.decode().strip() == expected, result.stderr
    assert script(cmdline, "wanted").returncode == 0


@pytest.mark.parametrize(
    "cmdline",
    [
        f"composefs={A[:-1]}",
        f"composefs={A.upper()}",
        f"composefs={A[:-1]}g",
        f"composefs=??{A}",
        f"composefs=../{A[:-3]}",
        "composefs=",
        "composefs",
        "composefs.digest=",
        f"composefs.digest=v1-sha512-12:{SHORT}",
        f"composefs.digest=v1-sha256-12:{A}",
        f"composefs.digest=v1-sha512-12:{A[:-1]}/",
        "composefs.digest=v1-sha512-12",
        "",
        "root=/dev/vda2 quiet",
    ],
)
def test_a_command_line_that_names_no_image_is_refused_in_words(script, cmdline):
    result = script(cmdline, "parse")
    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr.startswith(b"cfs-setup-root: ")


def test_without_the_argument_there_is_nothing_to_do(script):
    assert script("root=/dev/vda2 quiet composefsx=1 foo.composefs=2", "wanted").returncode == 1


def read_placeholder(image):
    """Read the one file of the placeholder as the kernel does (erofs_fs.h); its attributes."""
    assert len(image) == 4096
    magic, _, _, blocksize_bits, _, root, inodes = struct.unpack_from("<IIIBBHQ", image, 1024)
    assert (magic, blocksize_bits, root, inodes) == (0xE0F5E1E2, 12, 36, 2)
    layout, xattrs, mode, _, size = struct.unpack_from("<HHHHI", image, 36 * 32)
    assert (layout, xattrs, mode, size) == (4, 0, 0o40700, 44)
    names = image[36 * 32 + 32 :][:44]
    entries = [struct.unpack_from("<QHBB", names, at) for at in (0, 12, 24)]
    assert [(nid, kind) for nid, _, kind, _ in entries] == [(36, 2), (36, 2), (39, 1)]
    assert names[36:] == b"...image"
    inode = 39 * 32
    layout, count, mode, _, size = struct.unpack_from("<HHHHI", image, inode)
    assert (layout, mode, size) == (0, 0o100600, 1)
    at, end = inode + 32 + 12, inode + 32 + 12 + (count - 1) * 4
    found = {}
    while at < end:
        name_size, prefix, value_size = struct.unpack_from("<BBH", image, at)
        assert prefix == 4
        name = image[at + 4 : at + 4 + name_size]
        found[name] = image[at + 4 + name_size : at + 4 + name_size + value_size]
        at += (4 + name_size + value_size + 3) // 4 * 4
    return found


@pytest.mark.parametrize(("digest", "code"), [(A, 2), (B, 2), (SHORT, 1), (hashlib.sha512(b"x").hexdigest(), 2)])
def test_the_placeholder_states_digest_and_object(script, digest, code):
    image = script(f"composefs={digest}", "placeholder").stdout
    raw = bytes.fromhex(digest)
    assert read_placeholder(image) == {
        b"overlay.metacopy": bytes([0, 4 + len(raw), 0, code]) + raw,
        b"overlay.redirect": f"/{digest[:2]}/{digest[2:]}".encode(),
    }


@pytest.mark.parametrize(
    ("text", "etc", "var", "root"),
    [
        ("", "bind", "bind", "fixed"),
        ('[etc]\nmount = "none"\n[var]\nmount = "overlay"\n', "none", "overlay", "fixed"),
        ("[ etc ]\n  mount='transient' # why\n\n[root]\ntransient = true", "transient", "bind", "transient"),
        ("[etc]\ntransient = true\n[var]\ntransient = false", "transient", "bind", "fixed"),
        ('[etc]\nmount = "root"\n[var]\nmount = "volatile"', "none", "transient", "fixed"),
        ('etc.mount = "overlay"\n[other]\nmount = "none"', "overlay", "bind", "fixed"),
    ],
)
def test_settings_are_read(script, tmp_path, text, etc, var, root):
    (tmp_path / "conf").write_text(text)
    result = script(f"composefs={A}", "settings", CFS_CONFIG=str(tmp_path / "conf"))
    assert result.stdout.decode().split("\n")[:3] == [
        f"etc {etc}",
        f"var {var}",
        f"root {root or 'fixed'}".replace("true", "transient"),
    ]


@pytest.mark.parametrize(
    "text", ['etc = { mount = "none" }', "[etc]\nmount = 'sideways'", "[etc\n", "[var]\ntransient = 1"]
)
def test_settings_that_are_not_understood_stop_the_boot(script, tmp_path, text):
    (tmp_path / "conf").write_text(text)
    result = script(f"composefs={A}", "settings", CFS_CONFIG=str(tmp_path / "conf"))
    assert result.returncode == 1
    assert b"cfs-setup-root: " in result.stderr


@pytest.mark.parametrize("word", ["state", "overlay"])
def test_a_volatile_var_is_left_to_systemd(script, tmp_path, word):
    (tmp_path / "conf").write_text("")
    result = script(f"composefs={A} systemd.volatile={word}", "settings", CFS_CONFIG=str(tmp_path / "conf"))
    assert b"var none" in result.stdout


def test_a_root_without_a_repository_is_refused(script, tmp_path):
    (tmp_path / "sysroot").mkdir()
    result = script(f"composefs={A}", CFS_SYSROOT=str(tmp_path / "sysroot"), CFS_RUN=str(tmp_path / "run"))
    assert result.returncode == 1
    assert b"has no composefs repository" in result.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck_has_nothing_to_say():
    boot = files("cfs_initramfs").joinpath("boot")
    dialects = {"hook-cfs": "dash", "install-cfs": "bash", "module-setup.sh": "bash"}
    for path in boot.rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"#!"):
            dialect = dialects.get(path.name, "sh")
            result = subprocess.run(
                ["shellcheck", "-s", dialect, "-e", "SC1091", path], capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stdout


def test_the_version_marker_is_the_one_that_is_looked_for():
    from cfs_initramfs.handlers import CFS

    assert CFS.marker in SCRIPT.read_bytes()
    assert re.search(rb"^# .*CFS_SETUP_ROOT_VERSION=1$", SCRIPT.read_bytes(), re.MULTILINE)
