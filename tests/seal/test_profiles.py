"""Profiles of a UKI, signatures of what a TPM measures, and arguments of addons and profiles that would be fatal."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
from builders import bootable
from builders.seal_tools import measure, tools, ukify_version
from builders.sealed import Owner, files_of, signed
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from cfs_core.model.content import BytesContent, read_all
from cfs_core.sealing import read_pe
from cfs_prove.measured import extended, predicted, read_program
from cfs_seal.authenticode import judge
from cfs_seal.signing import load_certificate
from cfs_testkit.builders.oci import File, Image, layer
from cfs_testkit.programs import optional_header

VERSION = bootable.KERNEL_VERSION
UKI = f"boot/EFI/Linux/{VERSION}.efi"


def stub(version=None):
    """Return a program with room for the headers of many sections, as stubs since systemd 254 have it.

    *version* makes it the stub of that systemd; None makes one of addons, which has no section that profiles have.
    """
    sections = [(".text", b"\xc3" * 64)]
    if version is not None:
        mark = f"#### LoaderInfo: systemd-stub {version}.1 ####\0".encode()
        sections += [(".sdmagic", mark), (".sbat", b"sbat,1,x,sbat,1,https://example.org\n")]
    optional = bytearray(optional_header()[:108] + struct.pack("<I", 16) + bytes(128))
    struct.pack_into("<I", optional, 16, 4096)  # where it starts
    struct.pack_into("<II", optional, 56, 4096 * (len(sections) + 1), 4096)  # sizes of image and headers
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    head += struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, len(optional), 0) + optional
    body = b""
    for number, (name, data) in enumerate(sections, 1):
        raw = data + bytes(-len(data) % 512)
        place = (len(data), 4096 * number, len(raw), 4096 + len(body), 0, 0, 0, 0, 0x40000040)
        head += struct.pack("<8sIIIIIIHHI", name.encode(), *place)
        body += raw
    return File(head + bytes(4096 - len(head)) + body)


@pytest.fixture
def modern(source):
    """An image whose stub knows profiles."""
    stubs = {"linuxx64.efi.stub": stub(257), "addonx64.efi.stub": stub()}
    return lambda: source(**{f"usr/lib/systemd/boot/efi/{name}": file for name, file in stubs.items()}, loader=False)


def needs_profiles():
    if ukify_version() < 257:
        pytest.skip("profiles need ukify of systemd 257")


def test_a_profile_has_the_same_command_line_and_more(cfs, modern, key, tmp_path):
    needs_profiles()
    out = f"oci:{tmp_path}/out:sealed"
    options = ("--profile", "rescue=systemd.unit=rescue.target quiet2", "--profile", "debug=debug")
    made = json.loads(cfs.ok("seal", modern(), out, *key.options, *options, "--format", "json").stdout)
    uki = files_of(tmp_path / "out", "sealed")[UKI]
    pe = read_pe(BytesContent(uki))
    profiles = [read_all(each).partition(b"\0")[0].decode().strip() for each in pe.every(".profile")]
    assert profiles == ["ID=main", "ID=rescue", "ID=debug"]
    lines = [read_all(each).partition(b"\0")[0].decode() for each in pe.every(".cmdline")]
    own = " ".join(made["kernel_arguments"])
    assert lines == [own, f"{own} systemd.unit=rescue.target quiet2", f"{own} debug"]
    assert pe.text(".cmdline") == own, "what is started where none is chosen"
    (verdict,) = judge(uki, [load_certificate(key.certificate)])
    assert verdict.trusted_by == "CN=owner"
    found = json.loads(cfs.ok("seal", "--check", out, "--trust", key.certificate, "--format", "json").stdout)
    assert found["good"]
    assert cfs.ok("image", "digest", out, "--bootable").stdout.strip() == made["image_id"]


def test_a_stub_that_knows_no_profiles_is_refused(cfs, source, key, tmp_path):
    old = source(**{"usr/lib/systemd/boot/efi/linuxx64.efi.stub": stub(255)})
    said = cfs.refused(
        "seal", old, f"oci:{tmp_path}/out:x", *key.options, "--profile", "a=b", status=13, code="command"
    )
    assert "a stub 255" in said


@pytest.mark.parametrize(
    ("option", "text", "code"),
    [
        ("--profile", "a=root=/dev/sda2", "boot.karg-root"),
        ("--addon", "a=systemd.volatile=yes", "boot.karg-volatile"),
        ("--profile", "a=composefs=" + "ab" * 64, "boot.karg-composefs"),
        ("--addon", "a=composefs.digest=v1-sha512-12:" + "ab" * 64, "boot.karg-composefs"),
    ],
)
def test_what_would_be_fatal_in_an_addon_or_profile_is_refused(option, text, code, cfs, source, key, tmp_path):
    cfs.refused("seal", source(), f"oci:{tmp_path}/out:x", *key.options, option, text, status=11, code=code)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["a=", "../a=b"])
def test_a_profile_has_a_name_and_arguments(text, cfs, source, tmp_path):
    cfs.refused("seal", source(), f"oci:{tmp_path}/out:x", "--profile", text, status=2, code="usage")


def test_a_profile_that_names_another_image_is_told(cfs, source, tmp_path):
    identity = cfs.ok("image", "digest", source(), "--bootable").stdout.strip()
    sections = [
        (".cmdline", f"rw composefs={identity}\0".encode()),
        (".uname", VERSION.encode()),
        (".linux", bootable.kernel_file(version=VERSION)),
        (".initrd", bootable.initramfs()),
        (".profile", b"ID=main\n\0"),
    ]
    for name, line in (
        ("good", f"rw composefs={identity} debug"),
        ("other", "rw composefs=" + "ab" * 64),
        ("none", "rw"),
    ):
        sections += [(".profile", f"ID={name}\n\0".encode()), (".cmdline", f"{line}\0".encode())]
    base = bootable.image(loader=False)
    image = Image(
        [*base.layers, layer({UKI: File(signed(sections, Owner.named("owner")))}, parents=True)], labels=base.labels
    )
    found = cfs("seal", "--check", bootable.layout(tmp_path / "profiles", x=image) + ":x", "--format", "json")
    assert found.returncode == 7, found.stderr
    told = [each["message"] for each in json.loads(found.stdout)["findings"] if each["code"] == "seal.profile"]
    assert [("names abab" in each, "names no digest" in each) for each in told] == [(True, False), (False, True)]


# --- what a TPM measures ----------------------------------------------------------------------------------------------


def test_an_old_systemd_measure_is_told(cfs, source, key, tmp_path):
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "systemd-measure").write_text("#!/bin/sh\necho systemd 252\n")
    (folder / "systemd-measure").chmod(0o755)
    said = cfs.refused(
        "seal", source(), f"oci:{tmp_path}/out:x", *key.options, "--pcr-key", key.key, status=13, code="command",
        env={"PATH": f"{folder}{os.pathsep}{tools()}"},
    )  # fmt: skip
    assert "systemd 252" in said


def test_what_a_tpm_measures_is_signed(cfs, source, key, tmp_path):
    program = measure()
    if program is None:
        pytest.skip("systemd-measure of systemd 254 or later is not installed (Debian 13: systemd)")
    env = {"PATH": f"{Path(program).parent}{os.pathsep}{tools()}"}
    out = f"oci:{tmp_path}/out:sealed"
    cfs.ok("seal", source(loader=False), out, *key.options, "--pcr-key", key.key, env=env)
    uki = BytesContent(files_of(tmp_path / "out", "sealed")[UKI])
    pe = read_pe(uki)
    public = serialization.load_pem_public_key(read_all(pe.section(".pcrpkey")))
    signed = json.loads(read_all(pe.section(".pcrsig")).rstrip(b"\0"))["sha256"]
    value = predicted(read_program(uki), 257)
    policies = []
    for phase in ("enter-initrd", "leave-initrd", "sysinit", "ready"):
        value = extended(value, hashlib.sha256(phase.encode()).digest())
        policies.append(policy_of(value))
    assert {each["pol"] for each in signed} == set(policies)
    for each in signed:
        public.verify(
            base64.b64decode(each["sig"]), bytes.fromhex(each["pol"]), padding.PKCS1v15(), hashes.SHA256()
        )  # fmt: skip
    found = cfs.ok("seal", "--check", out, "--trust", key.certificate)
    assert "error" not in found.stdout


def policy_of(pcr11):
    """Return the digest of TPM2_PolicyPCR for PCR 11 of the SHA-256 bank (TPM 2.0 Library, part 3, 23.7)."""
    selection = bytes.fromhex("00000001000b03000800")
    digest = hashlib.sha256(pcr11).digest()
    return hashlib.sha256(bytes(32) + bytes.fromhex("0000017f") + selection + digest).hexdigest()
