"""The origin file of a deployment: where its updates come from."""

import pytest

from cfs_core.deploy.state import DeploymentState, plan_origin
from cfs_core.deploy.target_reference import target_reference
from cfs_core.errors import UsageError
from cfs_core.model.boot import EntryKind
from cfs_core.model.digest import Digest
from cfs_core.model.disk import Location, Volume
from cfs_core.model.origin import OriginFile
from cfs_core.model.tree import Directory

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quay.io/os/debian:13", "docker://quay.io/os/debian:13"),
        ("localhost:5000/os", "docker://localhost:5000/os"),
        ("registry:quay.io/os/debian:13", "docker://quay.io/os/debian:13"),
        ("docker://quay.io/os/a_b--c__d.e", "docker://quay.io/os/a_b--c__d.e"),
        (f"docker://quay.io/os/debian@{DIGEST}", f"docker://quay.io/os/debian@{DIGEST}"),
        ("docker://debian:13", "docker://debian:13"),
        ("oci:/var/lib/images/os:latest", "oci:/var/lib/images/os:latest"),
        ("containers-storage:localhost/os", "containers-storage:localhost/os"),
    ],
)
def test_references_as_bootc_takes_them(text, expected):
    assert target_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci:",
        "debian",
        "debian:13",
        "docker:quay.io/os",
        "https://quay.io/os",
        "quay.io/OS/Debian",
        "quay.io/os/debian:bad tag",
        "quay.io/os/debian@sha256:abc",
        "oci:/x\n[boot]\nboot_type = bls",
        "oci:/x\u2028y",
        "oci:/x\udcff",
        "oci:/x ",
        "docker://quay.io/os\n",
    ],
)
def test_what_is_no_reference(text):
    with pytest.raises(UsageError) as caught:
        target_reference(text)
    assert "docker://HOST/NAME:TAG" in caught.value.hint


def test_nothing_breaks_out_of_its_line():
    state = DeploymentState(
        image_id="ab" * 64,
        tree=Directory(0o755),
        content=lambda _: None,
        target_imgref="docker://quay.io/os",
        boot_type=EntryKind.BLS,
        boot_digest="cd" * 32,
        manifest_digest=Digest.parse(DIGEST),
        verified=("signed: by me\n[boot]\nboot_type = uki\u2028x",),
    )
    lines = plan_origin(state, ()).data.decode().splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[origin]", "[boot]", "[image]", "[cfs]"]
    assert lines[-1] == "verified = signed: by me?[boot]?boot_type = uki?x"


def test_a_forged_section_is_refused(cfs, tmp_path):
    done = cfs.install("oci:nowhere", tmp_path / "disk.img", "--target-imgref", "x\n[boot]\ny")
    assert done.returncode == 2
    assert "--target-imgref" in done.stderr


def test_what_is_written_is_what_is_read():
    origin = OriginFile(
        image="docker://quay.io/os",
        boot_type=EntryKind.UKI,
        boot_digest="cd" * 32,
        manifest_digest=DIGEST,
        verified=("a policy: this", "another: that = 1"),
        bootloader="grub",
        bootloader_distribution="cfs-grub",
        files=(
            (Location(Volume.ESP, "/EFI/Linux/a b=c.efi"), "ef" * 32),
            (Location(Volume.ROOT, "/boot/x"), "00" * 32),
        ),
    )
    assert OriginFile.parse(origin.format()) == origin


def test_what_bootc_leaves_out_is_not_there():
    assert OriginFile.parse(
        "[origin]\ncontainer-image-reference = ostree-unverified-image:docker://a/b\n"
    ) == OriginFile(image="docker://a/b")


def test_malformed_lines_are_passed_over_and_other_files_are_none():
    text = "[cfs]\nfile.0 = xyz ESP:/a\nfile.1 = " + "ab" * 32 + " NOWHERE:/a\nfile.2 = " + "ab" * 32 + " ESP:/a\n"
    assert OriginFile.parse(text).files == ((Location(Volume.ESP, "/a"), "ab" * 32),)
    with pytest.raises(ValueError, match="not an origin file"):
        OriginFile.parse("no section\n")
