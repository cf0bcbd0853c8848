"""Real scripts in a directory for PATH, which record how they were called."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SCRIPT = """#!{python}
import json, os, subprocess, sys
with open({calls!r}, "a") as file:
    json.dump([{name!r}, *sys.argv[1:]], file)
    file.write("\\n")
sys.exit(subprocess.run(["/bin/sh", "-c", {body!r}, {name!r}, *sys.argv[1:]]).returncode)
"""


class Scripts:
    """Commands of a host, as short shell scripts. Put `environ` where the command runner looks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls = folder / ".calls"
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, body: str = "exit 0") -> Path:
        """Make a command *name* whose shell code is *body* (its arguments are ``"$@"``)."""
        path = self.folder / name
        text = _SCRIPT.format(python=sys.executable, calls=str(self._calls), name=name, body=body)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def failing(self, name: str, *, status: int = 1, says: str = "it failed") -> Path:
        """Make a command that fails, and says so on standard error."""
        return self.add(name, f"echo {shlex.quote(says)} >&2; exit {status}")

    @property
    def environ(self) -> Mapping[str, str]:
        """An environment in which these commands are found first."""
        return {"PATH": f"{self.folder}:/usr/sbin:/usr/bin:/sbin:/bin"}

    @property
    def calls(self) -> list[list[str]]:
        """How they were called so far: name and arguments."""
        if not self._calls.exists():
            return []
        return [json.loads(line) for line in self._calls.read_text(encoding="utf-8").splitlines()]
