"""`cfs seal --check`: somebody else's seal, and what to do about it."""

from __future__ import annotations

import json

import pytest
from builders import bootable
from builders.pe import pe_bytes
from builders.sealed import Owner, with_signed

from cfs_core.image.difference import differences
from cfs_testkit.builders.oci import File, Image, layer, write_layout

VERSION = bootable.KERNEL_VERSION
UKI = f"boot/EFI/Linux/{VERSION}.efi"


def check(cfs, source, *options):
    """Return findings (code to severity) and the report."""
    done = cfs("seal", "--check", source, *options, "--format", "json")
    found = json.loads(done.stdout)
    assert (done.returncode == 0) == found["good"]
    assert all(each["hint"] for each in found["findings"])
    return {each["code"]: each["severity"] for each in found["findings"]}, found


@pytest.fixture
def sealed(cfs, base, key, tmp_path):
    """Return a function that seals an image and lays more layers over it."""

    def make(*options, over=(), signer=key, **files):
        image = base(**files)
        write_layout(tmp_path / "source", {"latest": image})
        argv = ("seal", f"oci:{tmp_path}/source:latest", f"oci:{tmp_path}/out:sealed", *options)
        cfs.ok(*argv, *(signer.options if signer else ()))
        if not over:
            return f"oci:{tmp_path}/out:sealed"

        from builders.sealed import top_layer

        tar = top_layer(tmp_path / "out", "sealed")
        layers = [*image.layers, layer(tar, "none"), *(layer(each) for each in over)]
        write_layout(tmp_path / "over", {"latest": Image(layers)})
        return f"oci:{tmp_path}/over:latest"

    return make


def test_a_good_seal_is_good(cfs, sealed, key):
    found, report = check(cfs, sealed(loader=False), "--trust", key.certificate)
    assert found == {"seal.raw-kernel": "note"}
    assert report["named"] == report["computed"]
    assert report["form"] == "v1 sha512"
    assert [each["trusted_by"] for each in report["signatures"]] == ["CN=owner"]
    text = cfs.ok("seal", "--check", sealed(loader=False), "--trust", key.certificate).stdout
    assert f"signed     {VERSION}.efi: CN=owner, trusted by CN=owner" in text


