"""Who signed what a disk starts, Secure Boot, and PCR 11: predicted, compared, told."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from prove_guests import GOOD, REPORT, a_menu, run

from cfs_core.plugin import (
    BootEntry,
    BootMenu,
    BytesContent,
    CommandError,
    DiskError,
    DiskMenu,
    EntryKind,
    Firmware,
    ImageError,
    Location,
    OutputFormat,
    RefusedError,
    Volume,
    WriteFile,
)
from cfs_core.testing import MemoryTarget
from cfs_prove import tpm
from cfs_prove.commands import make_prove
from cfs_prove.expectation import Expectation, expect
from cfs_prove.machine import Emulator, FirmwareImage, MachineFiles, find_firmware, qemu_argv
from cfs_prove.measured import UNKNOWN_SIGNER, judge_pcr, phase_paths, predicted, read_program, signer_of
from cfs_prove.proof import ProofOptions
from cfs_testkit.context import RecordedOutput, command_context

MEASURE = "/usr/lib/systemd/systemd-measure"
PARTS = {
    ".linux": b"a kernel",
    ".osrel": b"ID=test\n",
    ".cmdline": b"rw composefs=ab",
    ".initrd": b"an initrd" * 1000,
    ".uname": b"6.12",
    ".sbat": b"sbat,1\n",
}


def pe(sections, signatures=()):
    """Return a PE file with these sections, and a table of signatures."""
    optional = bytearray(struct.pack("<H", 0x20B) + bytes(238))
    struct.pack_into("<I", optional, 108, 16)
    head = 64 + 24 + len(optional) + 40 * len(sections)
    start = head + -head % 512
    table, body = b"", b""
    for name, data in sections:
        raw = data + bytes(-len(data) % 512)
        table += struct.pack("<8sIIIIIIHHI", name.encode(), len(data), 0, len(raw), start + len(body), 0, 0, 0, 0, 0)
        body += raw
    signed = b""
    for each in signatures:
        entry = struct.pack("<IHH", 8 + len(each), 0x200, 2) + each
        signed += entry + bytes(-len(entry) % 8)
    if signed:
        struct.pack_into("<II", optional, 112 + 8 * 4, start + len(body), len(signed))
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, len(optional), 0)
    data = b"MZ" + bytes(58) + struct.pack("<I", 64) + coff + bytes(optional) + table
    return data + bytes(start - len(data)) + body + signed


def program(**more):
    sections = {**PARTS, **{f".{name}": value for name, value in more.items()}}
    return read_program(BytesContent(pe([(name, value) for name, value in sections.items() if value is not None])))


@pytest.fixture(scope="module")
def signature(tmp_path_factory):
    """A PKCS #7 signature by a certificate that another one vouches for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import pkcs7
    from cryptography.x509.oid import NameOID

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    made = [
        x509.CertificateBuilder().subject_name(name(text)).issuer_name(name("authority")).public_key(key.public_key())
        .serial_number(number).not_valid_before(dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2044, 1, 1, tzinfo=dt.UTC)).sign(keys[0], hashes.SHA256())
        for number, (text, key) in enumerate(zip(("authority", "owner"), keys, strict=True), 1)
    ]  # fmt: skip
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"x").add_signer(made[1], keys[1], hashes.SHA256())
    return builder.add_certificate(made[0]).sign(serialization.Encoding.DER, [])


def test_the_signer_is_the_certificate_that_vouches_for_no_other(signature):
    assert signer_of(signature) == "CN=owner"
    assert signer_of(b"no signature") == UNKNOWN_SIGNER
    signed = read_program(BytesContent(pe(list(PARTS.items()), [signature, b"\x30\0"])))
    assert signed.signers == ("CN=owner", UNKNOWN_SIGNER)
    assert program().signers == ()


def test_a_table_of_signatures_outside_of_the_file_is_damage(signature):
    with pytest.raises(ImageError, match="signatures"):
        read_program(BytesContent(pe(list(PARTS.items()), [signature])[:-512]))


