"""The reporting unit: its script really run, its report really read."""

from __future__ import annotations

import base64
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from cfs_prove.guest import NONCE, SCRIPT, ReportReader, make_nonce, parse_mountinfo, parse_report, smbios_strings

ID = "5ab4" * 32
SECRET = "0123456789abcdef0123456789abcdef"


def lines(*facts):
    return "".join(f"cfs-prove {SECRET} {fact}\r\n" for fact in facts).encode()


ROOT = f"29 1 0:27 / / ro,relatime shared:1 - overlay composefs:{ID} ro,lowerdir=/a::/b,metacopy=on,verity=require"


def test_a_report_is_read():
    data = b"noise\r\n" + lines(
        "begin", "uptime 14.5", "cmdline BOOT_IMAGE=/x root=a  b=c", f"root {ROOT}", "firmware uefi",
        "LoaderInfo systemd-boot 257", "state degraded", "failed a.service", "failed b.mount", "kernel-log-read yes",
        "kernel-log fs-verity: x", "uptime 15.0", "end",
    )  # fmt: skip
    report = parse_report(data, SECRET)
    assert (report.begun, report.complete, report.uptime, report.forged) == (True, True, 15.0, 0)
    assert report.root.image_id == ID
    assert report.root.verity_required
    assert report.loader == "systemd-boot 257"
    assert report.command_line == "BOOT_IMAGE=/x root=a  b=c"
    assert report.state == "degraded"
    assert report.failed_units == ["a.service", "b.mount"]
    assert report.kernel_log == ["fs-verity: x"]
    assert report.kernel_log_read


def test_half_a_line_is_not_taken_for_a_fact():
    assert not parse_report(lines("begin") + lines("end")[:-1], SECRET).complete
    assert parse_report(lines("begin") + lines("state running")[:-4], SECRET).state is None


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_report_may_come_in_pieces(size):
    data = lines("begin", f"root {ROOT}", "state running", "end")
    reader = ReportReader(SECRET)
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
    assert reader.report == parse_report(data, SECRET)
    assert reader.report.complete


@pytest.mark.parametrize("nonce", ["", "f" * 32, SECRET[:-1], SECRET + "0", NONCE])
def test_lines_without_this_runs_secret_are_no_report(nonce):
    words = ("begin", f"root {ROOT}", "state running", "end")
    report = parse_report("".join(f"cfs-prove {nonce} {word}\n" for word in words).encode(), SECRET)
    assert (report.begun, report.complete, report.state, report.root) == (False, False, None, None)
    assert report.forged == 4


def test_every_run_has_a_secret_of_its_own():
    assert len({make_nonce() for _ in range(100)}) == 100


def test_what_comes_after_the_end_changes_nothing():
    report = parse_report(lines("begin", "state degraded", "end", "state running"), SECRET)
    assert report.state == "degraded"


def test_a_report_without_end_keeps_little():
    data = lines(*(f"failed {'u' * 4000}-{n}.service" for n in range(200)), *(f"kernel-log {n}" for n in range(200)))
    report = parse_report(data, SECRET)
    assert len(report.failed_units) == 20
    assert len(report.kernel_log) == 40
    assert max(map(len, report.failed_units)) <= 300


@pytest.mark.parametrize(
    ("line", "image_id", "verity"),
    [
        (ROOT, ID, True),
        (f"29 1 0:27 / / rw - overlay transient:composefs={ID} rw,verity=require", ID, True),
        (f"29 1 0:27 / / ro - overlay composefs:{ID} ro,metacopy=on", ID, False),
        (f"29 1 0:27 / / ro - overlay composefs:{ID} ro,verity=required", ID, False),
        (f"29 1 0:27 / / ro - ext4 composefs:{ID} ro,verity=require", None, True),
        ("29 1 8:1 / / rw - ext4 /dev/vda2 rw", None, False),
        (f"29 1 0:27 / / ro - overlay composefs:{ID}0 ro,verity=require", None, True),
    ],
)
def test_the_root_mount_is_judged_by_type_source_and_options(line, image_id, verity):
    facts = parse_mountinfo(line)
    assert (facts.image_id, facts.verity_required) == (image_id, verity)


@pytest.mark.parametrize("line", ["", "nonsense", " - ", "1 2 3 - overlay"])
def test_what_is_no_mountinfo_is_none(line):
    assert parse_mountinfo(line) is None


def test_hostile_bytes_are_only_text():
    facts = (b"uptime nan", b"root \xff\xfe", b"os \x1b[2J\x07evil", b"state \x00")
    data = b"".join(b"cfs-prove " + SECRET.encode() + b" " + fact + b"\n" for fact in facts)
    report = parse_report(data + os.urandom(10_000), SECRET)
    assert report.uptime is None
    assert report.root is None
    assert report.os_name == "?[2J?evil"
    assert report.state == "?"


def test_credentials_carry_unit_drop_in_and_script():
    names = {}
    for text in smbios_strings(SECRET):
        kind, _, rest = text.partition(":")
        name, _, value = rest.partition("=")
        assert kind == "io.systemd.credential.binary"
        names[name] = base64.b64decode(value).decode()
    assert names["cfs.prove.script"] == SCRIPT.replace(NONCE, SECRET)
    assert "ExecStart=/bin/sh %d/cfs.prove.script" in names["systemd.extra-unit.cfs-prove.service"]
    assert "," not in "".join(smbios_strings(SECRET))


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox"])
def test_the_script_reports_this_machine(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\ncase $1 in\nis-system-running) echo degraded; exit 1 ;;\n"
        "list-units) echo bad.service loaded failed ;;\nesac\n"
    )
    systemctl.chmod(0o755)
    leader, follower = pty.openpty()
    os.write(follower, b"\x1b[2J\x1b[01;01H")  # firmware clears the screen here, too, and ends no line
    script = tmp_path / "script"
    script.write_text(SCRIPT.replace("/dev/ttyS1", os.ttyname(follower)).replace(NONCE, SECRET))
    argv = [shell, "sh", script] if shell == "busybox" else [shell, script]
    result = subprocess.run(
        argv, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, timeout=30, check=False
    )
    os.close(follower)
    data = b""
    while True:
        try:
            data += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    report = parse_report(data, SECRET)
    assert report.begun
    assert report.complete, (result, data)
    assert report.state == "degraded"
    assert report.failed_units == ["bad.service"]
    assert report.kernel == os.uname().release
    assert report.command_line == Path("/proc/cmdline").read_text().rstrip("\n")
    assert report.root is not None
    assert report.uptime > 0
