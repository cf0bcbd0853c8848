"""The reporting unit that is handed to the guest, and what it reports.

systemd (256 and later) takes units from system credentials, and these from SMBIOS strings
(systemd.system-credentials(7), systemd-debug-generator(8)): the disk needs nothing of ours on it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from cfs_prove.report import RootFacts

PORT = "cfs.prove"
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

SCRIPT = f"""\
for port in /dev/virtio-ports/{PORT} /dev/ttyS1; do
    [ -c "$port" ] && break
done
exec >"$port"
say() {{ printf 'cfs-prove %s\\n' "$*"; }}
say begin
read -r up rest </proc/uptime
say uptime "$up"
say kernel "$(uname -r)"
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
else
    say firmware bios
fi
say state "$(systemctl is-system-running --wait)"
systemctl list-units --state=failed --plain --no-legend --no-pager | while read -r unit rest; do
    say failed "$unit"
done
dmesg | grep -E 'fs-verity|overlayfs: |erofs: ' | tail -n 20 | while IFS= read -r line; do
    say kernel-log "$line"
done
read -r up rest </proc/uptime
say uptime "$up"
say end
"""


def smbios_strings() -> tuple[str, ...]:
    """Return the SMBIOS type 11 strings that make systemd run the reporting unit."""
    credentials = {
        "systemd.extra-unit.cfs-prove.service": UNIT,
        "systemd.unit-dropin.multi-user.target~cfs-prove": DROP_IN,
        SCRIPT_CREDENTIAL: SCRIPT,
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
    uptime: float | None = None
    root: RootFacts | None = None
    firmware: str | None = None
    state: str | None = None
    os_name: str | None = None
    kernel: str | None = None
    loader: str | None = None
    stub: str | None = None
    failed_units: list[str] = field(default_factory=list)
    kernel_log: list[str] = field(default_factory=list)


def parse_report(data: bytes) -> GuestReport:
    """Read what the unit wrote; complete lines only, unknown ones are skipped."""
    report = GuestReport()
    text = data.decode("utf-8", "replace").replace("\r", "")
    for line in text[: text.rfind("\n") + 1].splitlines():
        if line.startswith("cfs-prove "):
            key, _, value = line.removeprefix("cfs-prove ").partition(" ")
            _note(report, key, value.strip())
    return report


def _note(report: GuestReport, key: str, value: str) -> None:  # noqa: C901 - one line per fact
    match key:
        case "begin":
            report.begun = True
        case "end":
            report.complete = True
        case "uptime" if re.fullmatch(r"\d+(\.\d+)?", value):
            report.uptime = float(value)
        case "root":
            report.root = parse_mountinfo(value) or report.root
        case "firmware":
            report.firmware = value
        case "state":
            report.state = value or None
        case "os":
            report.os_name = value or None
        case "kernel":
            report.kernel = value or None
        case "LoaderInfo":
            report.loader = value or None
        case "StubInfo":
            report.stub = value or None
        case "failed":
            report.failed_units.append(value)
        case "kernel-log":
            report.kernel_log.append(value)


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
