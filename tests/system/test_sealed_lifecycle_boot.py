"""A sealed machine whose firmware enforces Secure Boot: to the next sealed version and back, with its own addon."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from builders import guests

pytestmark = [pytest.mark.campaign, pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(5400)]

STICK = "/run/images"
EXCHANGE = "/run/exchange"


@pytest.fixture(scope="module")
def sealed_images(user, workspace, keys):
    """Tags sealed1 and sealed2; unsealed is v2 as it was, wrong is sealed for other files, foreign by a stranger."""
    missing = [tool for tool in ("mmdebstrap", "umoci", "mkfs.ext4", "openssl") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing; scripts/host-setup installs what VM tests need")
    built = guests.build_images(workspace)
    stranger = user.home / "stranger"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stranger"]
    files = ("-keyout", f"{stranger}.key", "-out", f"{stranger}.pem")
    subprocess.run([*argv, *files], check=True, capture_output=True)
    stranger.with_suffix(".key").chmod(0o644)
    own = ("--key", keys / "db.key", "--certificate", keys / "db.pem")
    out = user.home / "sealed-versions"
    for source, tag, signer in (
        ("v1", "sealed1", own),
        ("v2", "sealed2", own),
        ("v2", "foreign", ("--key", f"{stranger}.key", "--certificate", f"{stranger}.pem")),
    ):
        user.cfs(
            "seal", f"oci:{built}:{source}", f"oci:{out}:{tag}", *signer, "--sign-loader", "--karg", "console=ttyS0",
            "--name", "debian",
        )  # fmt: skip
    user.cfs("image", "copy", f"oci:{built}:v2", f"oci:{out}:unsealed")
    later = workspace / "later.tar"
    guests.layer(later, [("usr/lib/later", b"changed after it was sealed\n", 0o644)])
    guests.add_tag(out, "sealed2", "wrong", later)
    addon(user, keys, out)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def addon(user, keys, out):
    """Make an addon for one machine, signed by its owner, beside the images."""
    stubs = Path("/usr/lib/systemd/boot/efi")
    stub = next(each for kind in ("addon", "linux") if (each := stubs / f"{kind}x64.efi.stub").exists())
    made = user.home / "own.addon.efi"
    argv = ["ukify", "build", "--cmdline=of.this=machine", f"--stub={stub}", f"--output={made}"]
    argv += [f"--secureboot-private-key={keys / 'db.key'}", f"--secureboot-certificate={keys / 'db.pem'}"]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.copyfile(made, out / "own.addon.efi")


@pytest.fixture
def guest(user, sealed_images, keys, workspace, tmp_path):
    disk, stick = user.home / "sealed-lifecycle.img", workspace / "sealed-stick.img"
    user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{sealed_images}:sealed1",
        "--target-imgref", f"oci:{STICK}:sealed2", "--disk-size", "3G", "--yes", disk,
    )  # fmt: skip
    user.cfs("secureboot", "enroll", keys, guests.find_firmware(guests.Architecture.AMD64).variables, "lifecycle.fd")
    guests.image_disk(stick, sealed_images)
    made = guests.Guest(disk, tmp_path / "guest", others=[stick], variables=user.home / "lifecycle.fd")
    yield made
    made.stop()
    disk.unlink()


def plug_in(guest):
    guest.sh(f"mkdir -p {STICK} && mount -r LABEL=images {STICK}")


def booted(guest):
    found = json.loads(guest.sh("cfs --no-progress status --format json 2>/dev/null", ok=(0, 12)))
    assert found["cfs"]["problems"] == []
    return found["status"]["booted"]["composefs"]["verity"]


def assert_secure(guest, identity):
    variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    assert guest.sh(f"od -An -tu1 -j4 -N1 {variable}").strip() == "1"
    assert f"composefs={identity}" in guest.sh("cat /proc/cmdline").split()
    root = guest.sh("grep ' / / ' /proc/self/mountinfo")
    assert f"composefs:{identity} " in root
    assert "verity=require" in root


def test_a_sealed_machine_upgrades_and_goes_back(guest, user):
    guest.start()
    plug_in(guest)
    one = booted(guest)
    assert_secure(guest, one)
    for tag, code in (("wrong", "verification"), ("unsealed", "state.weaker"), ("foreign", "boot.untrusted")):
        said = guest.sh(f"cfs --no-progress switch oci:{STICK}:{tag} 2>&1", ok=range(1, 20))
        assert f"[{code}]" in said
    guest.sh(f"cfs kargs add --uki-addon {STICK}/own.addon.efi")
    staged = json.loads(guest.sh("cfs --no-progress upgrade --format json 2>/dev/null"))
    assert staged["result"] == "staged"
    guest.reboot()
    assert booted(guest) == staged["image_id"] != one
    assert_secure(guest, staged["image_id"])
    assert guest.sh("cat /usr/lib/version").strip() == "2"
    listed = guest.sh("cfs kargs list")
    assert "of.this=machine  (addon own.addon.efi" in listed
    if "of.this=machine" in guest.sh("cat /proc/cmdline"):  # the stub of addons is in systemd 255 and later
        assert "from the next start" not in listed
    guest.sh("cfs kargs delete --uki-addon own && cfs rollback")
    guest.reboot()
    assert booted(guest) == one
    assert_secure(guest, one)
    assert "of.this=machine" in guest.sh("cfs kargs list"), "the addon belongs to the deployment"
    guest.sh("cfs gc; cfs fsck", seconds=3000)
    guest.power_off()
    user.cfs("repo", "fsck", "--disk", guest.disk)
