"""The only door to host commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Ordinary users often lack the sbin directories in PATH, where mkfs and friends live."""

STDERR_TAIL = 2000


class HostCommands:
    """Runs commands of this host with a small, fixed environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = [part for part in environ.get("PATH", "").split(os.pathsep) if part]
        self._path = os.pathsep.join([*path, *(name for name in SYSTEM_DIRECTORIES if name not in path)])
        self._environ = {"PATH": self._path, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "GNUPGHOME"):
            if name in environ:
                self._environ[name] = environ[name]

    def find(self, name: str) -> Path | None:
        """Return where *name* is; None if it is not installed."""
        found = shutil.which(name, path=self._path)
        return Path(found) if found else None

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        ok: frozenset[int] = frozenset({0}),
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end and return captured output.

        Raises:
            CommandError: missing command, or an exit status not in *ok*.
        """
        program = self.find(argv[0])
        if program is None:
            msg = f"{argv[0]} is not installed"
            raise CommandError(msg, command=argv[0])
        try:
            done = subprocess.run(  # noqa: S603 - argv is a list, no shell
                [os.fspath(program), *argv[1:]],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                env={**self._environ, **(env or {})},
                check=False,
            )
        except OSError as cause:
            msg = f"{argv[0]} cannot be started: {cause}"
            raise CommandError(msg, command=argv[0]) from cause
        if done.returncode not in ok:
            tail = done.stderr[-STDERR_TAIL:].decode(errors="replace").strip()
            how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else f"exited with {done.returncode}"
            msg = f"{argv[0]} {how}: {tail or 'it said nothing'}"
            raise CommandError(msg, argv=list(argv), status=done.returncode)
        return done
