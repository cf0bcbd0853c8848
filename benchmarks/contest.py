"""What the benchmarks of transports share: whole processes measured to the last written byte, a registry, an image."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Run:
    """What one process and its children took, until everything was on disk."""

    seconds: float
    sync_seconds: float
    cpu_seconds: float
    peak_megabytes: float
    written_megabytes: float
    status: int

    def line(self, name: str, total: int) -> str:
        """Return one line of the table; *total* is what was transferred, uncompressed, in bytes."""
        whole = self.seconds + self.sync_seconds
        return (
            f"  {name:28} {whole:7.2f} s ({self.sync_seconds:5.2f} s sync)  {self.cpu_seconds:7.2f} s CPU  "
            f"{total / 1e6 / whole:6.0f} MB/s  peak {self.peak_megabytes:5.0f} MB  "
            f"written {self.written_megabytes:6.0f} MB" + (f"  FAILED ({self.status})" if self.status else "")
        )


def measured(argv: list[str], below: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end, and then wait until its files below *below* are on disk."""
    handle = os.open(below, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(handle)
        begun = time.monotonic()
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended = time.monotonic()
        ctypes.CDLL(None).syncfs(handle)
        synced = time.monotonic()
    finally:
        os.close(handle)
    return Run(
        ended - begun,
        synced - ended,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        usage.ru_oublock * 512 / 1e6,
        process.returncode,
    )


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run docker-registry on loopback; yield host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    server = subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(host.partition(":")[2]))) == 0:
                    break
            time.sleep(0.05)
        yield host
    finally:
        server.terminate()
        server.wait()


def store_conf(folder: Path, name: str, driver: str) -> Path:
    """Write a storage.conf for a store of its own; the graph root is ``folder/name``."""
    conf = folder / f"{name}.conf"
    conf.write_text(
        f'[storage]\ndriver="{driver}"\nrunroot="{folder}/{name}-run"\ngraphroot="{folder}/{name}"\n'
        '[storage.options.overlay]\nskip_mount_home="true"\n'
    )
    return conf


def insecure_conf(folder: Path, host: str) -> Path:
    """Write a registries.conf that allows plain HTTP for *host*, where a user with the home *folder* has it."""
    path = folder / ".config/containers/registries.conf"
    path.parent.mkdir(parents=True)
    path.write_text(f'[[registry]]\nlocation="{host}"\ninsecure=true\n')
    return path


def cfs() -> str:
    """Return the command of this environment."""
    from pathlib import Path

    return str(Path(sys.executable).with_name("cfs"))


def cfsctl_repository(path: Path) -> str | None:
    """Make a repository for cfsctl; None where it is not installed."""
    program = shutil.which("cfsctl")
    if program is None:
        return None
    subprocess.run([program, "init", "--insecure", str(path)], check=True, capture_output=True)
    return str(path)
