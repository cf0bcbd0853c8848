"""The diagram of when each hook fires is what a plugin that has all of them sees in a real install."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import bootable

ROOT = Path(__file__).parents[2]
OBSERVER = """
import os

from cfs_core import hookspecs
from cfs_core.plugin import hookimpl

CFS_PLUGIN_API = (2, 0)


def note(text):
    with open(os.environ["OBSERVED"], "a") as file:
        file.write(text + "\\n")


"""
HOOK = """
@hookimpl
def {name}({arguments}):
    note("{name}"{more})
    return []
"""


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """What a plugin with every hook saw of an install with a policy: names of hooks, and of events with a colon."""
    sys.path.insert(0, str(ROOT / "docs"))
    from generator.hooks import every_hook, signature

    tools = [name for name in ("mkfs.ext4", "debugfs", "mkfs.vfat", "fsck.fat") if not shutil.which(name)]
    if tools:
        pytest.skip(f"not installed: {', '.join(tools)}")
    tmp_path = tmp_path_factory.mktemp("observed")
    packages = tmp_path / "packages"
    facts = packages / "cfs_observer-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: cfs-observer\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[cfs.plugins]\nobserver = cfs_observer\n")
    source = OBSERVER
    for name, function in every_hook().items():
        words = signature(function).partition("(")[2].partition(") ->")[0]
        arguments = ", ".join(word.partition(":")[0] for word in words.split(", ") if word)
        more = ' + ":" + event.name' if name == "cfs_on_event" else ""
        source += HOOK.format(name=name, arguments=arguments, more=more)
    (packages / "cfs_observer.py").write_text(source)
    image = bootable.layout(tmp_path / "oci", latest=bootable.image())
    settings = tmp_path / "cfs.toml"
    settings.write_text('[policy]\nrequire = ["digest-pinned"]\n')
    seen = tmp_path / "seen"
    environ = os.environ | {"PYTHONPATH": str(packages), "OBSERVED": str(seen), "HOME": str(tmp_path)}
    digest = subprocess.run(
        [sys.executable, "-m", "cfs_core", "image", "copy", f"{image}:latest", f"oci:{tmp_path}/copy:latest"],
        capture_output=True, text=True, check=True, env=environ,
    ).stdout.strip()  # fmt: skip
    seen.unlink()
    subprocess.run(
        [
            sys.executable, "-m", "cfs_core", "--config", settings, "install", "to-disk",
            "--source-imgref", f"oci:{tmp_path}/copy@{digest}", "--yes", tmp_path / "disk.img",
        ],
        check=True, capture_output=True, env=environ,
    )  # fmt: skip
    return seen.read_text().splitlines()


def test_hooks_fire_in_the_steps_and_the_order_of_the_diagram(observed):
    from generator.hooks import EVENTS, STEPS, hooks_of

    first = [name for name in dict.fromkeys(observed) if name not in hooks_of("any time")]
    for step in STEPS[:-1]:
        hooks = hooks_of(step)
        events = [f"cfs_on_event:{name}" for name in EVENTS.get(step, ())]
        seen, first = first[: len(hooks) + len(events)], first[len(hooks) + len(events) :]
        assert [name for name in seen if not name.startswith("cfs_on_event:")] == hooks, step
        assert [name for name in seen if name.startswith("cfs_on_event:")] == events, step
    assert first == []


def test_the_hooks_that_return_something_for_a_plan_fire_once(observed):
    assert [observed.count(name) for name in ("cfs_kernel_arguments", "cfs_check_plan")] == [1, 1]
    assert "cfs_register_commands" not in observed
