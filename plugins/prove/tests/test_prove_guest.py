"""The reporting unit: its script really run, its report really read."""

from __future__ import annotations

import base64
import os
import pty
import shutil
import subprocess

import pytest

from cfs_prove.guest import SCRIPT, parse_mountinfo, parse_report, smbios_strings

ID = "5ab4" * 32
ROOT = f"29 1 0:27 / / ro,relatime shared:1 - overlay composefs:{ID} ro,lowerdir=/a::/b,metacopy=on,verity=require"


def test_a_report_is_read():
    report = parse_report(
        f"noise\r\ncfs-prove begin\r\ncfs-prove uptime 14.5\r\ncfs-prove root {ROOT}\r\ncfs-prove firmware uefi\r\n"
        "cfs-prove LoaderInfo systemd-boot 257\r\ncfs-prove state degraded\r\ncfs-prove failed a.service\r\n"
        "cfs-prove failed b.mount\r\ncfs-prove kernel-log fs-verity: x\r\n"
        "cfs-prove uptime 15.0\r\ncfs-prove end\r\n".encode()
    )
    assert (report.begun, report.complete, report.uptime) == (True, True, 15.0)
    assert report.root.image_id == ID
    assert report.root.verity_required
    assert report.loader == "systemd-boot 257"
    assert report.state == "degraded"
    assert report.failed_units == ["a.service", "b.mount"]
    assert report.kernel_log == ["fs-verity: x"]


def test_half_a_line_is_not_taken_for_a_fact():
    assert not parse_report(b"cfs-prove begin\ncfs-prove end").complete
    assert parse_report(b"cfs-prove begin\ncfs-prove state run").state is None


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
    report = parse_report(b"cfs-prove uptime nan\ncfs-prove root \xff\xfe\ncfs-prove state \x00\n" + os.urandom(10_000))
    assert report.uptime is None
    assert report.root is None


def test_credentials_carry_unit_drop_in_and_script():
    names = {}
    for text in smbios_strings():
        kind, _, rest = text.partition(":")
        name, _, value = rest.partition("=")
        assert kind == "io.systemd.credential.binary"
        names[name] = base64.b64decode(value).decode()
    assert names["cfs.prove.script"] == SCRIPT
    assert "ExecStart=/bin/sh %d/cfs.prove.script" in names["systemd.extra-unit.cfs-prove.service"]
    assert "," not in "".join(smbios_strings())


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
    script = tmp_path / "script"
    script.write_text(SCRIPT.replace("/dev/ttyS1", os.ttyname(follower)))
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
    report = parse_report(data)
    assert report.complete, (result, data)
    assert report.state == "degraded"
    assert report.failed_units == ["bad.service"]
    assert report.kernel == os.uname().release
    assert report.root is not None
    assert report.uptime > 0
