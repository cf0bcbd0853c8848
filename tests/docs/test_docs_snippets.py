"""What the pages show is what happens: commands are run and their output compared, Python is run, options exist."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import click
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import snippets
from builders import bootable
from builders.oci import write_layout

from cfs_core.cli.app import App
from cfs_core.cli.main import cli

TOOLS = ("mkfs.ext4", "debugfs", "mkfs.vfat", "fsck.fat")
RUN = [
    page for page in snippets.pages() if any(block.language in {"console", "python"} for block in snippets.blocks(page))
]


def name(page):
    return page.relative_to(snippets.DOCS).as_posix()


@pytest.fixture
def reader(tmp_path):
    """A reader with the images that the pages talk of: a plain one, a sealed one, and one whose seal is out of date."""
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    reader = snippets.Reader(tmp_path)
    plain = bootable.image(labels={"org.opencontainers.image.vendor": "Example"})
    write_layout(reader.here / "debian", {"latest": plain})
    digest = snippets.subprocess.run(
        ["cfs", "image", "digest", "oci:./debian:latest", "--bootable"],
        cwd=reader.here, env=reader.environ, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    images = {
        "latest": plain,
        "sealed": bootable.with_uki(plain, f"composefs={digest} rw console=ttyS0"),
        "stale": bootable.with_uki(bootable.image(capable=False), f"composefs={digest} rw"),
    }
    write_layout(reader.here / "debian", images)
    return reader


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page_does_what_it_shows(page, reader):
    wrong = reader.follow(page)
    assert not wrong, "\n\n".join(wrong)


def every_cfs_line():
    for page in snippets.pages():
        for block in snippets.blocks(page):
            if block.language in {"console", "sh"}:
                for line in re.findall(
                    r"^(?:\$ |RUN )?((?:[A-Z_]+=\S+ )*cfs .*)$", block.text.replace("\\\n", " "), re.MULTILINE
                ):
                    yield pytest.param(line, id=f"{page.stem}: {line[:60]}")
    readme = (snippets.ROOT / "README.md").read_text()
    for line in re.findall(r"^    (cfs (?:\S+ )*\S+)$", readme, re.MULTILINE):
        if "[" not in line and "|" not in line:
            yield pytest.param(line, id=f"README: {line[:60]}")


@pytest.mark.parametrize("line", list(every_cfs_line()))
def test_commands_and_options_exist(line):
    """Also of what is not run here, since it needs a registry, a virtual machine or a tool."""
    words = shlex.split(line.partition(" > ")[0].partition(" && ")[0], comments=True)
    words = words[words.index("cfs") + 1 :]
    with App(os.environ) as app:
        command, context = cli, click.Context(cli, info_name="cfs", obj=app)
        while isinstance(command, click.Group):
            _, words, _ = (
                command.make_parser(context).parse_args(list(words)) if words[:1] != ["--help"] else ({}, [], 0)
            )
            if not words:
                return
            child = command.get_command(context, words[0])
            assert child is not None, f"there is no command {words[0]}"
            command, words = child, words[1:]
            context = click.Context(command, parent=context)
        command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("clean\n", "clean\n", True),
        ("clean\n", "clean\nand more\n", False),
        ("a … c\n", "a b b c\n", True),
        ("a … c\n", "a b\nc\n", False),
        ("first\n…\nlast\n", "first\nx\ny\nlast\n", True),
        ("first\n…\nlast\n", "first\nlast\n", True),
        ("", "something\n", False),
    ],
)
def test_shown_output_is_compared(shown, printed, same):
    assert snippets.matches(shown, printed) is same


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("$ echo a\na\n", 0),
        ("$ echo a\nb\n", 1),
        ("$ false\n", 1),
        ("$ false\n$ echo $?\n1\n", 0),
        ("$ exit 3\n", 1),
        ("$ cd /\n$ pwd\n/\n", 0),
    ],
)
def test_a_page_that_is_wrong_is_found(text, wrong, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n```console\n{text}```\n")
    assert len(snippets.Reader(tmp_path).follow(page)) == wrong
