"""Names of new plugins: what is taken is refused, and whatever is free makes classes that work."""

from __future__ import annotations

import importlib
import json
import keyword
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from builders.distributions import Site

from cfs_core.cli.scaffold import KINDS, NewPlugin, write_project
from cfs_core.errors import RefusedError, UsageError
from cfs_core.pluginhost import families
from cfs_testkit.context import plugin_context

CHECKOUT = Path(__file__).parents[2]
ODD = ["2boot", "my-loader", "list", "none", "class", "import", "true", *KINDS, "finding", "stanza", "my-bootloader"]
MADE = {
    "bootloader": families.BOOTLOADERS,
    "transport": families.TRANSPORTS,
    "storage": families.STORAGE,
    "policy": families.POLICIES,
}


def cfs(*words, cwd):
    argv = [sys.executable, "-m", "cfs_core", "plugins", "new", *words]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ODD)
def test_classes_of_any_name_work(kind, name, tmp_path, monkeypatch):
    if (kind, name) == ("transport", "2boot"):
        pytest.skip("no scheme begins with a digit")
    project = write_project(kind, name, tmp_path / "project")
    tomllib.loads((project / "pyproject.toml").read_text())
    monkeypatch.syspath_prepend(project)
    made = NewPlugin(kind, name)
    module = importlib.import_module(f"{made.package}.plugin")
    family = MADE[kind]
    (provider,) = getattr(module, family.hook)()
    assert provider.name == name
    work = provider.factory(plugin_context(scratch=tmp_path))
    assert isinstance(work, family.interface())
    assert type(work).__name__ == made.class_name
    assert not keyword.iskeyword(made.class_name)
    compile((project / "tests/test_contract.py").read_text(), "test_contract.py", "exec")
    for loaded in [key for key in sys.modules if key.partition(".")[0] == made.package]:
        del sys.modules[loaded]


def test_every_distribution_and_package_of_this_project_is_taken(tmp_path):
    projects = [CHECKOUT / "cfs_core", CHECKOUT / "packages/cfs-installer"]
    projects += [path.parent for path in (CHECKOUT / "plugins").rglob("pyproject.toml") if ".venv" not in path.parts]
    names = {tomllib.loads((path / "pyproject.toml").read_text())["project"]["name"] for path in projects}
    names |= {folder.name for path in projects for folder in path.glob("cfs_*") if folder.is_dir()} | {"cfs-core"}
    assert len(names) >= 14
    for name in sorted(names):
        with pytest.raises(RefusedError, match="is taken"):
            write_project("policy", name.replace("_", "-").removeprefix("cfs-"), tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name", "whose"),
    [
        ("bootloader", "core", "cfs-core"),
        ("bootloader", "grub", "cfs-grub"),
        ("transport", "oci", "cfs-transport-oci-dir"),
        ("transport", "docker", "cfs-transport-registry"),
        ("policy", "digest-pinned", "cfs-policies"),
    ],
)
def test_names_of_others_are_refused_with_whose_they_are(kind, name, whose, tmp_path):
    done = cfs(kind, name, cwd=tmp_path)
    assert done.returncode == RefusedError.exit_status
    assert whose in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_of_an_installed_plugin_of_others_are_refused(tmp_path):
    plugin = """
from cfs_core.plugin import TransportProvider, hookimpl
CFS_PLUGIN_API = (2, 0)

@hookimpl
def cfs_register_transports():
    return [TransportProvider(name="carrier", summary="pigeons", factory=lambda context: None, schemes=("pigeon",))]
"""
    site = Site(tmp_path / "site").install("cfs-birds", "1.0", {"birds": "cfs_birds"}, {"cfs_birds.py": plugin})
    for name, said in {"carrier": "offers it", "pigeon": "offers it", "birds": "cfs-birds"}.items():
        done = site.cfs("plugins", "new", "transport", name, "--directory", str(tmp_path / "project"))
        assert done.returncode == RefusedError.exit_status, done.stderr
        assert said in done.stderr
        assert not (tmp_path / "project").exists()


def test_a_loader_gets_no_folder_of_others(tmp_path):
    for name in ("boot", "linux", "systemd", "microsoft"):
        with pytest.raises(RefusedError, match=f"/EFI/{name}"):
            write_project("bootloader", name, tmp_path / "project")


def test_schemes_begin_with_a_letter(tmp_path):
    with pytest.raises(UsageError, match="2boot"):
        write_project("transport", "2boot", tmp_path / "project")


def test_what_is_written_is_told(tmp_path):
    done = cfs("policy", "fresh", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["path"], "wheels/README.md").exists()
