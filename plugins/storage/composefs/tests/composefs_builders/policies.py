"""Debian's SELinux reference policy as files: fetched by apt, unpacked without installing anything."""

import bz2
import itertools
import os
import re
import struct
import subprocess

import pytest

PACKAGE_MAGIC = 0xF97CFF8F  # libsepol, policydb/module.h
CONTEXTS_MAGIC = 0xF97CFF90
META = re.compile(rb"[.^$?*+|\[({]")


def debian_policy(folder):
    """Return file_contexts and file_contexts.subs_dist of selinux-policy-default, or skip the test."""
    unpacked = folder / "unpacked"
    try:
        _run(["apt-get", "download", "-q", "selinux-policy-default", *_options(folder)], folder)
        (package,) = folder.glob("selinux-policy-default_*.deb")
        _run(["dpkg-deb", "-x", package, unpacked], folder)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        pytest.skip(f"Debian's selinux-policy-default cannot be fetched: {error}")
    modules = sorted(
        unpacked.glob("usr/share/selinux/default/*.pp.bz2"), key=lambda path: (path.name != "base.pp.bz2", path)
    )
    text = b"".join(file_contexts(bz2.decompress(path.read_bytes())) for path in modules)
    lines = [line for line in text.split(b"\n") if line.startswith(b"/")]
    lines.sort(key=specificity)
    subs = next(unpacked.glob("etc/selinux/*/contexts/files/file_contexts.subs_dist")).read_bytes()
    return b"\n".join(lines) + b"\n", subs


def _options(folder):
    """Return options that keep apt inside *folder*; its lists are read where this machine has them, else fetched."""
    found = subprocess.run(
        ["apt-cache", "show", "selinux-policy-default"], capture_output=True, check=False, timeout=60
    )
    if found.returncode == 0 and found.stdout:
        return []
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    options = [
        "-o",
        f"Dir::State::Lists={folder}/lists",
        "-o",
        f"Dir::Cache={folder}/cache",
        "-o",
        "Debug::NoLocking=1",
    ]
    _run(["apt-get", "update", "-q", *options], folder)
    return options


def _run(argv, folder):
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=240, env=os.environ | {"LC_ALL": "C"})


def file_contexts(package):
    """Return the file contexts in a policy package (.pp)."""
    magic, _, count = struct.unpack_from("<III", package)
    assert magic == PACKAGE_MAGIC
    offsets = [*struct.unpack_from(f"<{count}I", package, 12), len(package)]
    for start, end in itertools.pairwise(offsets):
        if struct.unpack_from("<I", package, start)[0] == CONTEXTS_MAGIC:
            return package[start + 4 : end]
    return b""


def specificity(line):
    """Order as libsemanage does: regular expressions first, then by the length of what is literal."""
    regex = line.split()[0]
    meta = META.search(regex.replace(rb"\.", b"_"))
    return meta is None, meta.start() if meta else len(regex), len(regex)
