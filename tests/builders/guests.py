"""A guest that can be talked to: cfs and its Python in a Debian image, a shell on its second serial port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

from cfs_host.place import NAMES, UNITS, WANTED, packaged
from cfs_prove.machine import (
    DIES_WITH_US,
    Architecture,
    find_emulator,
    find_firmware,
)

CHECKOUT = Path(__file__).resolve().parents[2]
CFS = Path(sys.executable).with_name("cfs")
EPOCH = 1_750_000_000
PACKAGES = (
    "python3", "python3-click", "python3-pluggy", "python3-rich", "python3-structlog", "python3-zstandard",
    "python3-lz4", "python3-cryptography", "python3-xxhash", "python3-requests", "python3-jsonschema",
)  # fmt: skip
"""Debian's, with which cfs runs in the guest."""

AGENT = """[Unit]
Description=A shell on the second serial port
After=multi-user.target
[Service]
ExecStart=/bin/sh /usr/lib/cfs-test/agent
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
Restart=always
[Install]
WantedBy=multi-user.target
"""
AGENT_SCRIPT = r"""stty raw -echo
printf '<<READY %s>>\n' "$(cat /proc/cmdline)"
while IFS= read -r line; do
    (eval "$line") </dev/null
    printf '\n<<STATUS %d>>\n' $?
done
"""
DIST = "usr/lib/python3/dist-packages"


def cfs_files():
    """Yield (path in the image, bytes, mode) of cfs, its plugins and what makes them found."""
    packages = [CHECKOUT / "cfs_core", *(path.parent for path in CHECKOUT.glob("plugins/**/cfs_*/__init__.py"))]
    for package in packages:
        if package.parent.name == package.name:
            continue
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                yield f"{DIST}/{path.relative_to(package.parent)}", path.read_bytes(), mode
    for info in Path(sysconfig.get_paths()["purelib"]).glob("cfs_*.dist-info"):
        if info.name.startswith(("cfs_prove", "cfs_testkit")):
            continue
        for name in ("METADATA", "entry_points.txt"):
            if (info / name).is_file():
                yield f"{DIST}/{info.name}/{name}", (info / name).read_bytes(), 0o644
    libraries = Path(sysconfig.get_paths()["purelib"])  # Debian has no package of it; it is Python and nothing else
    for path in (libraries / "oras").rglob("*.py"):
        yield f"{DIST}/{path.relative_to(libraries)}", path.read_bytes(), 0o644
    script = b"#!/usr/bin/python3\nfrom cfs_core.cli.main import main\n\nmain()\n"
    yield "usr/bin/cfs", script, 0o755


def agent_files():
    """Yield the shell on the serial port."""
    units = "usr/lib/systemd/system"
    yield f"{units}/cfs-test-agent.service", AGENT.encode(), 0o644
    yield f"{units}/multi-user.target.d/agent.conf", b"[Unit]\nWants=cfs-test-agent.service\n", 0o644
    yield "usr/lib/cfs-test/agent", AGENT_SCRIPT.encode(), 0o644


def layer(path, files, links=()):
    """Write a layer: files are (path, bytes, mode), links (path, target)."""
    known = set()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name, kind, mode, data=b"", target=""):
            for above in reversed(Path(name).parents[:-1]):
                if above not in known:
                    known.add(above)
                    directory = tarfile.TarInfo(str(above))
                    directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, EPOCH
                    tar.addfile(directory)
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime, info.size, info.linkname = kind, mode, EPOCH, len(data), target
            import io

            tar.addfile(info, io.BytesIO(data))

        for name, data, mode in sorted(files):
            add(name, tarfile.REGTYPE, mode, data)
        for name, target in links:
            add(name, tarfile.SYMTYPE, 0o777, target=target)


def add_tag(images, base, tag, path):
    """Make *tag* of *base* and one more layer."""
    subprocess.run(["umoci", "tag", "--image", f"{images}:{base}", tag], check=True)
    subprocess.run(["umoci", "raw", "add-layer", "--image", f"{images}:{tag}", path], check=True)


def build_images(workspace):
    """Make an OCI directory with tags v1 and v2, and return it.

    v1 has cfs and a shell on the serial port in it, and early boot in its initramfs, so that it can be sealed; v2
    changes /etc, /usr and kernel arguments.
    """
    out = workspace / "debian-cfs"
    extra = [word for name in PACKAGES for word in ("--package", name)]
    subprocess.run([CHECKOUT / "demo/build-debian-image", out, "--uki", "--cfs", CFS, *extra], check=True, timeout=1800)
    units = [(f"{UNITS}/{name}", packaged(name), 0o644) for name in NAMES]
    links = [(f"{UNITS}/{folder}/{name}", f"../{name}") for name, folder in WANTED.items()]
    # Emulated, on a machine that is busy, five minutes may not be enough.
    patience = b"[Service]\nTimeoutStopSec=30min\n"
    units.append((f"{UNITS}/cfs-finalize-staged.service.d/patience.conf", patience, 0o644))
    first, second = workspace / "cfs.tar", workspace / "v2.tar"
    layer(first, [*cfs_files(), *agent_files(), *units], links)
    add_tag(out, "debian-early-boot", "v1", first)
    changes = [
        ("usr/lib/version", b"2\n", 0o644),
        ("etc/from-image", b"2\n", 0o644),
        ("usr/lib/bootc/kargs.d/50-v2.toml", b'kargs = ["second=yes"]\n', 0o644),
    ]
    layer(second, changes)
    add_tag(out, "v1", "v2", second)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def image_disk(path, images):
    """Make an ext4 disk with an OCI directory, as a USB stick has one."""
    size = sum(file.stat().st_size for file in images.rglob("*") if file.is_file()) + (64 << 20)
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(["mkfs.ext4", "-q", "-L", "images", "-d", images, path], check=True, env=environment)


