"""A program in QEMU's place, and a disk."""

from __future__ import annotations

import pytest
from prove_guests import Emulator


@pytest.fixture
def emulator(tmp_path, monkeypatch):
    """Put a program called qemu-system-x86_64 into PATH; a function that says what it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return Emulator(folder, tmp_path / "notes")


@pytest.fixture
def disk(tmp_path):
    """A file that begins like a disk."""
    path = tmp_path / "a disk, with a comma.img"
    path.write_bytes(b"\x55\xaa" * 512)
    return path
