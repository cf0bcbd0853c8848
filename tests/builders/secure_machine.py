"""A virtual machine whose firmware enforces Secure Boot: OVMF with SMM, and variables with keys enrolled."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
QEMU = "qemu-system-x86_64"
SAYS = "secure-boot-test"
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

SCRIPT = f"""\
exec >/dev/ttyS1
v=/sys/firmware/efi/efivars
echo "{SAYS} SecureBoot $(od -An -tu1 -j4 -N1 $v/SecureBoot-{GLOBAL})"
echo "{SAYS} SetupMode $(od -An -tu1 -j4 -N1 $v/SetupMode-{GLOBAL})"
grep ' / / ' /proc/self/mountinfo | sed 's/^/{SAYS} root /'
cat /proc/cmdline | sed 's/^/{SAYS} cmdline /'
cat @READS@ 2>&1 >/dev/null | sed 's/^/{SAYS} read /'
echo "{SAYS} end"
"""
UNIT = """\
[Unit]
ConditionPathExists=!/etc/initrd-release

[Service]
Type=exec
LoadCredential=test.script
ExecStart=/bin/sh %d/test.script
"""
DROP_IN = "[Unit]\nWants=secure-boot-test.service\n"


@dataclass(frozen=True)
class Seen:
    """What the machine said: facts of the system that came up (empty if none did), and its console."""

    facts: dict[str, str]
    console: str

    @property
    def up(self):
        """Whether a system came up."""
        return "end" in self.facts


def missing():
    """Return what keeps such a machine from being made, None if nothing does."""
    for path in (CODE, VARIABLES):
        if not path.is_file():
            return f"{path} is not installed (Debian: ovmf)"
    return None if shutil.which(QEMU) else f"{QEMU} is not installed"


def boot(disk, variables, work, *, until=(), seconds=300, keep_variables=False, reads="/etc/os-release"):
    """Boot *disk* until it reports, its console says one of *until*, or the time is over; neither file is changed.

    The file *reads* is read in the machine: what that says of errors is the fact ``read``. *keep_variables* writes what
    the firmware changed back to *variables*. Emulated, not with KVM: in virtual machines that are machines of others,
    system management mode stops where it likes.
    """
    console, report, own = work / "console", work / "report", work / "vars.fd"
    for path in (console, report):
        path.write_bytes(b"")
    shutil.copyfile(variables, own)
    words = [
        QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "1024", "-smp", "2",
        "-machine", "q35,smm=on,sata=off,usb=off", "-global", "driver=cfi.pflash01,property=secure,value=on",
        "-accel", "tcg,thread=multi", "-cpu", "max",
        "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={CODE}",
        "-drive", f"if=pflash,format=raw,unit=1,file={own}",
        "-drive", f"file={disk},format=raw,if=none,id=disk,snapshot=on",
        "-device", "virtio-blk-pci,drive=disk,bootindex=0", "-device", "virtio-rng-pci",
        "-serial", f"file:{console}", "-serial", f"file:{report}",
    ]  # fmt: skip
    credentials = {
        "systemd.extra-unit.secure-boot-test.service": UNIT,
        "systemd.unit-dropin.multi-user.target~secure-boot-test": DROP_IN,
        "test.script": SCRIPT.replace("@READS@", reads),
    }
    for name, text in credentials.items():
        value = base64.b64encode(text.encode()).decode()
        words += ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={value}"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait(process, console, report, until, seconds)
        ended = process.poll()
    finally:
        process.kill()
        _, errors = process.communicate()
    assert ended in (None, 0), errors
    if keep_variables:
        shutil.copyfile(own, variables)
    facts = {}
    for line in report.read_text(errors="replace").splitlines():
        if line.startswith(f"{SAYS} "):
            key, _, value = line.removeprefix(f"{SAYS} ").partition(" ")
            facts[key] = value.strip()
    return Seen(facts, console.read_text(errors="replace"))


def _wait(process, console, report, until, seconds):
    """Wait for the report, one of the texts, the end of the machine or of the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        said = console.read_text(errors="replace")
        if f"{SAYS} end" in report.read_text(errors="replace") or any(text in said for text in until):
            return
        time.sleep(0.5)
