"""A plugin's command, really installed: what it is given, and what becomes of what it prints."""

from __future__ import annotations

import json
import os

import pytest
from builders.distributions import Site

HEAD = """
import click
from cfs_core.plugin import CommandContext, CommandProvider, DiskError, OutputFormat, ProviderSetting, hookimpl
from pathlib import Path
CFS_PLUGIN_API = (2, 0)
"""

COMMAND = """
def make(context):
    def run(disk):
        print("a stray print")
        context.output.tell("working \\x1b[2J")
        facts = {
            "provider": context.provider,
            "is_context": type(context) is CommandContext,
            "settings": dict(context.settings),
            "scratch": context.scratch.is_dir(),
            "word": context.environ.get("A_WORD"),
            "uid": context.uid,
            "true": context.commands.find("true") is not None,
        }
        context.log.warning("looking", disk=disk)
        if disk:
            try:
                facts["menus"] = [[each.loader.name, each.menu is not None] for each in context.boot_menus(Path(disk))]
            except DiskError as error:
                facts["menus"] = error.code
        if context.output.format is OutputFormat.JSON:
            context.output.show(facts)
        else:
            context.output.say("uid \\x1b[31m" + str(facts["uid"]))
    return click.Command("look", callback=run, help="Look.", params=[click.Option(["--disk"])])

@hookimpl
def cfs_register_commands():
    return [CommandProvider(name="look", summary="looks", factory=make, has_result=True,
        settings=(ProviderSetting(name="depth", kind="number", summary="depth"),))]
"""


@pytest.fixture
def site(tmp_path):
    modules = {"look_plugin.py": HEAD + COMMAND}
    return Site(tmp_path / "site").install("cfs-look", "1.0", {"look": "look_plugin"}, modules)


def test_a_command_gets_what_it_needs_of_the_run(site, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("[command.look]\ndepth = 3\n[command.other]\ndepth = 4\n")
    done = site.cfs("--config", settings, "look", "--format", "json", A_WORD="hello")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts == {
        "provider": "look",
        "is_context": True,
        "settings": {"depth": 3},
        "scratch": True,
        "word": "hello",
        "uid": os.getuid(),
        "true": True,
    }
    assert "a stray print" in done.stderr
    assert "looking" in done.stderr
    assert "working" not in done.stderr


def test_people_get_text_and_their_terminal_obeys_none_of_it(site):
    done = site.cfs("look")
    assert done.stdout == f"uid \\x1b[31m{os.getuid()}\n"
    assert "working \\x1b[2J" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "--format" in site.cfs("look", "--help").stdout


def test_a_disk_without_a_layout_that_reads_it_is_told(site, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    done = site.cfs("look", "--disk", disk, "--format", "json", CFS_DISABLE_PLUGINS="")
    assert json.loads(done.stdout)["menus"] == "disk"


def test_a_command_with_a_format_of_its_own_besides_is_told_to_its_author(tmp_path):
    wrong = COMMAND.replace('click.Option(["--disk"])', 'click.Option(["--disk"]), click.Option(["--format"])')
    site = Site(tmp_path / "site").install("cfs-look", "1.0", {"look": "l"}, {"l.py": HEAD + wrong})
    done = site.cfs("look")
    assert done.returncode == 4
    assert "'look' of look (cfs-look 1.0) has a --format of its own" in done.stderr.replace("\n", " ")
