"""Keys of Secure Boot: PK, KEK and db, as certificates, signature lists and signed updates of variables.

Signature lists and stores of variables are virt-firmware's; what signs an update is ours.
Source: UEFI 2.10, 8.2.2 (EFI_VARIABLE_AUTHENTICATION_2), 32.4.1 (signature lists).
"""

from __future__ import annotations

import os
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from cfs_core.plugin import CommandError, HostError, RefusedError, UsageError
from cfs_seal import der
from cfs_seal.authenticode import DATA, signed_data
from cfs_seal.signing import KEY_BITS, load_certificate, load_key

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = ("PK", "KEK", "db")
_GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_IMAGE_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_VENDORS = {"PK": _GLOBAL, "KEK": _GLOBAL, "db": _IMAGE_SECURITY}
_SIGNED_BY = {"PK": "PK", "KEK": "PK", "db": "KEK"}
_PKCS7 = uuid.UUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
_ATTRIBUTES = 0x27
"""Non-volatile, for boot services and the running system, time-based authenticated."""

_CERTIFICATE_GUID_TYPE = 0x0EF1
_YEARS = 20
_LACKING = "install virt-firmware: `pip install cfs-seal[secure-boot]`, or Debian's python3-virt-firmware"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a variable: a certificate by its subject, or how many hashes."""

    variable: str
    what: str
    fingerprint: str | None = None
    """SHA-256 of the certificate, in hex."""


def make_keys(folder: Path, name: str, *, microsoft: bool, when: dt.datetime) -> None:
    """Make three keys with certificates of twenty years, and what firmware takes of them, in a new directory.

    Microsoft's certificates go into KEK and db beside the own ones: cards with firmware of their own are signed by
    Microsoft, and a machine whose graphics card is refused shows nothing.

    Raises:
        RefusedError: something is there.
        CommandError: virt-firmware is not installed.
    """
    firmware = _virt_firmware()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            msg = f"{folder} is not empty"
            raise RefusedError(msg, hint="name a new directory: keys that are lost cannot be made again")
        for variable in VARIABLES:
            _make_key(folder, variable, f"{name} {variable}", when)
        owner = str(uuid.uuid4())
        (folder / "GUID.txt").write_text(f"{owner}\n", encoding="ascii")
        variables = firmware.variables()
        for variable in VARIABLES:
            variables.add_cert(variable, owner, str(folder / f"{variable}.pem"), replace=True)
        if microsoft:
            variables.add_microsoft_kek_keys()
            variables.add_microsoft_keys()
        for variable in VARIABLES:
            data = bytes(variables[variable].sigdb)
            (folder / f"{variable}.esl").write_bytes(data)
            signer = _SIGNED_BY[variable]
            key, certificate = load_key(folder / f"{signer}.key"), load_certificate(folder / f"{signer}.pem")
            (folder / f"{variable}.auth").write_bytes(signed_update(variable, data, key, certificate, when))
    except OSError as cause:
        msg = f"{folder} cannot be written: {cause.strerror}"
        raise HostError(msg, hint="name another directory") from cause


def _make_key(folder: Path, variable: str, subject: str, when: dt.datetime) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(when)
        .not_valid_after(when.replace(year=when.year + _YEARS, day=min(when.day, 28)))
        .add_extension(x509.BasicConstraints(ca=variable != "db", path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    descriptor = os.open(folder / f"{variable}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    (folder / f"{variable}.pem").write_bytes(certificate.public_bytes(encoding))


def signed_update(
    variable: str, data: bytes, key: rsa.RSAPrivateKey, certificate: x509.Certificate, when: dt.datetime
) -> bytes:
    """Return what firmware takes as the new content of *variable* (an ``.auth`` file)."""
    time = struct.pack("<HBBBBBxIhBx", when.year, when.month, when.day, when.hour, when.minute, when.second, 0, 0, 0)
    head = variable.encode("utf-16-le") + _VENDORS[variable].bytes_le + struct.pack("<I", _ATTRIBUTES) + time
    content = der.element(der.SEQUENCE, der.oid(DATA))
    info = signed_data(content, key, certificate, None, head + data)
    # Firmware wants the SignedData alone, without the ContentInfo around it.
    signature = der.read(info).children()[1].children()[0].raw
    size = 24 + len(signature)
    return time + struct.pack("<IHH", size, 0x0200, _CERTIFICATE_GUID_TYPE) + _PKCS7.bytes_le + signature + data


def enroll(keys: Path, variables: Path, out: Path) -> None:
    """Write the store of variables of a virtual machine with *keys* enrolled and Secure Boot on.

    Raises:
        UsageError: a file is not there, or no store of variables.
        CommandError: virt-firmware is not installed.
    """
    firmware = _virt_firmware()
    store = firmware.open(variables)
    if store is None:
        msg = f"{variables} is no store of firmware variables"
        raise UsageError(msg, hint="name OVMF's, such as /usr/share/OVMF/OVMF_VARS_4M.fd")
    found = store.get_varlist()
    try:
        for variable in VARIABLES:
            data = (keys / f"{variable}.esl").read_bytes()
            if variable not in found:
                found.create(variable)
            found[variable].sigdb_set(firmware.signatures(data))
        found.add_dummy_dbx(str(uuid.UUID(int=0)))
        found.enable_secureboot()
        store.write_varstore(str(out), found)
    except OSError as cause:
        msg = f"{cause.filename} cannot be read or written: {cause.strerror}"
        raise UsageError(msg, hint="`cfs secureboot keys DIR` makes such a directory") from cause


def contents(path: Path) -> Iterator[Entry]:
    """Yield what is in the variables of a directory of keys, a store of variables, an .esl or an .auth file.

    Raises:
        UsageError: *path* is none of them.
        CommandError: virt-firmware is not installed.
    """
    firmware = _virt_firmware()
    for variable, data in _databases(path, firmware):
        try:
            lists = firmware.signatures(data)
        except (ValueError, struct.error, RuntimeError) as cause:
            msg = f"{path} has no signature lists in it"
            raise UsageError(
                msg, hint="name a directory of keys, an .esl or .auth file, or OVMF's variables"
            ) from cause
        for each in lists:
            if each.x509 is not None:
                fingerprint = each.x509.fingerprint(hashes.SHA256()).hex()
                yield Entry(variable=variable, what=each.x509.subject.rfc4514_string(), fingerprint=fingerprint)
            else:
                yield Entry(variable=variable, what=f"{len(each)} hashes")


def _databases(path: Path, firmware: _VirtFirmware) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        files = [path / f"{name}.esl" for name in (*VARIABLES, "dbx")]
        yield from ((file.stem, file.read_bytes()) for file in files if file.is_file())
        return
    if not path.is_file():
        msg = f"there is no {path}"
        raise UsageError(msg, hint="name a directory of keys, an .esl or .auth file, or OVMF's variables")
    store = firmware.open(path) if path.suffix not in {".esl", ".auth"} else None
    if store is not None:
        found = store.get_varlist()
        yield from ((name, bytes(found[name].data)) for name in (*VARIABLES, "dbx") if name in found)
        return
    data = path.read_bytes()
    if path.suffix == ".auth":
        (size,) = struct.unpack_from("<I", data, 16)
        data = data[16 + size :]
    yield path.stem, data


@dataclass(frozen=True, slots=True)
class _VirtFirmware:
    """The parts of virt-firmware that are used; it has no types."""

    variables: Any
    signatures: Any
    detect: Any

    def open(self, path: Path) -> Any:  # noqa: ANN401 - one of virt-firmware's stores
        """Return the store of variables in a file, None if it is none."""
        try:
            return self.detect.open_varstore(str(path))
        except (ValueError, struct.error, RuntimeError, IndexError):
            return None


def _virt_firmware() -> _VirtFirmware:
    try:
        from virt.firmware.efi.efivar import EfiVarList
        from virt.firmware.efi.siglist import EfiSigDB
        from virt.firmware.varstore import autodetect
    except ImportError as cause:
        msg = "virt-firmware is not installed, which knows signature lists and stores of firmware variables"
        raise CommandError(msg, hint=_LACKING) from cause
    return _VirtFirmware(EfiVarList, EfiSigDB, autodetect)
