"""The kernel measures and reads files whose fs-verity metadata was written offline."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest_disk import Tree, partition_of, pattern

from cfs_core.plugin import HashAlgorithm
from cfs_disk.ext4.filesystem import Ext4Filesystem

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.flaky(reason="an emulated boot has a time limit, and other work on the host takes its time"),
]

ROOT = Path(__file__).parents[3]
SIZES = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 128 * 4096, 128 * 4096 + 1, 5_000_000)
SECONDS = 240

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /dev /m
mount -t proc none /proc
mount -t devtmpfs none /dev
mount -t ext4 /dev/nvme0n1 /m || echo MOUNT-FAILED
for f in /m/*; do
    [ -f "$f" ] || continue
    fsverity measure "$f" | sed 's/^/MEASURED /'
    if cat "$f" > /copy; then echo "READ $(sha256sum < /copy | cut -c1-64) $f"; else echo "UNREADABLE $f"; fi
    if (echo x >> "$f") 2>/dev/null; then echo "WRITTEN $f"; fi
done
echo ALL-DONE
poweroff -f
"""


def kernel():
    named = os.environ.get("CFS_TEST_KERNEL")
    found = (
        [Path(named)]
        if named
        else sorted(ROOT.glob(".cache/demo/*/boot/vmlinuz"), key=lambda path: path.stat().st_mtime)
    )
    if not found:
        pytest.skip("no kernel: set CFS_TEST_KERNEL, or run make demo once")
    return found[-1]


def newc(entries):
    """An initramfs (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs():
    programs = [shutil.which(name) for name in ("busybox", "fsverity")]
    if None in programs:
        pytest.skip("busybox and fsverity are needed")
    files = {}
    for program in programs:
        files[f"bin/{Path(program).name}"] = Path(program)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            files[library.lstrip("/")] = Path(library)
    directories = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    entries = [(name, 0o40755, b"") for name in sorted(directories)]
    entries += [(name, 0o100755, path.read_bytes()) for name, path in sorted(files.items())]
    return newc([*entries, ("init", 0o100755, INIT.encode())])


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU not installed")
@pytest.mark.parametrize("prefer_tar", [pytest.param(True, id="tar"), pytest.param(False, id="staging")])
def test_the_kernel_measures_what_we_computed(context, make_region, tmp_path, prefer_tar):
    tree = Tree()
    for size in SIZES:
        for algorithm in HashAlgorithm:
            tree.file(f"/p{size}-{algorithm}", pattern(size), algorithm)
            tree.file(f"/z{size}-{algorithm}", bytes(size), algorithm)
    tree.file("/tampered", pattern(50_000), HashAlgorithm.SHA512)
    filesystem = Ext4Filesystem(context, prefer_tar=prefer_tar)
    region = make_region(filesystem.bytes_needed(tree.contents), offset=0)
    filesystem.build(tree.contents, partition_of(region), region)
    with filesystem.reader(region) as reader:
        expected = {path: reader.verity_digest(path) for path in tree.contents}
        sums = {}
        for path in tree.contents:
            with reader.open(path) as file:
                sums[path] = hashlib.sha256(file.read()).hexdigest()
        (extent, *_) = reader.extents(reader.lookup("/tampered"))
    with region.path.open("r+b") as file:
        file.seek((extent[2] + 3) * 4096 + 7)
        file.write(b"!")
        file.truncate(region.size)
    (tmp_path / "initrd").write_bytes(initramfs())
    done = subprocess.run(
        [
            "qemu-system-x86_64", "-M", "q35", "-m", "512", "-smp", "2", "-cpu", "max", "-accel", "tcg,thread=multi",
            "-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio",
            "-drive", f"file={region.path},format=raw,if=none,id=d,snapshot=on", "-device", "nvme,drive=d,serial=cfs",
            "-kernel", str(kernel()), "-initrd", str(tmp_path / "initrd"),
            "-append", "console=ttyS0 panic=-1 quiet",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )  # fmt: skip
    lines = done.stdout.decode(errors="replace").splitlines()
    assert any("ALL-DONE" in line for line in lines), "\n".join(lines[-40:])
    measured, read, refused, written = {}, {}, set(), set()
    for line in lines:
        word, *rest = line.strip().split()[:3] or [""]
        if word == "MEASURED":
            measured[rest[1].removeprefix("/m")] = rest[0]
        elif word == "READ":
            read[rest[1].removeprefix("/m")] = rest[0]
        elif word == "UNREADABLE":
            refused.add(rest[0].removeprefix("/m"))
        elif word == "WRITTEN":
            written.add(rest[0])
    assert measured == expected
    assert refused == {"/tampered"}
    assert written == set()
    assert read == {path: digest for path, digest in sums.items() if path != "/tampered"}
