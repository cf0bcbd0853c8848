"""What `cfs status` does without: a machine asks for it at every login, and modules are most of the time it takes."""

import re
import subprocess
import sys

COMMAND = [sys.executable, "-X", "importtime", "-m", "cfs_core"]
NEEDLESS = re.compile(
    r"cfs_core\.(archive|deploy\.(bootable|choose|prepare)|examine|install|sealing)\b|cfs_(storage|transport|disk)_?"
    r"|cfs_core\.image\.(?!boot_files$|kernel$|pe$|reader$|uki_files$)"
)
"""What reads images, disks and repositories; of images the programs, which a menu may hold."""


def loaded(*argv):
    """Return the modules that a run of cfs loads."""
    done = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in lines}


def test_status_of_a_machine_loads_nothing_that_reads_images_or_disks(machine):
    modules = loaded("status", "--root", str(machine.root))
    assert "cfs_systemd_boot.bootloader" in modules
    assert sorted(filter(NEEDLESS.match, modules)) == []


def test_help_and_version_load_no_verb(machine):
    for option in ("--version", "--help"):
        assert not [name for name in loaded(option) if re.match(r"cfs_core\.(lifecycle|install|examine|image)\b", name)]
