"""The reporting unit that is handed to the guest, and what it reports.

systemd (256 and later) takes units from system credentials, and these from SMBIOS strings
(systemd.system-credentials(7), systemd-debug-generator(8)): the disk needs nothing of ours on it.
"""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass, field

from cfs_prove.report import RootFacts
from cfs_prove.text import visible

PORT = "cfs.prove"
MOST_LINES = 20
"""Failed units, and lines of the kernel's log, that are told."""

SCRIPT_CREDENTIAL = "cfs.prove.script"

UNIT = f"""\
[Unit]
Description=Report of cfs prove
ConditionPathExists=!/etc/initrd-release

[Service]
Type=exec
LoadCredential={SCRIPT_CREDENTIAL}
ExecStart=/bin/sh %d/{SCRIPT_CREDENTIAL}
StandardInput=null
StandardOutput=null
StandardError=null
"""

DROP_IN = """\
[Unit]
Wants=cfs-prove.service
"""

NONCE = "@NONCE@"
"""Where the run's secret stands in the script."""

SCRIPT = f"""\
for port in /dev/virtio-ports/{PORT} /dev/ttyS1; do
    [ -c "$port" ] && break
done
exec >"$port"
# Firmware writes to each serial port, and what draws a menu there leaves a line begun.
echo
say() {{ printf 'cfs-prove {NONCE} %s\\n' "$*"; }}
say begin
read -r up rest </proc/uptime
say uptime "$up"
say kernel "$(uname -r)"
IFS= read -r line </proc/cmdline
say cmdline "$line"
say os "$(. /etc/os-release; echo "$PRETTY_NAME")"
while read -r line; do
    case $line in
    *' / / '*) say root "$line" ;;
    esac
done </proc/self/mountinfo
if [ -d /sys/firmware/efi ]; then
    say firmware uefi
    for name in LoaderInfo StubInfo; do
        file=/sys/firmware/efi/efivars/$name-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
        [ -r "$file" ] && say "$name" "$(tr -cd '[:print:]' <"$file")"
    done
    for name in SecureBoot SetupMode; do
        file=/sys/firmware/efi/efivars/$name-8be4df61-93ca-11d2-aa0d-00e098032b8c
        [ -r "$file" ] && say "$name" "$(od -An -tu1 -j4 -N1 "$file")"
    done
else
    say firmware bios
fi
say state "$(systemctl is-system-running --wait)"
file=/sys/class/tpm/tpm0/pcr-sha256/11
[ -r "$file" ] && read -r line <"$file" && say pcr11 "$line"
systemctl list-units --state=failed --plain --no-legend --no-pager | head -n {MOST_LINES} | while read -r unit rest; do
    say failed "$unit"
done
dmesg >/dev/null && say kernel-log-read yes
dmesg | grep 'FILE CORRUPTED' | head -n {MOST_LINES} | while IFS= read -r line; do
    say kernel-log "$line"
done
dmesg | grep -E 'fs-verity|overlayfs: |erofs: ' | grep -v 'FILE CORRUPTED' | tail -n {MOST_LINES} |
    while IFS= read -r line; do
        say kernel-log "$line"
    done
read -r up rest </proc/uptime
say uptime "$up"
say end
"""


def make_nonce() -> str:
    """Return a secret for one run: only what was handed to this machine can give it back."""
    return secrets.token_hex(16)


def smbios_strings(nonce: str) -> tuple[str, ...]:
    """Return the SMBIOS type 11 strings that make systemd run the reporting unit, which puts *nonce* in every line."""
    credentials = {
        "systemd.extra-unit.cfs-prove.service": UNIT,
        "systemd.unit-dropin.multi-user.target~cfs-prove": DROP_IN,
        SCRIPT_CREDENTIAL: SCRIPT.replace(NONCE, nonce),
    }
    return tuple(
        f"io.systemd.credential.binary:{name}={base64.b64encode(text.encode()).decode()}"
        for name, text in credentials.items()
    )


