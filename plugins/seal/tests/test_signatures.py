"""Signatures of EFI programs: made, attached, judged; and what is handed over to be signed."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import struct
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from cfs_core.plugin import CfsError, ConfigError, ImageError, ImageId, RefusedError, UsageError, VerificationError
from cfs_seal import der
from cfs_seal.authenticode import judge, sign
from cfs_seal.detached import Handover, read_handover, write_handover
from cfs_seal.pe_signatures import attach, digest, layout_of, mapped, signatures
from cfs_seal.signing import load_certificate, load_key, load_signers, sign_file, taken_over

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def program(size=3000, sections=2):
    """Return a PE32+ file with data in sections, of no multiple of eight bytes."""
    optional = bytearray(112 + 16 * 8)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<I", optional, 60, 0x400)
    struct.pack_into("<I", optional, 108, 16)
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    head += struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, sections, 0, 0, 0, len(optional), 0) + optional
    body = b""
    for number in range(sections):
        data = bytes([number + 1]) * size
        head += struct.pack("<8sIIIIIIHHI", b".d", size, 0x1000, len(data), 0x400 + len(body), 0, 0, 0, 0, 0)
        body += data
    return head + bytes(0x400 - len(head)) + body + b"end"


def certificate_of(key, name, issuer=None, issuer_key=None):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(START)
        .not_valid_after(START + dt.timedelta(days=9999)).sign(issuer_key or key, hashes.SHA256())
    )  # fmt: skip


@pytest.fixture(scope="module")
def owner():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key, certificate_of(key, "owner")


@pytest.fixture(scope="module")
def other():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key, certificate_of(key, "other")


def signed_by(data, *pairs):
    import io

    out = io.BytesIO()
    attach(data, [sign(data, *pair) for pair in pairs], out)
    return out.getvalue()


@pytest.mark.parametrize("size", [3000, 3001, 3004, 4096])
def test_a_signature_fits_its_file_and_no_other(size, owner, other):
    data = program(size)
    signed = signed_by(data, owner, other)
    assert digest(signed) == digest(data)
    assert [each.trusted_by for each in judge(signed, [owner[1]])] == ["CN=owner", None]
    assert all(each.intact for each in judge(signed, ()))
    for at in (0x3F0, 0x500, len(data) - 1):
        changed = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        assert {each.problem for each in judge(changed, [owner[1]])} == {"the file was changed after it was signed"}


def test_what_does_not_count_may_change(owner):
    signed = bytearray(signed_by(program(), owner))
    layout = layout_of(bytes(signed))
    signed[layout.checksum] ^= 1
    assert judge(bytes(signed), [owner[1]])[0].trusted_by == "CN=owner"


def test_the_same_key_and_file_give_the_same_signature(owner):
    assert sign(program(), *owner) == sign(program(), *owner)


def test_signatures_can_be_taken_away_and_leave_the_file(owner):
    import io

    out = io.BytesIO()
    data = signed_by(program(), owner)
    attach(data, (), out)
    assert signatures(out.getvalue()) == ()
    assert digest(out.getvalue()) == digest(data)


def test_a_chain_leads_to_what_firmware_has(owner, other):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaf = certificate_of(key, "leaf", owner[1], owner[0])
    signed = signed_by(program(), (key, leaf))
    assert judge(signed, [owner[1]])[0].trusted_by == "CN=owner"
    assert judge(signed, [other[1]])[0].trusted_by is None


def test_a_signature_of_another_key_under_this_name_is_seen(owner, other):
    forged = signed_by(program(), (other[0], owner[1]))
    (verdict,) = judge(forged, [owner[1]])
    assert verdict.problem == "it was not made with the key of its certificate"
    assert verdict.trusted_by is None


def test_attributes_of_another_file_are_seen(owner):
    one, two = program(), program(3008)
    signature = sign(one, *owner).replace(digest(one), digest(two))
    import io

    out = io.BytesIO()
    attach(two, [signature], out)
    (verdict,) = judge(out.getvalue(), [owner[1]])
    assert verdict.problem == "its attributes are of another file"


@pytest.mark.parametrize("cut", [0, 10, 70, 200, 330])
def test_what_is_no_program_is_refused(cut):
    with pytest.raises(ImageError):
        layout_of(program()[:cut])


def test_tables_that_lie_are_refused(owner):
    signed = bytearray(signed_by(program(), owner))
    layout = layout_of(bytes(signed))
    struct.pack_into("<I", signed, layout.table, len(signed))
    with pytest.raises(ImageError, match="malformed"):
        signatures(bytes(signed))
    struct.pack_into("<II", signed, layout.directory, len(signed) + 8, 8)
    with pytest.raises(ImageError, match="not where"):
        layout_of(bytes(signed))


@pytest.mark.parametrize("change", range(0, 1200, 37))
def test_damaged_signatures_are_no_crash(change, owner):
    data = program()
    signature = bytearray(sign(data, *owner))
    signature[change % len(signature)] ^= 0xFF
    import io

    out = io.BytesIO()
    attach(data, [bytes(signature)], out)
    try:
        verdicts = judge(out.getvalue(), [owner[1]])
    except CfsError:
        return
    assert len(verdicts) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "DER"), (b"\x30", "DER"), (b"\x30\x05ab", "DER"), (b"\x1f\x01a", "DER"), (b"\x30\x80", "DER")],
)
def test_der_that_is_none(data, message):
    with pytest.raises(ImageError, match=message):
        der.read(data)


def test_der_of_long_numbers():
    assert der.oid("1.2.840.113549").hex() == "06062a864886f70d"
    assert der.integer(128).hex() == "02020080"
    assert der.element(der.OCTETS, bytes(300))[:4].hex() == "0482012c"
    assert der.read(der.element(der.OCTETS, bytes(300))).body == bytes(300)


# --- files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(owner, tmp_path):
    key, certificate = owner
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "db.key").write_bytes(private)
    (tmp_path / "db.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "db.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    (tmp_path / "plain.efi").write_bytes(program())
    return tmp_path


def test_keys_and_certificates_are_read_in_both_forms(files):
    assert load_certificate(files / "db.pem") == load_certificate(files / "db.der")
    (signer,) = load_signers([str(files / "db.key")], [files / "db.der"])
    sign_file(files / "plain.efi", [signer], None, files / "signed.efi")
    with mapped(files / "signed.efi") as data:
        assert judge(data, [signer.certificate])[0].trusted_by == "CN=owner"


def test_keys_that_firmware_does_not_take_are_refused(files, other):
    from cryptography.hazmat.primitives.asymmetric import ec

    def write(key, encryption):
        path = files / "odd.key"
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )  # fmt: skip
        return path

    plain = serialization.NoEncryption()
    for key, encryption, what in (
        (ec.generate_private_key(ec.SECP256R1()), plain, "not an RSA key"),
        (other[0], serialization.BestAvailableEncryption(b"x"), "encrypted"),
    ):
        with pytest.raises(ConfigError, match=what):
            load_key(write(key, encryption))
    with pytest.raises(UsageError, match="not that of the key"):
        load_signers([str(write(other[0], plain))], [files / "db.pem"])
    with pytest.raises(UsageError, match="1 keys and 0"):
        load_signers([str(files / "db.key")], [])
    with pytest.raises(ConfigError, match="No such file"):
        load_key(files / "absent")


def handed_over(files):
    handover = Handover(
        manifest_digest="sha256:" + "a" * 64, image_id=ImageId("b" * 128), arguments=("rw",), uki="/boot/x.efi",
        places={"/boot/x.efi": "x.efi"},
    )  # fmt: skip
    write_handover(files / "out", handover, {"/boot/x.efi": files / "plain.efi"})
    (files / "out/unsigned/plain.efi").rename(files / "out/unsigned/x.efi")
    return handover


def test_what_is_handed_over_comes_back_the_same(files, owner):
    handed_over(files)
    with pytest.raises(UsageError, match=r"no signed x\.efi"):
        read_handover([files / "out"]).files()
    (files / "out/x.efi").write_bytes(signed_by(program(), owner))
    back = read_handover([files / "out"])
    ((unsigned, signed),) = back.files().values()
    assert taken_over(unsigned, signed, files / "final.efi") == ("CN=owner",)
    back.check("sha256:" + "a" * 64, "b" * 128)
    for wrong in (("sha256:" + "c" * 64, "b" * 128), ("sha256:" + "a" * 64, "c" * 128)):
        with pytest.raises(VerificationError):
            back.check(*wrong)


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"files": {"/boot/x.efi": "../x.efi"}}, {"uki": "/boot/y.efi"}],
)
def test_notes_that_are_odd_are_refused(change, files):
    handed_over(files)
    note = files / "out/seal.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | change))
    with pytest.raises(UsageError):
        read_handover([files / "out"])


def test_directories_of_two_images_are_not_mixed(files):
    handed_over(files)
    shutil.copytree(files / "out", files / "two")
    note = files / "two/seal.json"
    note.write_text(note.read_text().replace("bbb", "ccc"))
    with pytest.raises(UsageError, match="one and the same"):
        read_handover([files / "out", files / "two"])
    with pytest.raises(UsageError, match="one and the same"):
        read_handover([files])
    with pytest.raises(RefusedError, match="not empty"):
        handed_over(files)


@pytest.mark.judge
def test_sbsign_and_sbverify_agree(files, owner):
    if not shutil.which("sbsign"):
        pytest.skip("sbsigntool is not installed")
    sign_file(files / "plain.efi", load_signers([str(files / "db.key")], [files / "db.pem"]), None, files / "ours.efi")
    theirs = ["sbsign", "--key", files / "db.key", "--cert", files / "db.pem", "--output", files / "theirs.efi"]
    subprocess.run([*theirs, files / "plain.efi"], check=True, capture_output=True)
    for name in ("ours.efi", "theirs.efi"):
        said = subprocess.run(["sbverify", "--cert", files / "db.pem", files / name], check=False, capture_output=True)
        assert said.returncode == 0, said.stderr
        with mapped(files / name) as data:
            assert judge(data, [owner[1]])[0].trusted_by == "CN=owner"
