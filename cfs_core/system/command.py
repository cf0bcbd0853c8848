"""The only door to host commands."""

from __future__ import annotations

import os
import select
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cfs_core.errors import CommandError
from cfs_core.system.command_limits import COMMAND_OUTPUT_LIMIT, COMMAND_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Ordinary users often lack the sbin directories in PATH, where mkfs and friends live."""

STDERR_TAIL = 2000
STDERR_KEPT = 1 << 20
"""Bytes; of what a command complains without end, the last part tells most."""

READ_BYTES = 1 << 16


class HostCommands:
    """Runs commands of this host with a small, fixed environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        # An empty or relative element means the current directory, and whoever filled that would be run.
        path = [part for part in environ.get("PATH", "").split(os.pathsep) if os.path.isabs(part)]  # noqa: PTH117
        self._path = os.pathsep.join([*path, *(name for name in SYSTEM_DIRECTORIES if name not in path)])
        # Messages of tools are looked into, so they are in English; times that tools write have no zone, so it is UTC.
        self._environ = {"PATH": self._path, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "GNUPGHOME"):
            # gpg makes a home of its own below the current directory where HOME is relative.
            if os.path.isabs(environ.get(name, "")):  # noqa: PTH117 - a string, not yet a path
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
        output_limit: int = COMMAND_OUTPUT_LIMIT,
        seconds: float = COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end and return captured output: at most *output_limit* bytes of it, for at most *seconds*.

        Raises:
            CommandError: missing command, an exit status not in *ok*, or a limit passed: the command was killed then.
        """
        program = self.find(argv[0])
        if program is None:
            msg = f"{argv[0]} is not installed"
            raise CommandError(msg, facts={"command": argv[0]})
        try:
            process = subprocess.Popen(  # noqa: S603 - argv is a list, no shell
                [os.fspath(program), *argv[1:]],
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**self._environ, **(env or {})},
            )
        except OSError as cause:
            msg = f"{argv[0]} cannot be started: {cause}"
            raise CommandError(msg, facts={"command": argv[0]}) from cause
        with process:
            try:
                stdout, stderr = _talk(process, stdin or b"", output_limit, time.monotonic() + seconds)
            except _PassedError as passed:
                process.kill()
                what = f"{output_limit} bytes" if passed.of_bytes else f"{seconds:g} seconds"
                doing = "wrote more than" if passed.of_bytes else "did not end within"
                msg = f"{argv[0]} {doing} {what}, and was killed"
                raise CommandError(msg, hint="run it by hand to see what it does", facts={"argv": list(argv)}) from None
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        if done.returncode not in ok:
            tail = done.stderr[-STDERR_TAIL:].decode(errors="replace").strip()
            how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else f"exited with {done.returncode}"
            msg = f"{argv[0]} {how}: {tail or 'it said nothing'}"
            raise CommandError(msg, facts={"argv": list(argv), "status": done.returncode})
        return done


def host_commands() -> HostCommands:
    """Return the door to host commands as this process's environment makes it, for who was given no context."""
    return HostCommands(os.environ)


class _PassedError(Exception):
    """A command wrote more, or ran longer, than it may."""

    def __init__(self, *, of_bytes: bool) -> None:
        super().__init__()
        self.of_bytes = of_bytes


def _talk(process: subprocess.Popen[bytes], stdin: bytes, limit: int, deadline: float) -> tuple[bytes, bytes]:
    """Feed *stdin*, collect both outputs and wait.

    Raises:
        _PassedError: more than *limit* bytes on standard output, or *deadline* (monotonic seconds) is over.
    """
    out, err, rest = bytearray(), bytearray(), memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        for pipe, event in (
            (process.stdin, selectors.EVENT_WRITE),
            (process.stdout, selectors.EVENT_READ),
            (process.stderr, selectors.EVENT_READ),
        ):
            if pipe is not None:
                selector.register(pipe, event)
        while selector.get_map():
            if deadline <= time.monotonic():
                raise _PassedError(of_bytes=False)
            for key, _ in selector.select(deadline - time.monotonic()):
                pipe = cast("IO[bytes]", key.fileobj)
                if pipe is process.stdin:
                    rest = _feed(key.fd, rest)
                    ended = not rest
                else:
                    data = os.read(key.fd, READ_BYTES)
                    (out if pipe is process.stdout else err).extend(data)
                    ended = not data
                if ended:
                    selector.unregister(pipe)
                    pipe.close()
            if len(out) > limit:
                raise _PassedError(of_bytes=True)
            del err[:-STDERR_KEPT]
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _PassedError(of_bytes=False) from None
    return bytes(out), bytes(err)


def _feed(descriptor: int, rest: memoryview) -> memoryview:
    """Write one piece that a pipe which is ready takes without blocking; return what is left."""
    try:
        # pipe(7): a ready pipe has room for PIPE_BUF bytes.
        return rest[os.write(descriptor, rest[: select.PIPE_BUF]) :]
    except BrokenPipeError:
        return memoryview(b"")  # the command knows enough; its exit status says the rest
