"""A sealed image under firmware that enforces Secure Boot: it starts, and nothing that was touched does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from builders import secure_machine

from cfs_core.system.command import HostCommands
from cfs_seal.pe_signatures import attach, mapped
from cfs_seal.signing import load_signers, sign_file

pytestmark = [pytest.mark.campaign, pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1200)]

REFUSED = ("Access denied", "Security Violation", "Security violation", "Access Denied")


@pytest.fixture(scope="module")
def machine_files(workspace):
    why = secure_machine.missing()
    if why:
        pytest.skip(why)
    pytest.importorskip("virt.firmware", reason="virt-firmware is not installed")
    if shutil.which("ukify"):
        yield
        return
    beside = Path(os.environ.get("CFS_JUDGES", "/nowhere")).parent / "ukify/usr/bin/ukify"
    if not beside.is_file():
        pytest.skip("ukify is not installed; scripts/test-setup puts it beside the judges")
    # The ordinary user cannot walk to where the judges are; Debian's Python has what ukify needs.
    place = workspace / "bin"
    place.mkdir()
    shutil.copyfile(beside, place / "ukify.py")
    (place / "ukify").write_text(f'#!/bin/sh\nexec /usr/bin/python3 {place}/ukify.py "$@"\n')
    (place / "ukify").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def keys(user, machine_files):
    user.cfs("secureboot", "keys", "keys", "--name", "test")
    return user.home / "keys"


@pytest.fixture(scope="module")
def variables(user, keys):
    """OVMF's variables with the keys enrolled."""
    user.cfs("secureboot", "enroll", keys, secure_machine.VARIABLES, "enrolled.fd")
    return user.home / "enrolled.fd"


@pytest.fixture(scope="module")
def sealed(user, demo_image, keys):
    """The demo's image, sealed by an ordinary user with one command, and its identity."""
    made = user.cfs(
        "seal", f"oci:{demo_image}:debian-early-boot", "oci:sealed:debian", "--sign-loader", "--key", keys / "db.key",
        "--certificate", keys / "db.pem", "--karg", "console=ttyS0", "--name", "debian",
    )  # fmt: skip
    digest = next(line.split()[1] for line in made.stdout.splitlines() if line.startswith("digest"))
    return f"oci:{user.home}/sealed:debian", digest


@pytest.fixture(scope="module")
def disk(user, sealed, keys):
    path = user.home / "sealed.img"
    user.cfs("install", "to-disk", "--source-imgref", sealed[0], "--yes", "--secure-boot-enroll", keys, path)
    return path


@pytest.fixture
def touched(disk, workspace, damage):
    copy = workspace / "touched.img"
    subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
    yield damage(copy)
    copy.unlink()


def assert_verified(seen, digest):
    assert seen.up, seen.console[-3000:]
    assert (seen.facts["SecureBoot"], seen.facts["SetupMode"]) == ("1", "0")
    assert f"overlay composefs:{digest} " in seen.facts["root"]
    assert "verity=require" in seen.facts["root"]
    assert f"composefs={digest}" in seen.facts["cmdline"]


def test_it_starts_with_secure_boot_on_and_its_root_verified(disk, sealed, variables, tmp_path):
    assert_verified(secure_machine.boot(disk, variables, tmp_path), sealed[1])


def test_systemd_boot_enrols_the_keys_and_the_next_start_is_secure(disk, sealed, tmp_path):
    own = tmp_path / "setup.fd"
    shutil.copyfile(secure_machine.VARIABLES, own)
    first = secure_machine.boot(disk, own, tmp_path, keep_variables=True)
    assert not first.up, "it resets after keys were enrolled"
    assert_verified(secure_machine.boot(disk, own, tmp_path), sealed[1])


def uki_on(disk):
    return next(name for name in disk.esp_names("EFI/Linux/bootc") if name.endswith(".efi"))


def rewritten(tmp_path, change):
    """Return a change of an ESP file that works on files."""

    def apply(old):
        before, after = tmp_path / "before.efi", tmp_path / "after.efi"
        before.write_bytes(old)
        change(before, after)
        return after.read_bytes()

    return apply


def without_signature(before, after):
    with mapped(before) as data, after.open("wb") as file:
        attach(data, (), file)


def by_a_stranger(folder):
    def change(before, after):
        files = ("-keyout", folder / "other.key", "-out", folder / "other.pem")
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stranger", *files]
        subprocess.run(argv, check=True, capture_output=True)
        plain = folder / "plain.efi"
        without_signature(before, plain)
        sign_file(plain, load_signers([str(folder / "other.key")], [folder / "other.pem"]), HostCommands({}), after)

    return change


@pytest.mark.parametrize("what", ["unsigned", "signed by a stranger", "one byte of its command line changed"])
def test_a_uki_that_was_touched_is_not_started(what, touched, variables, tmp_path):
    name = uki_on(touched)
    if what == "one byte of its command line changed":
        touched.exchange_esp_file(name, lambda old: old.replace(b"rw console=ttyS0", b"rw console=ttyS1", 1))
    elif what == "unsigned":
        touched.exchange_esp_file(name, rewritten(tmp_path, without_signature))
    else:
        touched.exchange_esp_file(name, rewritten(tmp_path, by_a_stranger(tmp_path)))
    seen = secure_machine.boot(touched.disk, variables, tmp_path, until=REFUSED, seconds=200)
    assert not seen.up
    assert any(text in seen.console for text in REFUSED), seen.console[-3000:]
    assert "Linux version" not in seen.console
