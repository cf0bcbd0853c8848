"""Files of a rootless store that only root of the user's namespace may read: a helper in there passes them out."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import CommandError, StorageError

if TYPE_CHECKING:
    from cfs_core.plugin import CommandRunner

_HELPER = Path(__file__).with_name("namespace_helper.py")
_PATIENCE_SECONDS = 30.0
_HINT = "run in the user's namespace: podman unshare cfs …"


class NamespaceOpener:
    """Opens files as root of this user's namespace (newuidmap(1), subuid(5)). Started when first needed."""

    def __init__(self, commands: CommandRunner) -> None:
        self._commands = commands
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, folder: Path, name: bytes) -> int:
        """Open *name* below *folder* for reading.

        Raises:
            StorageError: there is no such namespace for this user.
            OSError: as open(2).
        """
        with self._guard:
            channel = self._channel or self._start()
            request = os.fsencode(folder) + b"\0" + name
            channel.sendall(len(request).to_bytes(4, "big") + request)
            answer, handles, _, _ = socket.recv_fds(channel, 4, 1)
        if handles:
            return handles[0]
        number = int.from_bytes(answer, "big")
        if not answer:
            msg = "the helper in the user namespace has ended"
            raise StorageError(msg, hint=_HINT)
        raise OSError(number, os.strerror(number), os.fsdecode(name))

    def close(self) -> None:
        """End the helper."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE_SECONDS)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own helper, with this interpreter
                [sys.executable, "-I", os.fspath(_HELPER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._channel = ours
        try:
            _expect(ours, b"u", "no user namespace can be made here")
            for tool, table, own in (
                ("newuidmap", Path("/etc/subuid"), os.getuid()),
                ("newgidmap", Path("/etc/subgid"), os.getgid()),
            ):
                self._commands.run([tool, str(self._process.pid), *mapping(table.read_text(), own)])
            ours.sendall(b"m")
            _expect(ours, b"r", "the user namespace does not work")
        except (OSError, CommandError) as error:
            self.close()
            msg = f"the user namespace of this user cannot be entered: {error}"
            raise StorageError(msg, hint=_HINT) from error
        except StorageError:
            self.close()
            raise
        return ours


def _expect(channel: socket.socket, word: bytes, otherwise: str) -> None:
    if channel.recv(1) != word:
        raise StorageError(otherwise, hint=_HINT)


def mapping(table: str, own: int) -> list[str]:
    """Return the arguments of newuidmap for this user: itself as 0, then its subordinate ranges as 1 and up.

    This is the mapping that rootless podman uses.
    """
    user = str(os.getuid())
    try:
        names = {user, pwd.getpwuid(os.getuid()).pw_name}
    except KeyError:
        names = {user}
    arguments = ["0", str(own), "1"]
    inside = 1
    for line in table.splitlines():
        parts = line.strip().split(":")
        if len(parts) == 3 and parts[0] in names and parts[1].isdecimal() and parts[2].isdecimal():  # noqa: PLR2004 - name:start:count
            arguments += [str(inside), parts[1], parts[2]]
            inside += int(parts[2])
    return arguments
