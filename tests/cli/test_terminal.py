"""Names and words of others: escaped on a terminal, exact in a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from builders.distributions import RUN, Site

from cfs_core.cli.terminal import TerminalText, exact
from cfs_testkit.builders.oci import Dir, File, Image, Link, layer, write_layout

ESCAPE = "\x1b]0;owned\x07\x1b[8m\x9b31m\u202e"
NAMES = {
    "escape": ESCAPE,
    "carriage": "good\rbad",
    "newline": "x\n-rwsr-xr-x     0     0  forged",
    "bytes": "bad-\udcff-utf8",
    "harmless": "ä-猫",
}


def cfs(*argv, env=None, **streams):
    words = [sys.executable, "-m", "cfs_core", *map(str, argv)]
    return subprocess.run(words, check=False, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, **streams)


def on_terminal(argv, **env):
    """Run with both outputs on a terminal and return what it got."""
    ours, theirs = pty.openpty()
    parts = []

    def read():
        try:
            while data := os.read(ours, 4096):
                parts.append(data)
        except OSError:
            return  # the last one has closed the terminal

    reader = threading.Thread(target=read)
    reader.start()
    environ = {**os.environ, "TERM": "xterm", **env}
    subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environ, timeout=120)
    os.close(theirs)
    reader.join()
    os.close(ours)
    return b"".join(parts).replace(b"\r\n", b"\n")


def harmless(shown: bytes) -> bool:
    text = re.sub(r"\x1b\[(?:[0-4]|3[0-79])(?:;3[0-79])?m", "", shown.decode())
    return not [c for c in text if not c.isprintable() and c != "\n"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    files = {f"usr/{name}": File(ESCAPE) for name in NAMES.values()}
    files |= {"usr/link": Link(ESCAPE), "boot/": Dir(), "sysroot/": Dir()}
    write_layout(folder / "oci", {"x": Image([layer(files)], labels={"evil": ESCAPE})})
    done = cfs("image", "pull", f"oci:{folder}/oci:x", "--name", "x", "--repo", folder / "repo", capture_output=True)
    assert done.returncode == 0, done.stderr
    return folder / "repo"


@pytest.mark.parametrize("command", [["ls", "x", "/usr"], ["cat", "x", f"/usr/{NAMES['harmless']}"], ["inspect", "x"]])
def test_a_terminal_is_safe(repo, command):
    shown = on_terminal([sys.executable, "-m", "cfs_core", "--no-progress", "image", *command, "--repo", str(repo)])
    assert b"owned" in shown
    assert harmless(shown), shown


def test_a_listing_on_a_terminal_has_one_line_for_each_name(repo):
    shown = on_terminal(
        [sys.executable, "-m", "cfs_core", "--no-progress", "image", "ls", "x", "/usr", "--repo", str(repo)]
    )
    lines = shown.decode().splitlines()
    assert len(lines) == len(NAMES) + 1
    assert not [line for line in lines if line.startswith("-rws")]
    assert "bad-\\xff-utf8" in shown.decode()
    assert "ä-猫" in shown.decode()


def test_a_pipe_gets_exact_bytes(repo):
    listed = cfs("image", "ls", "x", "/usr", "--repo", repo, capture_output=True).stdout
    for name in (*NAMES.values(), f"link -> {ESCAPE}"):
        assert os.fsencode(name) + b"\n" in listed
    printed = cfs("image", "cat", "x", f"/usr/{NAMES['harmless']}", "--repo", repo, capture_output=True).stdout
    assert printed == ESCAPE.encode()
    found = json.loads(cfs("image", "inspect", "x", "--repo", repo, capture_output=True).stdout)
    assert found["image"]["labels"] == {"evil": ESCAPE}


@pytest.mark.parametrize(
    "argv", [["image", "ls", ESCAPE], ["image", "digest", f"oci:{ESCAPE}"], [ESCAPE], ["status", ESCAPE]]
)
def test_errors_are_safe_on_a_terminal(repo, argv, tmp_path):
    shown = on_terminal(
        [sys.executable, "-m", "cfs_core", "--no-progress", "--log-level", "debug", *argv], CFS_REPO=str(repo)
    )
    assert b"owned" in shown
    assert harmless(shown), shown


def test_what_plugins_print_is_safe_on_a_terminal(tmp_path):
    plugin = """
        import click
        from cfs_core.plugin import CommandProvider, hookimpl

        CFS_PLUGIN_API = (2, 0)
        TEXT = "\\x1b]0;owned\\x07\\x9b31m\\u202e"

        @click.command()
        def evil():
            click.echo(TEXT)
            click.echo(TEXT, err=True)
            print(TEXT)
            click.secho("fine", fg="red")

        @hookimpl
        def cfs_register_commands():
            yield CommandProvider(name="evil", summary="x", factory=lambda _: evil)
    """
    site = Site(tmp_path / "site").install("evil", "1", {"evil": "evil_plugin"}, {"evil_plugin.py": plugin})
    shown = on_terminal([sys.executable, "-c", RUN, "--no-progress", "evil"], PYTHONPATH=str(site.folder))
    assert shown.count(b"owned") == 3, shown
    assert b"fine" in shown
    assert harmless(shown), shown
    done = subprocess.run(
        [sys.executable, "-c", RUN, "evil"],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(site.folder)},
    )
    assert b"owned" in done.stdout + done.stderr


def test_colours_stay_and_hiding_does_not():
    stream = io.StringIO()
    TerminalText(stream).write("\x1b[1m\x1b[31mred\x1b[0m \x1b[8mhidden\x1b[7m \x1b[41m \x1b[2J \x1b[1;31mx")
    assert stream.getvalue() == ("\x1b[1m\x1b[31mred\x1b[0m \\x1b[8mhidden\\x1b[7m \\x1b[41m \\x1b[2J \x1b[1;31mx")


def test_bytes_come_in_pieces():
    stream = io.StringIO()
    buffer = TerminalText(stream).buffer
    for byte in "ä\x1b".encode():
        buffer.write(bytes([byte]))
    buffer.write(b"\xc3")
    buffer.flush()
    assert stream.getvalue() == "ä\\x1b\\xc3"


def test_names_are_the_bytes_they_were():
    assert exact("ä\udcff", "utf-8") == b"\xc3\xa4\xff"
    assert exact("猫", "latin-1") == b"\\u732b"