def test_the_prediction_is_that_of_systemd_measure(tmp_path):
    if not Path(MEASURE).exists():
        pytest.skip("systemd-measure is not installed (Debian: systemd)")
    words = []
    for name in (".linux", ".osrel", ".cmdline", ".initrd"):
        (tmp_path / name).write_bytes(PARTS[name])
        words.append(f"--{name[1:]}={tmp_path / name}")
    paths = ["", "sysinit:ready", "enter-initrd:leave-initrd:sysinit:ready"]
    argv = [MEASURE, "calculate", "--bank=sha256", *words, *(f"--phase={path}" for path in paths)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"systemd-measure cannot calculate here: {done.stderr.strip()}")
    theirs = re.findall(r"11:sha256=([0-9a-f]{64})", done.stdout)
    start = predicted(program(uname=None, sbat=None), 257)
    ours = dict(phase_paths(start))
    assert sorted(theirs) == sorted((ours[path] if path else start).hex() for path in paths)


def test_what_is_measured_depends_on_the_stub():
    values = {version: predicted(program(profile=b"ID=x"), version) for version in (252, 253, 254, 257)}
    assert len(set(values.values())) == 4
    assert predicted(program(uname=None, sbat=None), 257) == values[252]


@pytest.mark.parametrize("phases", ["", "sysinit:ready", "enter-initrd:leave-initrd:sysinit:ready"])
def test_the_phases_of_the_boot_are_found(phases):
    value = dict([("", predicted(program(), 257)), *phase_paths(predicted(program(), 257))])[phases]
    assert judge_pcr(program(), "systemd-stub 257.13-1", value.hex()).detail == phases
    assert judge_pcr(program(), "systemd-stub 257.13-1", value.hex()).as_predicted is True
    other = program(cmdline=b"rw composefs=ac")
    assert judge_pcr(other, "systemd-stub 257", value.hex()).as_predicted is False


@pytest.mark.parametrize(
    ("stub", "value", "sections", "why"),
    [
        ("systemd-stub 257", None, {}, "no TPM"),
        (None, "0" * 64, {}, "version"),
        ("systemd-stub 258", "0" * 64, {"dtbauto": b"x"}, "by the machine"),
    ],
)
def test_where_nothing_is_predicted_it_says_why(stub, value, sections, why):
    found = judge_pcr(program(**sections), stub, value)
    assert (found.as_predicted, why in found.detail) == (None, True)


# --- in a proof -----------------------------------------------------------------------------------------------------


def a_uki_disk(data):
    """Return the menu of a disk that starts a unified kernel image, and the disk."""
    where = Location(Volume.ESP, "/EFI/Linux/bootc/a.efi")
    disk = MemoryTarget()
    disk.apply(WriteFile(location=where, data=data, why="test"))
    entry = BootEntry(deployment_id="a", kind=EntryKind.UKI, title="a", version="1", os_id="x", files=(where,))
    return DiskMenu(loader=a_menu(firmware=(Firmware.UEFI,)).loader, menu=BootMenu(entries=(entry,))), disk


def expected_of(path, menu, disk):
    return expect(path, lambda _: [menu], firmware=Firmware.UEFI, open_disk=lambda _: contextlib.nullcontext(disk))


def test_the_uki_of_the_default_entry_is_read(disk, signature):
    menu, target = a_uki_disk(pe(list(PARTS.items()), [signature]))
    assert expected_of(disk, menu, target).program.signers == ("CN=owner",)
    assert expected_of(disk, menu, MemoryTarget()).program is None
    menu, target = a_uki_disk(b"no PE file")
    found = expected_of(disk, menu, target)
    assert found.program is None
    assert any("who signed" in note for note in found.notes)
    bls = a_menu(firmware=(Firmware.UEFI,))
    assert expected_of(disk, bls, target).program is None

    def broken(_):
        msg = "no table"
        raise DiskError(msg, hint="none")

    assert expect(disk, lambda _: [menu], firmware=Firmware.UEFI, open_disk=broken).program is None


