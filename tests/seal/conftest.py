"""Running `cfs` as a process, small images with a real stub, keys, and ukify."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import bootable
from builders.seal_tools import tools
from builders.sealed import Owner
from cryptography.hazmat.primitives import serialization

from cfs_testkit.builders.oci import File

STUBS = Path("/usr/lib/systemd/boot/efi")
EPOCH = "1750000000"


@dataclass
class Cfs:
    folder: Path

    def __call__(self, *args, env=None, **options):
        environ = {
            **os.environ,
            "PATH": tools(),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "TMPDIR": str(self.folder / "tmp"),
            "SOURCE_DATE_EPOCH": EPOCH,
        }
        return subprocess.run(
            [sys.executable, "-m", "cfs_core", *map(str, args)],
            capture_output=True, text=True, check=False, env={**environ, **(env or {})}, **options,
        )  # fmt: skip

    def ok(self, *args, **options):
        done = self(*args, **options)
        assert done.returncode == 0, done.stderr
        return done

    def plan(self, source, *args):
        disk = self.folder / "plan.img"
        done = self.ok("install", "to-disk", "--source-imgref", source, "--dry-run", "--format", "json", *args, disk)
        return json.loads(done.stdout)

    def refused(self, *args, status, code, **options):
        """Run what must fail; return the message."""
        done = self(*args, **options)
        assert done.returncode == status, done.stderr
        assert f"[{code}]" in done.stderr, done.stderr
        assert "hint:" in done.stderr
        return done.stderr


@pytest.fixture
def cfs(tmp_path):
    (tmp_path / "tmp").mkdir()
    return Cfs(tmp_path)


@pytest.fixture(scope="session")
def ukify():
    if not shutil.which("ukify", path=tools()):
        pytest.skip("ukify is not installed; scripts/test-setup puts it beside the judges")
    if not (STUBS / "linuxx64.efi.stub").is_file():
        pytest.skip("systemd-boot's stub is not installed; scripts/test-setup installs it")


@dataclass
class Key:
    """An RSA key with a self-signed certificate, as files."""

    key: Path
    certificate: Path

    @property
    def options(self):
        return ("--key", self.key, "--certificate", self.certificate)


def make_key(folder, name):
    owner = Owner.named(name)
    made = Key(folder / f"{name}.key", folder / f"{name}.pem")
    made.key.write_bytes(
        owner.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    made.certificate.write_bytes(owner.certificate.public_bytes(serialization.Encoding.PEM))
    return made


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("keys"), "owner")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("keys"), "stranger")


@pytest.fixture
def base(ukify):
    """Return a function that makes an image with the host's real stub, and what is given."""

    def make(labels=None, **files):
        stub = File((STUBS / "linuxx64.efi.stub").read_bytes())
        # Debian 12 has no stub for addons; that for UKIs is one that starts nothing here either.
        stubs = {f"usr/lib/systemd/boot/efi/{kind}x64.efi.stub": stub for kind in ("linux", "addon")}
        return bootable.image(labels=labels, **{**stubs, **files})

    return make


@pytest.fixture
def source(base, tmp_path):
    """Return a function that writes such an image and gives its reference."""

    def write(**choices):
        return bootable.layout(tmp_path / "source", latest=base(**choices)) + ":latest"

    return write
