import pytest

from cfs_core.deploy.kernel_line import examine_root, examine_seal, is_root
from cfs_core.model.boot import KernelArgument
from cfs_core.model.disk import Partition, Volume

ROOT = Partition(
    number=2,
    volume=Volume.ROOT,
    start=1 << 20,
    size=1 << 30,
    type_guid="",
    uuid="aaaaaaaa-0000-4000-8000-000000000001",
    name="root",
    filesystem="ext4",
    fs_uuid="bbbbbbbb-0000-4000-8000-000000000002",
    label="System",
)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("UUID=BBBBBBBB-0000-4000-8000-000000000002", True),
        ("UUID=aaaaaaaa-0000-4000-8000-000000000001", False),
        ("PARTUUID=aaaaaaaa-0000-4000-8000-000000000001", True),
        ("/dev/disk/by-uuid/bbbbbbbb-0000-4000-8000-000000000002", True),
        ("/dev/disk/by-partuuid/bbbbbbbb-0000-4000-8000-000000000002", False),
        ("LABEL=System", True),
        ("LABEL=system", False),
        ("PARTLABEL=root", True),
        ("gpt-auto", True),
        ("/dev/sda1", False),
        ("/dev/sda2", None),
        ("/dev/nvme0n1p2", None),
        ("/dev/nvme0n1p3", False),
        ("/dev/mmcblk0p12", False),
        ("/dev/mapper/root", None),
        ("live:CDLABEL=x", None),
        ("", None),
    ],
)
def test_is_root(value, verdict):
    assert is_root(value, ROOT) is verdict


@pytest.mark.parametrize(
    ("line", "sealed", "expected"),
    [
        ("root=/dev/sda1 root=LABEL=System", False, []),
        ("root=LABEL=System root=/dev/sda1", False, ["error"]),
        ("root=/dev/sda2", False, ["error"]),
        ("root=/dev/sda2", True, ["warning"]),
        ('"root=LABEL=Other"', True, ["error"]),
        ("rootfstype=xfs,ext4", False, []),
        ("rootfstype=auto", False, []),
        ("rootfstype=ext4 rootfstype=xfs", False, ["error"]),
        ("quiet", True, []),
    ],
)
def test_check_root(line, sealed, expected):
    arguments = [KernelArgument(text=word, origin="test") for word in line.split()]
    assert [finding.severity for finding in examine_root(arguments, ROOT, sealed=sealed)] == expected


def test_check_seal():
    right, wrong = "ab" * 64, "cd" * 64
    line = [f"composefs={wrong}", f"composefs.digest=v1-sha512-12:{right}"]
    assert list(examine_seal(line, right, "x.efi")) == []
    assert [finding.code for finding in examine_seal(line[:1], right, "x.efi")] == ["boot.uki-seal"]
    short = [f"composefs={'ab' * 32}", f"composefs.digest=v1-sha512-12:{right}"]
    assert list(examine_seal(short, "ab" * 32, "x.efi")) == []
