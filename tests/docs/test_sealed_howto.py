"""The page about sealed images, followed to the disk where ukify, virt-firmware and signers are installed."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import snippets
from builders import bootable
from builders.seal_tools import tools

from cfs_testkit.builders.oci import File, write_layout

PAGE = snippets.DOCS / "howto/sealed-image.md"
EFI = Path("/usr/lib/systemd/boot/efi")
FIRMWARE = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
STUB, LOADER, ADDON = (EFI / name for name in ("linuxx64.efi.stub", "systemd-bootx64.efi", "addonx64.efi.stub"))


def reasons():
    """Return the reasons for not running a block that do not hold here."""
    if shutil.which("sbsign"):
        yield "sbsign, which not every machine has"
    if ADDON.is_file():
        yield "ukify with systemd's stub of addons, which not every machine has"
    if FIRMWARE.is_file():
        yield "virt-firmware and OVMF, which not every machine has"


@pytest.mark.campaign
@pytest.mark.slow
def test_the_page_leads_to_a_disk(tmp_path):
    pytest.importorskip("virt.firmware", reason="virt-firmware is not installed")
    missing = [name for name in ("ukify", "mkfs.ext4", "mkfs.vfat") if not shutil.which(name, path=_path())]
    missing += [str(path) for path in (STUB, LOADER) if not path.is_file()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    reader = snippets.Reader(tmp_path)
    reader.environ["PATH"] += f"{os.pathsep}{_path()}"
    files = {str(path)[1:]: File(path.read_bytes()) for path in (STUB, LOADER)}
    plain = bootable.image(loader=False, **files)
    stale = bootable.with_uki(bootable.image(capable=False), "composefs=" + "ab" * 64 + " rw")
    write_layout(reader.here / "debian", {"latest": plain, "stale": stale})
    everywhere = ["virt-firmware, which not every machine has", "ukify, which not every machine has"]
    wrong = reader.follow(PAGE, also=[*everywhere, *reasons()])
    assert not wrong, "\n\n".join(wrong)


def _path():
    return os.pathsep.join((tools(), "/usr/sbin", "/sbin"))
