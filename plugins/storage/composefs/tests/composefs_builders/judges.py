"""Other implementations to compare with: mkcomposefs (C), cfsctl and composefs-setup-root (composefs-rs), if installed.

They are looked for in the directory CFS_JUDGES, then on PATH. `tests/install-judges DIRECTORY` installs them.
"""

import os
import shutil
import subprocess

import pytest

TIMEOUT_SECONDS = 300


def find(name):
    """Return the path of judge *name*, None if it is not installed."""
    places = [os.environ.get("CFS_JUDGES", ""), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(place for place in places if place))


MKCOMPOSEFS = find("mkcomposefs")
CFSCTL = find("cfsctl")
SETUP_ROOT = find("composefs-setup-root")

needs_mkcomposefs = [
    pytest.mark.judge,
    pytest.mark.skipif(MKCOMPOSEFS is None, reason="mkcomposefs is not installed (see tests/install-judges)"),
]
needs_cfsctl = [
    pytest.mark.judge,
    pytest.mark.skipif(CFSCTL is None, reason="cfsctl is not installed (see tests/install-judges)"),
]


def run(argv, stdin=b""):
    """Run a judge and return its output."""
    return subprocess.run(argv, input=stdin, check=True, capture_output=True, timeout=TIMEOUT_SECONDS).stdout


def mkcomposefs_digest(dump, version=None):
    """Return the fs-verity SHA-256 digest, in hex, of C's image of a dump file; version None: its own choice."""
    options = [] if version is None else [f"--min-version={version}", f"--max-version={version}"]
    return run([MKCOMPOSEFS, *options, "--from-file", "--print-digest-only", "-"], dump).decode().strip()


def mkcomposefs_image(dump, out, version=None):
    """Write the image that C makes of a dump file."""
    options = [] if version is None else [f"--min-version={version}", f"--max-version={version}"]
    run([MKCOMPOSEFS, *options, "--from-file", "-", os.fspath(out)], dump)


def cfsctl_id(directory, version, algorithm, *options):
    """Return the id, in hex, that composefs-rs computes for a directory."""
    argv = [
        CFSCTL,
        "--no-repo",
        "--hash",
        algorithm,
        "--erofs-version",
        str(version),
        "compute-id",
        *options,
        directory,
    ]
    return run(argv).decode().split()[-1].rpartition(":")[2]


def cfsctl_dump(directory, algorithm, *options):
    """Return the dump file that composefs-rs makes of a directory."""
    return run([CFSCTL, "--no-repo", "--hash", algorithm, "create-dumpfile", *options, directory])
