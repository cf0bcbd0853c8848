"""What a sealed image has on top."""

from __future__ import annotations

import datetime as dt
import io
import json
import struct
import tarfile
import uuid
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from builders import bootable
from builders.pe import pe_bytes
from cfs_seal.authenticode import sign
from cfs_seal.pe_signatures import attach
from cfs_testkit.builders.oci import File, Image, layer
from cfs_testkit.programs import optional_header


def manifest_of(layout, tag):
    """Return the manifest that a layout has under a tag."""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = [
        each for each in index["manifests"]
        if each.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    ]  # fmt: skip
    return json.loads((layout / "blobs/sha256" / entry["digest"].partition(":")[2]).read_text())


def top_layer(layout, tag):
    """Return the bytes of the uppermost layer, which `cfs seal` does not compress."""
    blob = manifest_of(layout, tag)["layers"][-1]["digest"].partition(":")[2]
    return (layout / "blobs/sha256" / blob).read_bytes()


def files_of(layout, tag):
    """Return the members of the uppermost layer: bytes of files, the header of others."""
    with tarfile.open(fileobj=io.BytesIO(top_layer(layout, tag))) as tar:
        return {info.name: tar.extractfile(info).read() if info.isfile() else info for info in tar}


# --- signed files, and firmware that trusts signers -------------------------------------------------------------------

GLOBAL, IMAGE_SECURITY = "8be4df61-93ca-11d2-aa0d-00e098032b8c", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
X509, SHA256 = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072", "c1c41626-504c-4092-aca9-41f936934328"


@dataclass(frozen=True)
class Owner:
    """Somebody who signs."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @classmethod
    def named(cls, name):
        """Make a key and its own certificate."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
        certificate = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=7300)).sign(key, hashes.SHA256())
        )  # fmt: skip
        return cls(key, certificate)

    @property
    def der(self):
        """The certificate as firmware keeps it."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


def signed(sections, *owners):
    """Return a PE file with *sections*, signed by *owners*."""
    optional = bytearray(optional_header()[:108] + struct.pack("<I", 16) + bytes(128))
    head = 64 + 24 + len(optional) + 40 * len(sections)
    struct.pack_into("<I", optional, 60, head + -head % 512)
    data = pe_bytes(sections, optional=bytes(optional))
    out = io.BytesIO()
    attach(data, [sign(data, owner.key, owner.certificate) for owner in owners], out)
    return out.getvalue()


def signed_uki(cmdline, *owners):
    """Return a UKI as ukify makes one, signed by *owners*."""
    sections = [
        (".cmdline", cmdline.encode() + b"\0"),
        (".osrel", b'ID=test\nPRETTY_NAME="Test OS 1"\nVERSION_ID=1\n'),
        (".uname", bootable.KERNEL_VERSION.encode()),
        (".linux", bootable.kernel_file(version=bootable.KERNEL_VERSION)),
        (".initrd", bootable.initramfs()),
    ]
    return signed(sections, *owners)


def signed_addon(cmdline, *owners):
    """Return an addon, signed by *owners*."""
    return signed([(".cmdline", cmdline.encode() + b"\0")], *owners)


def with_signed(base, cmdline, *owners, addons=()):
    """Return the image *base* with a signed UKI on top, and *addons*: bytes by name."""
    folder = "boot/EFI/Linux/test.efi"
    files = {folder: File(signed_uki(cmdline, *owners))}
    files |= {f"{folder}.extra.d/{name}.addon.efi": File(data) for name, data in dict(addons).items()}
    return Image([*base.layers, layer(files, parents=True)], architecture=base.architecture, labels=base.labels)


def signature_list(kind, *values):
    """Return an EFI_SIGNATURE_LIST for each value (UEFI 2.10, 32.4.1)."""
    found = b""
    for value in values:
        found += struct.pack("<16sIII", uuid.UUID(kind).bytes_le, 28 + 16 + len(value), 0, 16 + len(value))
        found += bytes(16) + value
    return found


def write_variables(efivars, *, secure=True, db=(), dbx=b""):
    """Write the variables of a firmware that trusts the owners *db*, as the kernel shows them."""
    efivars.mkdir(parents=True, exist_ok=True)
    values = {
        f"SecureBoot-{GLOBAL}": b"\1" if secure else b"\0",
        f"db-{IMAGE_SECURITY}": signature_list(X509, *(owner.der for owner in db)),
        f"dbx-{IMAGE_SECURITY}": dbx,
    }
    for name, value in values.items():
        (efivars / name).write_bytes(b"\6\0\0\0" + value)
