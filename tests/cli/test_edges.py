"""The command line where the host or the person is at fault: what is said, with which status, and never too much."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders.distributions import Site

COMMAND = [sys.executable, "-m", "cfs_core"]


@pytest.fixture
def here(tmp_path):
    """A folder with a tree in it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("hello")
    (tmp_path / "file").write_text("not a directory")
    return tmp_path


def cfs(*args, cwd=None, env=None, **options):
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        **({"stdout": subprocess.PIPE} | options),
    )


FAULTS = {  # name: (arguments, environment, exit status, parts of what is said)
    "no TMPDIR": (("image", "digest", "oci:tree"), {"TMPDIR": "{here}/none"}, 14, ["{here}/none", "[host]", "TMPDIR"]),
    "no cache for init": (("repo", "init"), {"XDG_CACHE_HOME": "{here}/file"}, 14, ["{here}/file", "--repo"]),
    "no directory for an image": (
        ("image", "erofs", "dir:tree", "{here}/none/x"),
        {},
        2,
        ["there is no directory {here}/none", "hint:"],
    ),
    "an image's name too long": (
        ("image", "erofs", "dir:tree", "x" * 300),
        {},
        14,
        ["File name too long", "choose a shorter name"],
    ),
    "a repository's empty name": (("image", "list", "--repo", ""), {}, 2, ["'--repo'", "the name is empty"]),
    "a disk's empty name": (("install", "to-disk", "--source-imgref", "oci:x", ""), {}, 2, ["the name is empty"]),
    "a disk's name too long": (
        ("install", "to-disk", "--source-imgref", "oci:x", "x" * 300),
        {},
        5,
        ["File name too long", "another name"],
    ),
    "a descriptor that is not open": (("--progress-fd", "99", "image", "list"), {}, 2, ["--progress-fd 99", "hint:"]),
    "the install's own": (
        ("install", "to-disk", "--source-imgref", "oci:x", "--progress-fd", "99", "disk"),
        {},
        2,
        ["--progress-fd 99"],
    ),
    "a descriptor for reading": (("--progress-fd", "0", "image", "list"), {}, 2, ["--progress-fd 0"]),
    "a plugin that is not there": (
        ("--disable-plugin", "prov", "config", "show"),
        {},
        2,
        ["--disable-plugin prov", "no such plugin", "did you mean prove"],
    ),
    "an unknown log level in the environment": (
        ("image", "list", "--repo", "none"),
        {"CFS_LOG": "loud"},
        9,
        ["CFS_LOG is 'loud'", "there is no repository"],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_host_and_person_are_said_as_what_they_are(case, here):
    arguments, environ, status, parts = FAULTS[case]
    with (here / "file").open() as file:
        done = cfs(
            *(text.format(here=here) for text in arguments),
            cwd=here,
            env={name: value.format(here=here) for name, value in environ.items()},
            stdin=file,
        )
    assert done.returncode == status, done.stderr
    for part in parts:
        assert part.format(here=here) in done.stderr
    assert "fault of cfs" not in done.stderr
    assert "report it" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("argument", ["--disable-plugin", "--config"])
def test_options_of_the_run_hold_for_the_commands_of_plugins(argument, here):
    (here / "cfs.toml").write_text('[plugins]\ndisabled = ["prove"]\n')
    value = {"--disable-plugin": "prove", "--config": here / "cfs.toml"}[argument]
    done = cfs(argument, value, "prove", "none.img", cwd=here)
    assert done.returncode == 2
    assert "No such command 'prove'" in done.stderr
    assert "prove" not in cfs(argument, value, "--help").stdout
    assert "cannot read none.img" in cfs("prove", "none.img", cwd=here).stderr


def test_a_plugin_is_switched_off_by_the_name_of_its_distribution_too(here):
    assert cfs("--disable-plugin", "cfs-prove", "prove", "none.img", cwd=here).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command", [("image", "dump", "dir:tree"), ("image", "digest", "dir:tree"), ("plugins", "list")]
)
def test_a_result_that_cannot_be_written_is_an_error_of_the_host(command, here):
    with Path("/dev/full").open("w") as full:
        done = cfs(*command, cwd=here, stdout=full)
    assert done.returncode == 14
    assert done.stderr.count("standard output cannot be written: No space left on device [host]") == 1
    assert "Exception ignored" not in done.stderr
    assert "plugin" not in done.stderr


def test_a_closed_standard_output_is_an_error_of_the_host(here):
    done = cfs("image", "digest", "dir:tree", cwd=here, preexec_fn=lambda: os.close(1))
    assert done.returncode == 14
    assert "standard output is closed" in done.stderr


def test_a_reader_that_goes_away_ends_the_run_quietly(here):
    for number in range(3000):  # more than a pipe holds
        (here / "tree" / f"{number:0100}").touch()
    process = subprocess.Popen(
        [*COMMAND, "image", "dump", "dir:tree"], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline().startswith(b"/ ")
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


NOISY = """
from cfs_core.plugin import *
CFS_PLUGIN_API = (2, 0)

class Noisy(StorageFormat):
    def scan(self, path, options):
        return Directory(0o755)
    def write_image(self, root, out, options):
        print("noise of a plugin")
        return "5ab4" * 16
    def write_dump(self, root, out, options):
        print("noise of a plugin")
        out.write(b"the dump\\n")
    def open(self, path, *, create=False, options=None):
        {fault}

Noisy.__abstractmethods__ = frozenset()

@hookimpl
def cfs_register_storage_formats():
    return [StorageProvider(name="composefs", summary="s", factory=lambda context: Noisy())]
"""


def noisy(folder, fault="pass"):
    source = NOISY.replace("{fault}", fault)
    return Site(folder / "site").install("cfs-noisy", "1.0", {"noisy": "noisy_plugin"}, {"noisy_plugin.py": source})


def test_what_a_method_of_a_plugin_prints_does_not_reach_the_results(here):
    site = noisy(here)
    done = site.cfs("image", "digest", f"dir:{here}/tree")
    assert done.stdout == "5ab4" * 16 + "\n", done.stderr
    assert "noise of a plugin" in done.stderr
    done = site.cfs("image", "dump", f"dir:{here}/tree")
    assert done.stdout == "the dump\n"
    assert "noise of a plugin" in done.stderr


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("raise OSError(28, 'No space left on device')", 14, "error: No space left on device [host]"),
        ("raise PermissionError(13, 'Permission denied', '/some/where')", 14, "/some/where: Permission denied [host]"),
        ("raise PermissionError('you may not')", 4, "the plugin noisy (cfs-noisy 1.0) failed: PermissionError"),
        ("raise BrokenPipeError(32, 'Broken pipe')", 4, "the plugin noisy (cfs-noisy 1.0) failed: BrokenPipeError"),
        ("raise ValueError('x')", 4, "report it to the authors of cfs-noisy"),
    ],
)
def test_a_fault_of_the_host_is_not_blamed_on_the_plugin_that_met_it(here, fault, status, said):
    done = noisy(here, fault).cfs("repo", "init", "--repo", str(here / "repo"))
    assert done.returncode == status, done.stderr
    assert said in done.stderr


def test_nouns_agree_with_their_numbers():
    from cfs_core.report.progress import counted

    assert [counted(number, "object") for number in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]
    assert counted(1, "entry", "entries") == "1 entry"
    assert counted(3, "entry", "entries") == "3 entries"