def test_a_proof_tells_secure_boot_signer_and_pcr(emulator, disk, tmp_path, signature, monkeypatch):
    monkeypatch.setattr("cfs_prove.machine.find_firmware", lambda _architecture: FirmwareImage(disk, disk))
    menu, target = a_uki_disk(pe(list(PARTS.items()), [signature]))
    value = dict(phase_paths(predicted(read_program(BytesContent(pe(list(PARTS.items())))), 257)))["sysinit:ready"]
    report = (
        REPORT + "cfs-prove StubInfo systemd-stub 257\ncfs-prove SecureBoot 1\ncfs-prove SetupMode 0\n"
        f"cfs-prove pcr11 {value.hex().upper()}\n" + GOOD
    )
    emulator(f"report({report!r})\ntime.sleep(60)")
    words = [str(disk), "--arch", "amd64", "--accelerator", "tcg", "--tpm", "no"]
    for form in OutputFormat:
        output = RecordedOutput(form)
        make_prove(command_context(tmp_path, output=output, menus=[menu], disk=target)).main(
            words, standalone_mode=False
        )
        if form is OutputFormat.TEXT:
            assert {"secure boot: on", "signed by: CN=owner", "PCR 11:  as predicted (sysinit:ready)"} <= {*output.said}
        else:
            assert output.shown[0]["secure_boot"] is True
            assert output.shown[0]["setup_mode"] is False
            assert output.shown[0]["signed_by"] == ("CN=owner",)
            assert output.shown[0]["pcr11"]["as_predicted"] is True
    emulator(f"report({report.replace('SecureBoot 1', 'SecureBoot 0').replace(value.hex().upper(), '0' * 64)!r})")
    output = RecordedOutput(OutputFormat.TEXT)
    make_prove(command_context(tmp_path, output=output, menus=[menu], disk=target)).main(words, standalone_mode=False)
    assert "secure boot: off" in output.said
    assert any(line.startswith("PCR 11:  NOT as predicted") for line in output.said)


def test_without_a_tpm_it_says_so(emulator, disk):
    emulator(f"report({(REPORT + GOOD)!r})\ntime.sleep(60)")
    report = run(disk, expected=Expectation(program=program()), tpm=False)
    assert (report.pcr11.value, report.pcr11.detail) == (None, "no TPM in this machine")
    assert run(disk).pcr11 is None


def described(folder, name, *features, code="code.fd"):
    for file in ("code.fd", "secure.fd", "vars.fd"):
        (folder / file).write_bytes(bytes(64))
    listed = ", ".join(f'"{feature}"' for feature in features)
    (folder / name).write_text(
        f'{{"interface-types": ["uefi"], "mapping": {{"device": "flash", "executable": {{"filename": "{folder}/{code}",'
        f'"format": "raw"}}, "nvram-template": {{"filename": "{folder}/vars.fd", "format": "raw"}}}},'
        f'"targets": [{{"architecture": "x86_64", "machines": ["pc-q35-*"]}}], "features": [{listed}]}}'
    )


def test_firmware_for_secure_boot_is_another(tmp_path):
    from cfs_core.plugin import Architecture

    described(tmp_path, "10.json", "requires-smm", "secure-boot", "enrolled-keys", code="secure.fd")
    described(tmp_path, "30.json", "acpi-s3")
    assert find_firmware(Architecture.AMD64, (tmp_path,)).code == tmp_path / "code.fd"
    with pytest.raises(CommandError, match="Secure Boot"):
        find_firmware(Architecture.AMD64, (tmp_path,), secure=True)
    described(tmp_path, "20.json", "requires-smm", "secure-boot", code="secure.fd")
    found = find_firmware(Architecture.AMD64, (tmp_path,), secure=True)
    assert (found.code, found.secure) == (tmp_path / "secure.fd", True)


