"""A sealed image under firmware that enforces Secure Boot: it starts, and nothing that was touched does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from builders import secure_machine
from builders.seal_tools import ukify_version

from cfs_core.model.content import BytesContent, read_all
from cfs_core.sealing import read_pe
from cfs_core.system.command import HostCommands
from cfs_seal.pe_signatures import attach, mapped
from cfs_seal.signing import load_signers, sign_file

pytestmark = [pytest.mark.campaign, pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1200)]

REFUSED = ("Access denied", "Security Violation", "Security violation", "Access Denied")


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


# --- what is on the root filesystem, and what the menu says -----------------------------------------------------------


def objects(user, reference):
    """Yield path and object of each file of the image that has one."""
    for line in user.cfs("image", "dump", reference).stdout.splitlines():
        path, size, mode, *rest = line.split(" ")
        if mode.startswith("100") and int(size) > 4096:
            yield path, rest[7]


def test_an_object_that_was_changed_gives_an_error_when_it_is_read(touched, sealed, user, variables, tmp_path):
    path, digest = next(each for each in objects(user, sealed[0]) if each[0].startswith("/usr/share/"))
    touched.flip(f"/composefs/objects/{digest[:2]}/{digest[2:]}", at=100)
    seen = secure_machine.boot(touched.disk, variables, tmp_path, reads=path)
    assert_verified(seen, sealed[1])
    assert "Input/output error" in seen.facts["read"]


def test_another_erofs_image_in_its_place_is_refused_by_early_boot(touched, sealed, variables, tmp_path):
    identity = sealed[1]
    path = f"/composefs/objects/{identity[:2]}/{identity[2:]}"
    other = re.findall(r"[0-9a-f]{126}", touched.debugfs("ls -p /composefs/objects/00"))[0]
    touched.debugfs(f'unlink "{path}"', f'link "/composefs/objects/00/{other}" "{path}"')
    seen = secure_machine.boot(touched.disk, variables, tmp_path, until=("does not verify", "has the wrong"))
    assert not seen.up
    assert "Linux version" in seen.console, "the firmware starts what is signed"
    assert re.search("cfs-setup-root: .*(does not verify|wrong)", seen.console), seen.console[-3000:]


def entry_of(disk):
    (name,) = disk.esp_names("loader/entries")
    return name


def test_a_boot_entry_cannot_name_another_image_to_a_sealed_one(touched, sealed, variables, tmp_path):
    """The stub takes no command line but its own where Secure Boot is on (systemd-stub(7))."""
    touched.exchange_esp_file(entry_of(touched), lambda old: old + b"options rw composefs=" + b"ab" * 64 + b"\n")
    seen = secure_machine.boot(touched.disk, variables, tmp_path)
    assert_verified(seen, sealed[1])
    assert "abab" not in seen.facts["cmdline"]


def test_a_profile_starts_with_its_own_arguments(user, demo_image, keys, variables, damage, tmp_path):
    """An entry names it by its number (systemd-stub(7)); what is sealed with it was signed with all the rest."""
    if ukify_version() < 257:
        pytest.skip("profiles need ukify of systemd 257")
    made = user.cfs(
        "seal", f"oci:{demo_image}:debian-early-boot", "oci:profiles:debian", "--sign-loader", "--key", keys / "db.key",
        "--certificate", keys / "db.pem", "--karg", "console=ttyS0", "--name", "debian",
        "--profile", "other=of.this=profile",
    )  # fmt: skip
    digest = next(line.split()[1] for line in made.stdout.splitlines() if line.startswith("digest"))
    disk = user.home / "profiles.img"
    user.cfs("install", "to-disk", "--source-imgref", "oci:profiles:debian", "--yes", disk)
    seen = secure_machine.boot(disk, variables, tmp_path)
    assert_verified(seen, digest)
    assert "of.this" not in seen.facts["cmdline"]
    changed = damage(disk)
    changed.exchange_esp_file(entry_of(changed), lambda old: old + b"options @1\n")
    seen = secure_machine.boot(disk, variables, tmp_path)
    assert_verified(seen, digest)
    assert "of.this=profile" in seen.facts["cmdline"].split()
    disk.unlink()


def test_a_boot_entry_with_another_digest_and_the_kernel_itself_is_refused(touched, variables, tmp_path):
    kept = {}

    def keep(old):
        kept["uki"] = old
        return old

    touched.exchange_esp_file(uki_on(touched), keep)
    pe = read_pe(BytesContent(kept["uki"]))
    for name, section in (("vmlinuz", ".linux"), ("initrd", ".initrd")):
        (tmp_path / name).write_bytes(read_all(pe.section(section)))
        subprocess.run(["mcopy", "-i", f"{touched.disk}@@{touched.esp}", tmp_path / name, f"::{name}"], check=True)
    text = f"title x\nlinux /vmlinuz\ninitrd /initrd\noptions rw console=ttyS0 composefs={'ab' * 64}\n"
    touched.exchange_esp_file(entry_of(touched), lambda _old: text.encode())
    seen = secure_machine.boot(touched.disk, variables, tmp_path, until=REFUSED, seconds=200)
    assert not seen.up
    assert any(text in seen.console for text in REFUSED), seen.console[-3000:]
    assert "Linux version" not in seen.console


def test_cfs_prove_says_that_it_is_on_who_signed_and_what_was_measured(disk, user, variables):
    options = ("--variables", variables, "--accelerator", "tcg", "--timeout", "400", "--format", "json")
    found = json.loads(user.cfs("prove", disk, *options).stdout)
    assert found["proven"]
    assert (found["secure_boot"], found["setup_mode"]) == (True, False)
    assert found["signed_by"] == ["CN=test db"]
    if shutil.which("swtpm"):
        assert found["pcr11"]["as_predicted"] is True, found["pcr11"]
    else:
        assert found["pcr11"]["detail"] == "no TPM in this machine"
