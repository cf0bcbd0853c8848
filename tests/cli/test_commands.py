"""The command line as a person meets it: a process, its output, its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from cfs_core.app.app import App
from cfs_core.cli.main import cli


def cfs(*args, env=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "cfs_core", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "HOME": "/nonexistent", **(env or {})},
    )


def every_command():
    with App(os.environ) as app:
        root = click.Context(cli, info_name="cfs", obj=app)
        stack = [(("cfs",), cli, root)]
        while stack:
            path, command, context = stack.pop()
            if isinstance(command, click.Group):
                for name in command.list_commands(context):
                    child = command.get_command(context, name)
                    if child is not None:
                        stack.append(((*path, name), child, click.Context(child, info_name=name, parent=context)))
            else:
                yield path, command


@pytest.mark.parametrize(
    ("path", "command"), list(every_command()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_each_command_shows_an_example_of_itself(path, command):
    assert "Example" in (command.help or "")
    assert " ".join(path) in command.help


def test_an_option_means_the_same_everywhere():
    """``--format`` is the form of a result, ``--erofs`` the version of an EROFS image, ``--hash`` that of fs-verity."""
    meant = {"--format": {"text", "json"}, "--erofs": {"v0", "v1", "v2"}, "--hash": {"sha256", "sha512"}}
    seen = dict.fromkeys(meant, 0)
    for path, command in every_command():
        for option in command.params:
            for name in set(option.opts) & meant.keys():
                seen[name] += 1
                choices = option.type.choices if isinstance(option.type, click.Choice) else ()
                assert meant[name] <= {getattr(each, "value", each) for each in choices}, (path, name)
    assert all(count > 2 for count in seen.values()), seen


def test_version():
    done = cfs("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("cfs 0.")


def test_an_unknown_command_is_a_usage_error():
    assert cfs("instal").returncode == 2


def test_plugins_list_names_distributions():
    records = json.loads(cfs("plugins", "list", "--format", "json").stdout)["providers"]
    found = {(record["family"], record["name"]): record["distribution"] for record in records}
    assert found["storage format", "composefs"] == "cfs-storage-composefs"
    assert found["transport", "oci"] == "cfs-transport-oci-dir"
    assert found["bootloader", "systemd-boot"] == "cfs-systemd-boot"


def test_doctor_finds_our_own_plugins_healthy():
    done = cfs("plugins", "doctor", "--format", "json")
    report = json.loads(done.stdout)
    assert report["troubles"] == []
    assert report["missing"] == []
    assert done.returncode == 0


def test_a_disabled_plugin_is_missing_and_named(tmp_path):
    done = cfs("--disable-plugin", "oci-dir", "image", "digest", f"oci:{tmp_path}")
    assert done.returncode == 2
    assert "no transport for oci:" in done.stderr
    assert "hint:" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_code_is_printed(shell):
    done = cfs("completion", shell)
    assert done.returncode == 0
    assert "_CFS_COMPLETE" in done.stdout


def test_settings_show_their_origin(tmp_path):
    file = tmp_path / "cfs.toml"
    file.write_text('[install]\nfilesystem = "ext4"\n')
    done = cfs("--config", file, "config", "show", "--origin", env={"CFS_REPO": "/some/where"})
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert str(file) in lines["install.filesystem"]
    assert "CFS_REPO" in lines["repo"] or "environment" in lines["repo"]


def test_an_unknown_setting_of_the_operator_is_an_error(tmp_path):
    file = tmp_path / "cfs.toml"
    file.write_text("[install]\nfilesistem = 'ext4'\n")
    done = cfs("--config", file, "config", "show")
    assert done.returncode == 3
    assert "install.filesistem" in done.stderr


def test_errors_of_a_missing_source_say_what_and_what_to_do(tmp_path):
    done = cfs("image", "digest", "somewhere")
    assert done.returncode == 2
    assert "names no transport" in done.stderr
    assert "hint" in done.stderr
    assert done.stdout == ""


def test_secrets_in_the_environment_do_not_reach_logs(tmp_path):
    done = cfs("--log-level", "debug", "image", "digest", "docker://user:hunter2secret@localhost:1/x")
    assert done.returncode != 0
    assert "hunter2secret" not in done.stderr + done.stdout