def test_the_machine_protects_variables_and_has_a_tpm(tmp_path):
    from cfs_core.plugin import Architecture

    uefi = FirmwareImage(tmp_path / "code", tmp_path / "vars", secure=True)
    files = MachineFiles(console=tmp_path, report=tmp_path, variables=tmp_path, tpm=tmp_path / "a,b")
    words = qemu_argv(
        Emulator(Path("/qemu"), Architecture.AMD64, "10.0"), tmp_path, files, form="raw", firmware=Firmware.UEFI,
        uefi=uefi, accelerator="tcg", memory_mib=512, nonce="0" * 32,
    )  # fmt: skip
    assert "q35,sata=off,usb=off,smm=on" in words
    assert "driver=cfi.pflash01,property=secure,value=on" in words
    assert f"socket,id=tpm,path={tmp_path}/a,,b" in words
    assert "tpm-crb,tpmdev=tpm0" in words


def test_variables_of_other_firmware_are_refused(emulator, disk, tmp_path, monkeypatch):
    template = tmp_path / "vars.fd"
    template.write_bytes(bytes(64))
    monkeypatch.setattr(
        "cfs_prove.machine.find_firmware", lambda _architecture, *, secure: FirmwareImage(disk, template, secure=secure)
    )
    emulator("sys.exit(0)")
    with pytest.raises(RefusedError, match="1024 bytes"):
        run(disk, firmware=Firmware.UEFI, variables=disk)
    with pytest.raises(RefusedError, match="cannot be read"):
        run(disk, firmware=Firmware.UEFI, variables=tmp_path / "absent")
    own = tmp_path / "own.fd"
    own.write_bytes(b"k" * 64)
    run(disk, firmware=Firmware.UEFI, variables=own)
    assert "driver=cfi.pflash01,property=secure,value=on" in emulator.calls()[-1][1]
    assert own.read_bytes() == b"k" * 64


def test_a_tpm_runs_and_ends_with_the_machine(tmp_path):
    if not shutil.which("swtpm"):
        pytest.skip("swtpm is not installed")
    with tpm.emulated(tmp_path) as address:
        assert address.is_socket()
    assert not [each for each in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(each)]


def _read(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_a_tpm_that_cannot_run_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(tpm, "SWTPM", "no-such-tpm")
    assert not tpm.installed()
    with pytest.raises(CommandError, match="not installed"), tpm.emulated(tmp_path):
        pass
    monkeypatch.setattr(tpm, "SWTPM", "broken-tpm")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "broken-tpm").write_text("#!/bin/sh\necho broken\nexit 1\n")
    (tmp_path / "broken-tpm").chmod(0o755)
    with pytest.raises(CommandError, match="broken"), tpm.emulated(tmp_path):
        pass
    deep = tmp_path / ("d" * 120)
    with pytest.raises(CommandError, match="too long"), tpm.emulated(deep):
        pass


def test_auto_gives_a_tpm_to_what_starts_a_unified_kernel_image(monkeypatch):
    from cfs_prove.proof import _has_tpm

    for there in (True, False):
        monkeypatch.setattr(tpm, "installed", lambda there=there: there)
        assert _has_tpm(ProofOptions(expected=Expectation(program=program()))) is there
        assert not _has_tpm(ProofOptions())
        assert not _has_tpm(ProofOptions(firmware=Firmware.BIOS, expected=Expectation(program=program())))
        assert _has_tpm(ProofOptions(tpm=True))


def test_digests_are_of_the_first_profile():
    sections = [*PARTS.items(), (".profile", b"ID=a"), (".cmdline", b"x"), (".profile", b"ID=b"), (".cmdline", b"y")]
    found = read_program(BytesContent(pe(sections)))
    assert found.sections[".cmdline"] == hashlib.sha256(b"x").digest()
    assert found.sections[".linux"] == hashlib.sha256(PARTS[".linux"]).digest()
