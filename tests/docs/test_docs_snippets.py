"""What the pages show is what happens: commands are run and their output compared, Python is run, options exist."""

import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path

import click
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import snippets
from builders import bootable

from cfs_core.app.app import App
from cfs_core.cli.main import cli
from cfs_core.config.settings import Rank, layer_from_table, parse_toml
from cfs_testkit.builders.oci import File, write_layout
from cfs_testkit.programs import program

EARLY_BOOT = snippets.ROOT / "plugins/initramfs/cfs_initramfs/boot"
TOOLS = ("mkfs.ext4", "debugfs", "mkfs.vfat", "fsck.fat", "mcopy", "patch")
RUN = [page for page in snippets.pages() if any(block.runs for block in snippets.blocks(page))]
NOT_RUN = {
    "README.md": ["it is the demo"],
    "docs/howto/does-not-boot.md": ["a virtual machine", "in an initramfs"],
    "docs/howto/first-boot.md": ["asks for a password"],
    "docs/howto/grub-bios.md": ["an image with GRUB, a virtual machine"],
    "docs/howto/install-from-container.md": ["a container"] * 3,
    "docs/howto/private-registry.md": ["a registry"] * 5,
    "docs/howto/put-cfs-into-an-image.md": ["the network", "a container"],
    "docs/howto/reproducible-ci.md": ["a container"],
    "docs/howto/upgrade-a-machine.md": ["builds an image"] + ["an installed machine"] * 4,
    "docs/tutorial/first-bootloader.md": ["the network", "builds an image", "a virtual machine", "the network"],
    "docs/howto/sealed-image.md": [
        "virt-firmware, which not every machine has",
        "ukify, which not every machine has",
        "ukify, which not every machine has",
        "sbsign, which not every machine has",
        "sbsign, which not every machine has",
        "ukify, which not every machine has",
        "ukify, which not every machine has",
        "virt-firmware and OVMF, which not every machine has",
        "a virtual machine",
        "an installed machine",
        "ukify with systemd's stub of addons, which not every machine has",
    ],
    "docs/tutorial/first-install.md": ["the network", "builds an image", "a virtual machine"],
    "docs/tutorial/first-plugin.md": ["the network"],
    "docs/tutorial/first-transport.md": ["the network", "a virtual machine", "the network"],
    "docs/tutorial/your-own-image.md": [*["builds an image, for minutes"] * 4, "a virtual machine"],
    "plugins/prove/README.md": ["a virtual machine"] * 2,
}
"""What the pages show without its being run, and why: nothing is left out without being here."""


def name(page):
    return page.relative_to(snippets.ROOT).as_posix()


def readers_image():
    """Return a small image that looks like the demo's: its kernel arguments, its early-boot code, its label."""
    units = "usr/lib/systemd/system"
    early_boot = {
        "init": program(),
        "usr/lib/cfs/cfs-setup-root": (EARLY_BOOT / "cfs-setup-root").read_bytes(),
        f"{units}/initrd-root-fs.target.wants/cfs-setup-root.service": "../cfs-setup-root.service",
    }
    kargs = "usr/lib/bootc/kargs.d/10-console.toml"
    files = {
        f"{bootable.MODULES}/initramfs.img": File(bootable.cpio(early_boot)),
        "usr/lib/bootc/kargs.d/10-test.toml": None,
        "etc/passwd": File("root:x:0:0:root:/root:/bin/bash\n"),
        "etc/group": File("root:x:0:\nsudo:x:27:\n"),
        "usr/bin/systemd-tmpfiles": File(program(), mode=0o755),
        "usr/share/zoneinfo/Europe/Berlin": File(b"TZif2" + bytes(39)),
        kargs: File((snippets.ROOT / "demo/image/files" / kargs).read_bytes()),
    }
    return bootable.image(labels={"org.opencontainers.image.vendor": "Example"}, **files)


@pytest.fixture
def reader(tmp_path):
    """A reader with the images that the pages talk of: a plain one, a sealed one, and one whose seal is out of date."""
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    reader = snippets.Reader(tmp_path)
    plain = readers_image()
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


def test_what_is_not_run_has_a_reason_that_is_known():
    found = {
        name(page): reasons
        for page in snippets.pages()
        if (reasons := [block.reason for block in snippets.blocks(page) if block.reason])
    }
    assert found == NOT_RUN


@pytest.mark.parametrize("page", snippets.pages(), ids=name)
def test_every_block_says_what_it_is(page):
    """A block without a language would be seen by no test."""
    openers = re.findall(r"^ *```.*$", page.read_text(), re.MULTILINE)[::2]
    assert [line for line in openers if not re.match(r" *```(\w+|\{[\w-]+\}( \w+)?)$", line)] == []


def every_document():
    for page in snippets.pages():
        for number, block in enumerate(snippets.blocks(page)):
            if block.language in {"toml", "yaml", "json"}:
                yield pytest.param(block, id=f"{name(page)}:{number}")


@pytest.mark.parametrize("block", list(every_document()))
def test_documents_are_what_they_say(block):
    """Settings are read as cfs would: an unknown key or a value of the wrong type is an error."""
    if block.language == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    elif block.language == "json":
        assert isinstance(json.loads(block.text), dict)
    elif block.caption == "pyproject.toml":
        assert "project" in tomllib.loads(block.text)
    else:
        table = parse_toml(block.text.encode(), "the page")
        rank = Rank.IMAGE if "install.d" in (block.caption or "") else Rank.FILE
        layer = layer_from_table(table, "the page", rank)
        assert layer.values
        assert layer.warnings == ()


def every_cfs_line():
    for page in snippets.pages():
        texts = [block.text for block in snippets.blocks(page) if block.language in {"console", "sh", "dockerfile"}]
        texts += re.findall(r"^    (cfs .*(?:\\\n.*)*)$", snippets.FENCE.sub("", page.read_text()), re.MULTILINE)
        for text in texts:
            whole = text.replace("\\\n", " ")
            for line in re.findall(r"^(?:\$ |RUN )?((?:[A-Z_]+=\S+ )*cfs .*)$", whole, re.MULTILINE):
                for command in re.split(r" {2,}(?=cfs )", line):
                    if not re.search(r"\[|\w\|\w", command):  # a table of commands, not one
                        yield pytest.param(command, id=f"{name(page)}: {command[:60]}")


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
@pytest.mark.parametrize("indent", ["", "   "])
def test_a_page_that_is_wrong_is_found(text, wrong, indent, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n" + textwrap.indent(f"```console\n{text}```\n", indent))
    assert len(snippets.Reader(tmp_path).follow(page)) == wrong


@pytest.mark.parametrize(("text", "wrong"), [("true\necho a\n", 0), ("false\necho a\n", 1)])
def test_a_script_that_fails_is_found(text, wrong, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{text}```\n\n<!-- not run: a reason -->\n```sh\nfalse\n```\n")
    assert len(snippets.Reader(tmp_path).follow(page)) == wrong
