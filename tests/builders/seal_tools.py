"""Programs that sealing runs, where tests find them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path


def tools():
    """Return PATH with the directory of judges, which has ukify where no package has."""
    judges = os.environ.get("CFS_JUDGES")
    return os.pathsep.join(filter(None, (os.environ["PATH"], judges)))


def version_of(program):
    """Return the version of systemd that a program is of; 0 where it is not there."""
    if program is None:
        return 0
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\b(\d{3})\b", said)
    return int(found[1]) if found else 0


def ukify_version():
    """Return the version of ukify."""
    return version_of(shutil.which("ukify", path=tools()))


def measure():
    """Return a systemd-measure that knows each section of a UKI; None where there is none."""
    places = (shutil.which("systemd-measure", path=tools()), "/usr/lib/systemd/systemd-measure")
    return next((each for each in places if each and Path(each).exists() and version_of(each) >= 254), None)
