"""`cfs secureboot`: keys for firmware; tokens; and keys on the disk, from where systemd-boot enrols them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from builders import bootable
from cryptography.hazmat.primitives.serialization import pkcs7

from cfs_seal.authenticode import judge
from cfs_seal.pe_signatures import mapped
from cfs_seal.signing import load_certificate, load_key

OVMF = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
MICROSOFT = "Microsoft Corporation"


@pytest.fixture
def firmware():
    pytest.importorskip("virt.firmware", reason="virt-firmware is not installed")


def shown(cfs, path):
    return json.loads(cfs.ok("secureboot", "show", path, "--format", "json").stdout)


def test_keys_are_made_with_microsofts_certificates(cfs, firmware, tmp_path):
    keys = tmp_path / "keys"
    cfs.ok("secureboot", "keys", keys, "--name", "Example")
    found = shown(cfs, keys)
    own = [(each["variable"], each["what"]) for each in found if MICROSOFT not in each["what"]]
    assert own == [("PK", "CN=Example PK"), ("KEK", "CN=Example KEK"), ("db", "CN=Example db")]
    assert {each["variable"] for each in found if MICROSOFT in each["what"]} == {"KEK", "db"}
    for name in ("PK", "KEK", "db"):
        assert stat.S_IMODE((keys / f"{name}.key").stat().st_mode) == 0o600
        assert load_key(keys / f"{name}.key").public_key() == load_certificate(keys / f"{name}.pem").public_key()
        assert shown(cfs, keys / f"{name}.auth") == [each for each in found if each["variable"] == name]
    cfs.refused("secureboot", "keys", keys, status=5, code="refused")


@pytest.mark.parametrize(("name", "signer"), [("PK", "PK"), ("KEK", "PK"), ("db", "KEK")])
def test_updates_are_signed_as_firmware_wants(name, signer, cfs, firmware, tmp_path):
    keys = tmp_path / "keys"
    cfs.ok("secureboot", "keys", keys)
    data = (keys / f"{name}.auth").read_bytes()
    size, revision, kind = struct.unpack_from("<IHH", data, 16)
    assert (revision, kind) == (0x0200, 0x0EF1)
    assert data[16 + size :] == (keys / f"{name}.esl").read_bytes()
    vendor = "cbb219d73a3d9645a3bcdad00e67656f" if name == "db" else "61dfe48bca93d211aa0d00e098032b8c"
    signed = name.encode("utf-16-le") + bytes.fromhex(vendor) + struct.pack("<I", 0x27) + data[:16] + data[16 + size :]
    # OpenSSL wants the ContentInfo around it that firmware does not.
    from cfs_seal import der

    inner = der.element(der.EXPLICIT_0, data[40 : 16 + size])
    (tmp_path / "p7").write_bytes(der.element(der.SEQUENCE, der.oid("1.2.840.113549.1.7.2"), inner))
    (tmp_path / "signed").write_bytes(signed)
    argv = ["openssl", "smime", "-verify", "-inform", "DER", "-in", tmp_path / "p7", "-content", tmp_path / "signed",
            "-binary", "-noverify", "-certfile", keys / f"{signer}.pem", "-out", tmp_path / "out"]  # fmt: skip
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    certificates = pkcs7.load_der_pkcs7_certificates((tmp_path / "p7").read_bytes())
    assert certificates == [load_certificate(keys / f"{signer}.pem")]


def test_leaving_microsoft_out_is_asked_twice(cfs, firmware, tmp_path):
    for options in ((), ("-y",)):
        cfs.refused("secureboot", "keys", tmp_path / "k", "--no-microsoft", *options, status=5, code="refused",
                    stdin=subprocess.DEVNULL)  # fmt: skip
    assert not (tmp_path / "k").exists()
    cfs.ok("secureboot", "keys", tmp_path / "k", "--no-microsoft", "-yy")
    assert [each["variable"] for each in shown(cfs, tmp_path / "k")] == ["PK", "KEK", "db"]


def test_variables_of_a_machine_get_the_keys(cfs, firmware, tmp_path):
    if not OVMF.is_file():
        pytest.skip("OVMF is not installed")
    cfs.ok("secureboot", "keys", tmp_path / "keys")
    cfs.ok("secureboot", "enroll", tmp_path / "keys", OVMF, tmp_path / "vars.fd")
    found = shown(cfs, tmp_path / "vars.fd")
    assert [each for each in found if each["variable"] != "dbx"] == shown(cfs, tmp_path / "keys")
    assert (tmp_path / "vars.fd").stat().st_size == OVMF.stat().st_size
    cfs.refused("secureboot", "enroll", tmp_path, OVMF, tmp_path / "x.fd", status=2, code="usage")
    cfs.refused(
        "secureboot", "enroll", tmp_path / "keys", tmp_path / "keys/PK.pem", tmp_path / "x", status=2, code="usage"
    )


@pytest.mark.parametrize("what", ["absent", "text"])
def test_what_has_no_signature_lists_is_refused(what, cfs, firmware, tmp_path):
    (tmp_path / "text").write_text("no list")
    cfs.refused("secureboot", "show", tmp_path / what, status=2, code="usage")


# --- at install ------------------------------------------------------------------------------------------------------


@pytest.fixture
def updates(tmp_path):
    folder = tmp_path / "updates"
    folder.mkdir()
    for name in ("PK", "KEK", "db"):
        (folder / f"{name}.auth").write_bytes(name.encode())
    return folder


def test_an_install_puts_them_where_systemd_boot_enrols_from(cfs, updates, tmp_path):
    source = bootable.layout(tmp_path / "image", latest=bootable.image()) + ":latest"
    argv = ("install", "to-disk", "--source-imgref", source, "--secure-boot-enroll", updates)
    for name in ("PK", "KEK", "db"):
        assert cfs.ok(*argv, "--show", f"ESP:/loader/keys/auto/{name}.auth", tmp_path / "d.img").stdout.strip() == name
    (updates / "db.auth").unlink()
    cfs.refused(*argv, tmp_path / "d.img", status=3, code="config")
    assert not (tmp_path / "d.img").exists()


def test_a_loader_that_enrols_nothing_is_not_given_keys(cfs, updates, tmp_path):
    grub = {"usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": None}
    source = bootable.layout(tmp_path / "image", latest=bootable.image(**grub)) + ":latest"
    argv = ("install", "to-disk", "--source-imgref", source, "--secure-boot-enroll", updates, "--bootloader", "grub")
    done = cfs(*argv, tmp_path / "d.img")
    assert done.returncode != 0
    assert not (tmp_path / "d.img").exists()


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def token(key, tmp_path, monkeypatch):
    """A PKCS #11 token with the owner's key in it; its URI."""
    lacking = [name for name in ("softhsm2-util", "sbsign") if not shutil.which(name)]
    engines = list(Path("/usr/lib").glob("*/engines-3/pkcs11.so"))
    if lacking or not engines:
        pytest.skip(f"{', '.join(lacking) or 'the PKCS #11 engine of OpenSSL'} is not installed")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "home/.config/softhsm2").mkdir(parents=True)
    conf = tmp_path / "home/.config/softhsm2/softhsm2.conf"
    conf.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    env = {**os.environ, "HOME": str(tmp_path / "home")}
    run = ["softhsm2-util", "--init-token", "--free", "--label", "cfs", "--pin", "1234", "--so-pin", "1234"]
    subprocess.run(run, check=True, env=env, capture_output=True)
    run = ["softhsm2-util", "--import", key.key, "--token", "cfs", "--label", "db", "--id", "01", "--pin", "1234"]
    done = subprocess.run(run, check=False, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return "pkcs11:token=cfs;object=db;type=private;pin-value=1234"


def test_a_key_in_a_token_signs(cfs, source, key, token, tmp_path):
    cfs.ok("seal", source(loader=False), f"oci:{tmp_path}/out:sealed", "--key", token, "--certificate", key.certificate)
    done = cfs.ok("seal", "--check", f"oci:{tmp_path}/out:sealed", "--trust", key.certificate, "--format", "json")
    assert [each["trusted_by"] for each in json.loads(done.stdout)["signatures"]] == ["CN=owner"]


def test_the_stub_of_this_machine_is_unsigned():
    path = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    if not path.is_file():
        pytest.skip("systemd-boot's stub is not installed")
    with mapped(path) as data:
        assert judge(data, ()) == ()
