"""The whole command in the process of a test."""

from __future__ import annotations

from cfs_core.cli.main import run


def in_process(tmp_path, monkeypatch, captured):
    """Return what runs cfs with caches and scratch below *tmp_path*: exit status, what it printed, and complained of.

    *captured* is capsys or capfd; the latter sees what does not go through sys.stderr, too.
    """
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)

    def call(*args):
        status = run([*map(str, args)])
        out, err = captured.readouterr()
        return status, out, err

    return call
