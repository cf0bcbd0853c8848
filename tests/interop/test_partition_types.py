"""The installer writes a root partition type, the early-boot script looks for it: one table, in two languages."""

from __future__ import annotations

import fnmatch
import re
from importlib.resources import files

import pytest

from cfs_core.plugin import Architecture
from cfs_disk.gpt.layout import TYPE_ROOT

SCRIPT = files("cfs_initramfs").joinpath("boot/cfs-setup-root").read_text(encoding="utf-8")
# What `uname -m` says on each.
MACHINES = {
    Architecture.AMD64: ("x86_64",),
    Architecture.ARM64: ("aarch64",),
    Architecture.RISCV64: ("riscv64",),
    Architecture.I386: ("i386", "i686"),
}
# Discoverable Partitions Specification, "Root Partition" of each architecture.
SPECIFIED = {
    Architecture.AMD64: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    Architecture.ARM64: "b921b045-1df0-41c3-af44-4c6f280d3fae",
    Architecture.RISCV64: "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
    Architecture.I386: "44479540-f297-41b2-9af7-d131d5f0458a",
}


def type_in_script(machine):
    table = re.search(r"(?ms)^root_type\(\) \{\n(.*?)^\}", SCRIPT).group(1)
    rows = re.findall(r"(?m)^ +(\S+)\) echo (\S+) ;;$", table)
    return next((kind for pattern, kind in rows if fnmatch.fnmatchcase(machine, pattern)), None)


@pytest.mark.parametrize("architecture", Architecture)
def test_installer_and_early_boot_agree_with_the_specification(architecture):
    assert TYPE_ROOT[architecture] == SPECIFIED[architecture]
    for machine in MACHINES[architecture]:
        assert type_in_script(machine) == SPECIFIED[architecture], machine
