"""``cfs plugins docs``: complete, by the names that one imports, and with a meaning for each part."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import cfs_core.plugin
from cfs_core import hookspecs
from cfs_core.cli.reference import CORE, HOOKS, KIT, every_entry

ENTRIES = every_entry()
ALL = [entry for entries in ENTRIES.values() for entry in entries]


def run(*words):
    argv = [sys.executable, "-m", "cfs_core", "plugins", "docs", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def printed(*words):
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_that_may_be_imported_is_there():
    for module in CORE:
        wanted = {*importlib.import_module(module).__all__} - {"__version__"}
        assert {entry.name for entry in ENTRIES[module]} == wanted
    assert {entry.name for entry in ENTRIES[HOOKS]} == {name for name in vars(hookspecs) if name.startswith("cfs_")}


def test_the_whole_kit_is_there():
    kit = {entry.name for module, entries in ENTRIES.items() if module.startswith(KIT) for entry in entries}
    assert {
        "BootloaderContract", "TransportContract", "BootDisks", "RegistryServer", "registry_server", "Silence",
        "bootable_image", "efi_program", "hostile_layers", "MemoryFetcher", "plugin_context", "Scripts", "kernel",
    } <= kit  # fmt: skip


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: f"{entry.module}.{entry.name}")
def test_each_has_a_meaning_and_can_be_imported(entry):
    assert entry.meaning
    scope: dict[str, object] = {}
    exec(entry.use, scope)
    assert entry.module == HOOKS or entry.name in scope


@pytest.mark.parametrize("entry", [entry for entry in ALL if entry.parts], ids=lambda entry: entry.name)
def test_members_and_fields_have_a_meaning(entry):
    """Their own, or a place in the description of the whole."""
    told = [part for part in entry.parts if part.kind in {"member", "field"} and entry.kind != "error"]
    named = {part.name for part in told if f"``{part.name}``" in entry.meaning or f"*{part.name}*" in entry.meaning}
    assert [part.text for part in told if not part.meaning and part.name not in named] == []
    if entry.kind == "enumeration":
        assert [part.text for part in told if part.kind == "member" and not part.meaning] == []


def test_members_are_those_of_the_enumeration():
    said = printed("Effect", "Volume")
    for kind in (cfs_core.plugin.Effect, cfs_core.plugin.Volume):
        for member in kind:
            assert f"\n    {member.name} = {member.value!r}\n        " in said
    assert "_generate_next_value_" not in said


def test_inherited_parts_are_shown_with_the_class_that_has_them():
    (entry,) = [entry for entry in ENTRIES["cfs_testkit.contracts"] if entry.name == "BootloaderContract"]
    parts = {part.name: part.kind for part in entry.parts}
    for name in ("image_files", "foreign", "shared_files", "extra_volumes", "architecture", "settings"):
        assert parts[name] == "field"
    assert "check" in parts.values()
    write = next(entry for entry in ENTRIES["cfs_core.plugin"] if entry.name == "WriteFile")
    assert {"why", "location", "data"} <= {part.name for part in write.parts}


@pytest.mark.parametrize("name", ["BootFacts", "cfs_core.plugin.BootFacts", "cfs_core.bls", "cfs_on_event"])
def test_names_modules_and_hooks_are_found(name):
    assert name.rpartition(".")[2] in printed(name)


def test_a_name_is_printed_as_it_is_imported():
    said = printed("BootFacts")
    assert said.startswith("facts BootFacts\n    from cfs_core.plugin import BootFacts\n")
    assert "    firmware: frozenset[Firmware]\n        What has to start the disk" in said
    assert "cfs_core.interfaces" not in said


def test_without_names_each_has_a_line_and_all_is_everything():
    lines = printed().splitlines()
    assert len(lines) == 1 + len(ALL)
    everything = printed("--all")
    assert all(entry.use in everything for entry in ALL)


def test_programs_get_all_of_it():
    document = json.loads(printed("Firmware", "--format", "json"))
    (record,) = document["names"]
    assert document["api"] == list(cfs_core.plugin.API_VERSION)
    assert (record["name"], record["kind"]) == ("Firmware", "enumeration")
    assert [part["name"] for part in record["parts"] if part["kind"] == "member"] == ["UEFI", "BIOS", "UBOOT"]


def test_a_name_that_is_not_there_says_what_is_near():
    done = run("BootFact")
    assert done.returncode == 2
    assert "hint: is it BootFacts" in done.stderr