@dataclass(slots=True)
class GuestReport:
    """What has been reported so far. ``uptime`` is the kernel's clock, in seconds, at the latest line that told."""

    begun: bool = False
    complete: bool = False
    forged: int = 0
    """Lines in the report's form without this run's secret."""

    uptime: float | None = None
    command_line: str | None = None
    kernel_log_read: bool = False
    root: RootFacts | None = None
    firmware: str | None = None
    state: str | None = None
    os_name: str | None = None
    kernel: str | None = None
    loader: str | None = None
    stub: str | None = None
    secure_boot: bool | None = None
    """What the firmware's variable says; None where there is none."""

    setup_mode: bool | None = None
    """Whether anybody may still enrol keys."""

    pcr11: str | None = None
    """PCR 11 of the TPM (SHA-256), in hex."""

    failed_units: list[str] = field(default_factory=list)
    kernel_log: list[str] = field(default_factory=list)


class ReportReader:
    """Reads what the unit writes while it is written: complete lines with this run's *nonce*; others are skipped."""

    def __init__(self, nonce: str) -> None:
        self.report = GuestReport()
        self._nonce = nonce
        self._begun = b""

    def feed(self, data: bytes) -> None:
        """Take in what was written next."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            mark, _, rest = line.decode("utf-8", "replace").replace("\r", "").partition(" ")
            nonce, _, fact = rest.partition(" ")
            if mark == "cfs-prove" and nonce == self._nonce:
                key, _, value = fact.partition(" ")
                if not self.report.complete:
                    _note(self.report, key, value.strip())
            elif mark == "cfs-prove":
                self.report.forged += 1


def parse_report(data: bytes, nonce: str) -> GuestReport:
    """Read what the unit wrote."""
    reader = ReportReader(nonce)
    reader.feed(data)
    return reader.report


_TEXTS = {
    "firmware": "firmware",
    "state": "state",
    "os": "os_name",
    "kernel": "kernel",
    "LoaderInfo": "loader",
    "StubInfo": "stub",
}
"""Facts that are a line of text, with the fields they go to."""


_BOOLEANS = {"SecureBoot": "secure_boot", "SetupMode": "setup_mode"}
"""Variables of the firmware that are 0 or 1 (UEFI 2.10, 3.3), with the fields they go to."""


def _note(report: GuestReport, key: str, value: str) -> None:
    if key in _TEXTS:
        setattr(report, _TEXTS[key], visible(value) or None)
        return
    _note_firmware(report, key, value)
    match key:
        case "begin":
            report.begun = True
        case "end":
            report.complete = True
        case "uptime" if re.fullmatch(r"\d+(\.\d+)?", value):
            report.uptime = float(value)
        case "cmdline":
            report.command_line = value
        case "kernel-log-read":
            report.kernel_log_read = value == "yes"
        case "root":
            report.root = parse_mountinfo(value) or report.root
        case "failed" if len(report.failed_units) < MOST_LINES:
            report.failed_units.append(visible(value))
        case "kernel-log" if len(report.kernel_log) < 2 * MOST_LINES:
            report.kernel_log.append(visible(value))


def _note_firmware(report: GuestReport, key: str, value: str) -> None:
    if key in _BOOLEANS and value in {"0", "1"}:
        setattr(report, _BOOLEANS[key], value == "1")
    if key == "pcr11" and re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        report.pcr11 = value.lower()


def parse_mountinfo(line: str) -> RootFacts | None:
    """Read one line of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)); None where it is not one."""
    before, separator, after = line.partition(" - ")
    fields = after.split(" ")
    if not separator or len(before.split(" ")) < 6 or len(fields) < 3:  # noqa: PLR2004 - the format's fixed fields
        return None
    filesystem, source, options = fields[0], fields[1], " ".join(fields[2:])
    image = re.fullmatch(r"(?:composefs:|transient:composefs=)([0-9a-f]{64}|[0-9a-f]{128})", source)
    return RootFacts(
        filesystem=filesystem,
        source=source,
        options=options,
        image_id=image.group(1) if image and filesystem == "overlay" else None,
        verity_required="verity=require" in options.split(","),
    )