class Guest:
    """A virtual machine that keeps what it writes, and whose second serial port is a shell.

    With *variables*, a file with keys enrolled, its firmware enforces Secure Boot.
    """

    def __init__(self, disk, folder, *, firmware="uefi", others=(), memory=1536, variables=None):
        self.disk, self.folder, self.others, self.firmware, self.memory = disk, folder, others, firmware, memory
        self.accelerator = "tcg"  # KVM may be there and not work; what is told here takes seconds either way
        folder.mkdir(exist_ok=True)
        self.console = folder / "console"
        self._process = None
        self._socket = None
        self._buffer = b""
        if firmware == "uefi":
            self._uefi = find_firmware(Architecture.AMD64, secure=variables is not None)
            shutil.copy(variables or self._uefi.variables, folder / "variables.fd")

    def start(self, seconds=1200):
        """Start it and wait for the shell."""
        self.launch()
        self._ready(seconds)

    def launch(self):
        """Start it, up to where its shell can be talked to as soon as it is there."""
        address = self.folder / "shell"
        address.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command(address), stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(address))
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.1)
        self._buffer = b""

    def _command(self, address):
        import os

        emulator = find_emulator(Architecture.AMD64)
        words = [
            sys.executable, "-I", "-S", "-c", DIES_WITH_US, str(os.getpid()), str(emulator.path),
            "-nodefaults", "-no-user-config", "-display", "none", "-name", "cfs-lifecycle", "-m", str(self.memory),
            "-smp", "2", "-accel", "kvm" if self.accelerator == "kvm" else "tcg,thread=multi,tb-size=512",
            "-cpu", "host" if self.accelerator == "kvm" else "max",
            "-machine", f"q35,sata=off,usb=off{',graphics=off' if self.firmware == 'bios' else ''}",
            "-drive", f"file={self.disk},format=raw,if=none,id=disk,cache=writeback",
            "-device", "virtio-blk-pci,drive=disk,bootindex=0",
            "-device", "virtio-rng-pci",
            "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
            "-chardev", f"socket,id=shell,path={address},server=on,wait=off", "-serial", "chardev:shell",
        ]  # fmt: skip
        for number, other in enumerate(self.others):
            words += ["-drive", f"file={other},format=raw,if=none,id=other{number},readonly=on"]
            words += ["-device", f"virtio-blk-pci,drive=other{number}"]
        if self.firmware == "uefi":
            words += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={self._uefi.code}"]
            words += ["-drive", f"if=pflash,format=raw,unit=1,file={self.folder / 'variables.fd'}"]
            if self._uefi.secure:
                words += ["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
        return words

    def _wait(self, mark, seconds):
        deadline = time.monotonic() + seconds
        while mark not in self._buffer:
            self._socket.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                data = b""
            if not data or time.monotonic() > deadline:
                tail = self.console.read_bytes()[-3000:].decode("utf-8", "replace") if self.console.exists() else ""
                msg = f"the guest said no {mark!r} in {seconds} s; {self._buffer[-500:]!r}\n{tail}"
                raise AssertionError(msg)
            self._buffer += data
        before, _, self._buffer = self._buffer.partition(mark)
        return before

    def sh(self, command, *, ok=(0,), seconds=1500):
        """Run a shell command in the guest; its output."""
        self._socket.sendall(command.replace("\n", "; ").encode() + b"\n")
        out = self._wait(b"\n<<STATUS ", seconds)
        status = int(self._wait(b">>\n", 10))
        text = out.decode("utf-8", "replace").replace("\r\n", "\n")
        assert status in ok, f"{command}: status {status}\n{text}"
        return text

    def _ready(self, seconds, image=""):
        """Wait for the shell of a system whose kernel command line names *image*, however often it restarts before."""
        deadline = time.monotonic() + seconds
        while True:
            self._wait(b"<<READY ", deadline - time.monotonic())
            if image in self._wait(b">>\n", 10).decode("utf-8", "replace"):
                return

    def reboot(self, seconds=1800, *, image=""):
        """Restart it in order and wait for the shell, of *image* if that is said."""
        self._socket.sendall(b"systemctl reboot\n")
        self._ready(seconds, image)

    def restarts(self, command, seconds=1800):
        """Run a command that ends this system, and wait for the shell of the next one."""
        self._socket.sendall(command.encode() + b"\n")
        self._ready(seconds)

    def power_off(self, seconds=1800):
        """Shut it down in order."""
        self._socket.sendall(b"systemctl poweroff\n")
        self._process.wait(seconds)
        self.stop()

    def stop(self):
        """Pull the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._socket is not None:
            self._socket.close()
        self._process = self._socket = None