@pytest.mark.parametrize(
    ("options", "files", "expected"),
    [
        (("--verity-optional",), {}, {"boot.uki-verity-optional": "warning"}),
        (("--hash", "sha256", "--erofs", "v2"), {}, {}),
        ((), {"usr/lib/shim/shimx64.efi": File("MZ")}, {"seal.shim": "warning"}),
        ((), {f"usr/lib/modules/{VERSION}/config": File("CONFIG_X=y\n")}, {"seal.no-lockdown": "warning"}),
        (
            (),
            {f"usr/lib/modules/{VERSION}/config": File("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n")},
            {},
        ),
        (("--karg", "lockdown=integrity"), {f"usr/lib/modules/{VERSION}/config": File("CONFIG_X=y\n")}, {}),
        ((), {"loader": True}, {"seal.loader-unsigned": "error"}),
    ],
)
def test_what_is_odd_is_said(options, files, expected, cfs, sealed, key):
    choices = {"loader": False, **files}
    if choices.get("loader"):
        from pathlib import Path

        choices = {"usr/lib/systemd/boot/efi/systemd-bootx64.efi": File(
            Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub").read_bytes())}  # fmt: skip
    found, _ = check(cfs, sealed("--split-kernel", *options, **choices), "--trust", key.certificate)
    assert found == expected


def test_no_signature_and_one_of_a_stranger(cfs, sealed, key, stranger):
    found, _ = check(cfs, sealed("--split-kernel", signer=None, loader=False))
    assert found == {"seal.unsigned": "error"}
    reference = sealed("--split-kernel", signer=stranger, loader=False)
    assert check(cfs, reference, "--trust", key.certificate)[0] == {"seal.untrusted": "error"}
    assert check(cfs, reference)[0] == {}, "without certificates only whether it fits is judged"


def test_a_byte_of_the_command_line_that_was_changed(cfs, sealed, base, tmp_path, key):
    from builders.sealed import files_of

    reference = sealed("--split-kernel", loader=False)
    uki = files_of(tmp_path / "out", "sealed")[UKI].replace(b"quiet", b"quiez", 1)
    assert check(cfs, reference)[0] == {}
    found, report = check(cfs, sealed("--split-kernel", loader=False, over=[{UKI: File(uki)}]))
    assert found == {"seal.damaged": "error"}
    assert report["signatures"][0]["problem"] == "the file was changed after it was signed"


def test_a_file_that_was_changed_afterwards_is_named_from_the_dump(cfs, sealed):
    reference = sealed("--dump", loader=False, over=[{"etc/hostname": File("evil\n", mode=0o600)}])
    found, report = check(cfs, reference)
    assert found["seal.digest"] == "error"
    (line,) = report["differences"]
    assert line.startswith("/etc/hostname: size 4 is 5, mode 100644 is 100600, ")
    assert cfs("seal", "--check", reference).returncode == 7
    said = cfs.refused("install", "to-disk", "--source-imgref", reference, "disk.img", status=7, code="verification")
    assert ": /etc/hostname: size 4 is 5, mode 100644 is 100600, " in said


@pytest.mark.parametrize(("over", "what"), [(1, "its last layer"), (2, "its last 2 layers")])
def test_without_a_dump_the_layers_that_changed_it_are_told(over, what, cfs, sealed):
    layers = [{"etc/hostname": File("evil\n")}, {"etc/issue": File("later\n")}][:over]
    found, report = check(cfs, sealed("--erofs", "v2", loader=False, over=layers))
    assert found["seal.digest"] == "error"
    assert [line.split(":")[0] for line in report["differences"]] == ["/etc/hostname", "/etc/issue"][:over]
    (message,) = [each["message"] for each in report["findings"] if each["code"] == "seal.digest"]
    assert f"it fits without {what}" in message
    assert report["computed"] != report["named"]


def test_the_digest_of_another_form_is_told_from_that_of_another_image(cfs, tmp_path):
    base = bootable.image(loader=False, **{"boot/config": File("x\n")})
    plain = bootable.layout(tmp_path / "plain", latest=base) + ":latest"
    digest = cfs.ok("image", "digest", plain, "--erofs", "v2").stdout.strip()
    owner = Owner.named("owner")
    for named, said in ((digest, "as they are, not of the form that is installed"), ("ab" * 64, "make ")):
        image = with_signed(base, f"rw composefs={named}", owner)
        _, report = check(cfs, bootable.layout(tmp_path / named[:4], latest=image) + ":latest")
        (message,) = [each["message"] for each in report["findings"] if each["code"] == "seal.digest"]
        assert said in message
        assert report["differences"] == []


def test_images_without_a_seal(cfs, source, tmp_path):
    assert check(cfs, source(loader=False))[0] == {"seal.none": "error"}
    plain = bootable.with_uki(bootable.image(loader=False), "quiet")
    reference = bootable.layout(tmp_path / "plain", latest=plain) + ":latest"
    found = check(cfs, reference)[0]
    assert found["seal.none"] == "error"


def test_differences_are_told_by_path_and_field():
    line = "/a 3 100644 1 0 0 0 5.0 - abc - user.x=1"
    assert list(differences([line], [line])) == []
    assert list(differences([line], [])) == ["/a: is missing"]
    assert list(differences([], [line])) == ["/a: was not there"]
    other = "/a 4 100644 1 0 0 0 6.0 - abcd - user.y=1"
    (said,) = differences([line], [other])
    assert said == (
        "/a: size 3 is 4, mtime 5.0 is 6.0, content abc is abcd, attribute user.x differs or is missing, "
        "attribute user.y was not there"
    )


def test_a_loader_that_is_no_program_is_an_error(cfs, sealed):
    odd = File(pe_bytes([(".text", b"x")]))
    loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    done = cfs("seal", "--check", sealed(**{loader: odd}))
    assert done.returncode == 7
    assert f"/{loader}: " in done.stdout + done.stderr
