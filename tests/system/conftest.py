"""A real Debian image, disks installed from it by an ordinary user, and ways to damage copies of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from builders import secure_machine
from builders.kept import alone

from cfs_prove.proof import ProofOptions, prove

CHECKOUT = Path(__file__).resolve().parents[2]
CFS = Path(sys.executable).with_name("cfs")
TOOLS = ("qemu-system-x86_64", "mmdebstrap", "umoci", "debugfs", "mcopy")
ORDINARY = 65534
BOOT_SECONDS = 240
VERITY_FLAG = 0x100000


def pytest_collection_modifyitems(items):
    """Give what boots the time that emulation takes, and a second try where others took that time."""
    for item in items:
        if item.get_closest_marker("vm"):
            item.add_marker(
                pytest.mark.flaky(reason="an emulated boot has a time limit, and other work on the host takes its time")
            )
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def workspace():
    """A directory that an ordinary user can enter; pytest's own are for one user only."""
    with tempfile.TemporaryDirectory(prefix="cfs-system-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def demo_image(workspace):
    """The OCI directory that `make demo` makes, with tags debian and debian-uki."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing; scripts/host-setup installs what VM tests need")
    out = workspace / "debian"
    with alone("debian"):
        subprocess.run([CHECKOUT / "demo/build-debian-image", out, "--uki", "--cfs", CFS], check=True, timeout=800)
    return out


class OrdinaryUser:
    """Runs cfs without any privilege: as nobody where the tests run as root."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._drop = []
        if os.geteuid() == 0:
            os.chown(home, ORDINARY, ORDINARY)
            self._drop = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups", "--no-new-privs",
                          "--bounding-set=-all"]  # fmt: skip

    def cfs(self, *words, check=True):
        """Run cfs; its result, as text."""
        environment = {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
        }
        argv = [*self._drop, os.fspath(CFS), *map(os.fspath, words)]
        result = subprocess.run(
            argv, env=environment, cwd=self.home, capture_output=True, text=True, check=False, timeout=600
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result


@pytest.fixture(scope="session")
def user(workspace):
    """An ordinary user with a home of their own."""
    home = workspace / "home"
    home.mkdir()
    made = OrdinaryUser(home)
    if made.cfs("--version", check=False).returncode != 0:
        pytest.skip(f"an ordinary user cannot read {CHECKOUT} or {CFS}")
    return made


def _installed(user, demo_image, tag):
    disk = user.home / f"{tag}.img"
    result = user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{demo_image}:{tag}", "--composefs-native", "--yes",
        "--seed", tag, "--format", "json", disk,
    )  # fmt: skip
    return disk, json.loads(result.stdout)


@pytest.fixture(scope="session")
def bls_disk(user, demo_image):
    """A disk whose kernel is a boot entry, and what the installer said of it."""
    return _installed(user, demo_image, "debian")


@pytest.fixture(scope="session")
def uki_disk(user, demo_image):
    """A disk whose kernel is a UKI that names the image, and what the installer said of it."""
    return _installed(user, demo_image, "debian-uki")


class Machine:
    """Boots disks; what the first boot found out about KVM holds for the rest."""

    def __init__(self) -> None:
        self.accelerator = "auto"

    def boot(self, disk, **options):
        """Boot and return the report."""
        report = prove(
            disk, ProofOptions(accelerator=self.accelerator, timeout_seconds=BOOT_SECONDS, **options), progress=print
        )
        if report.failure is None or report.failure.kind.value != "qemu":
            self.accelerator = report.accelerator
        print(json.dumps(report.as_json(), indent=1, default=str))
        return report


@pytest.fixture(scope="session")
def machine():
    """The virtual machine."""
    return Machine()


class Damage:
    """Changes a copy of a disk where nothing but a hex editor would."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        table = json.loads(subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=True).stdout)
        partitions = {part["name"]: part["start"] * 512 for part in table["partitiontable"]["partitions"]}
        self.root = partitions["root"]
        self.esp = partitions["EFI-SYSTEM"]

    def debugfs(self, *commands):
        """Run debugfs commands on the root filesystem; their output."""
        script = "\n".join(commands) + "\n"
        result = subprocess.run(
            ["debugfs", "-w", "-f", "-", f"{self.disk}?offset={self.root}"],
            input=script, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return result.stdout

    def flip(self, path: str, at: int = 0) -> None:
        """Change one byte of a file's content."""
        said = self.debugfs(f'bmap "{path}" {at // 4096}')
        block = int(said.split()[-1])
        assert block, said
        with self.disk.open("r+b") as file:
            file.seek(self.root + block * 4096 + at % 4096)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x20]))

    def exchange_esp_file(self, path: str, change) -> None:
        """Replace an ESP file's content by *change* of it."""
        image = f"{self.disk}@@{self.esp}"
        old = subprocess.run(["mtype", "-i", image, f"::{path}"], capture_output=True, check=True).stdout
        fresh = self.disk.with_suffix(".esp-file")
        fresh.write_bytes(change(old))
        subprocess.run(["mcopy", "-o", "-i", image, fresh, f"::{path}"], check=True)
        fresh.unlink()

    def esp_names(self, path: str):
        """List a directory of the ESP."""
        image = f"{self.disk}@@{self.esp}"
        said = subprocess.run(["mdir", "-b", "-i", image, f"::{path}"], capture_output=True, text=True, check=True)
        return [line.strip().removeprefix("::/") for line in said.stdout.splitlines() if line.strip()]


@pytest.fixture(scope="session")
def damage():
    """What damages a disk."""
    return Damage


@pytest.fixture
def damaged(bls_disk, workspace):
    """A copy of the BLS disk to damage; gone after the test."""
    copy = workspace / "damaged.img"
    subprocess.run(["cp", "--sparse=always", bls_disk[0], copy], check=True)
    yield Damage(copy)
    copy.unlink()


@pytest.fixture(scope="session")
def secure_boot_tools(workspace):
    """What seals images and enrols keys, where an ordinary user finds it."""
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


@pytest.fixture(scope="session")
def keys(user, secure_boot_tools):
    """PK, KEK and db for tests."""
    user.cfs("secureboot", "keys", "keys", "--name", "test")
    return user.home / "keys"


@pytest.fixture(scope="session")
def variables(user, keys):
    """OVMF's variables with the keys enrolled."""
    user.cfs("secureboot", "enroll", keys, secure_machine.VARIABLES, "enrolled.fd")
    return user.home / "enrolled.fd"
