"""`cfs plugins new` as outsiders use it: wheels in a fresh environment, contracts green, `cfs` using the result."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from builders.outsiders import CHECKOUT, CORE, Outside, build_wheels, core_and_default_plugins

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


KINDS = ("bootloader", "transport", "storage", "policy")
IMAGES = """
import sys
from pathlib import Path
from cfs_testkit.layouts import bootable_image, efi_program, write_layout
image = bootable_image({"usr/lib/made-bootloader/made-bootloaderx64.efi": efi_program()}, labels={"vendor": "us"})
write_layout(image, Path("oci"))
folder = Path("plain/sha256")
folder.mkdir(parents=True)
(folder.parent / "manifest.json").write_bytes(image.manifest)
for name, data in image.blobs.items():
    (folder / name.removeprefix("sha256:")).write_bytes(data)
"""
INITRAMFS = """
from cfs_core.plugin import Initramfs, InitramfsProvider, InitramfsVerdict, hookimpl

CFS_PLUGIN_API = (2, 0)


class Ours(Initramfs):
    def examine(self, artifacts, image, storage_format):
        return InitramfsVerdict(supported=storage_format == "made-storage" or None, handler="ours", arguments=("rw",))


@hookimpl
def cfs_register_initramfs():
    return [InitramfsProvider(name="ours", summary="mounts made-storage", factory=lambda context: Ours())]
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    build_wheels(folder, [*core_and_default_plugins(), CHECKOUT / "plugins/testkit"])
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Core and the kit, nothing else: what the author of a plugin needs."""
    folder = tmp_path_factory.mktemp("author") / "outside"
    return Outside.make(folder, [CORE, CHECKOUT / "plugins/testkit"], extra=("hatchling",))


@pytest.fixture(scope="module")
def projects(outside, tmp_path_factory):
    """A new project of each kind, with its wheel in ``dist``."""
    folder = tmp_path_factory.mktemp("projects")
    for kind in KINDS:
        outside.ok("cfs", "plugins", "new", kind, f"made-{kind}", cwd=folder)
        outside.ok(
            "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".",
            cwd=folder / f"cfs-made-{kind}",
        )  # fmt: skip
    return {kind: folder / f"cfs-made-{kind}" for kind in KINDS}


@pytest.fixture(scope="module")
def user(wheels, projects, tmp_path_factory):
    """Somebody who has cfs with its default plugins, the kit and all new plugins, and an image in their directory."""
    folder = tmp_path_factory.mktemp("user")
    made = Outside.empty(folder / "environment")
    new = [wheel for project in projects.values() for wheel in (project / "dist").glob("*.whl")]
    made.ok("pip", "install", "--quiet", *sorted(wheels.glob("*.whl")), *new, timeout=600)
    made.ok("python", "-c", IMAGES)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_project_is_a_plugin_that_conforms(outside, projects, tmp_path, kind):
    name = f"made-{kind}"
    project = tmp_path / "project"
    shutil.copytree(projects[kind], project)
    assert {"pyproject.toml", "README.md", ".github", "tests"} <= {path.name for path in project.iterdir()}
    outside.ok("pip", "install", "--quiet", "--no-deps", *(project / "dist").glob("*.whl"))
    shutil.rmtree(project / f"cfs_made_{kind}")  # what is tested is what is installed
    said = outside.run("pytest", "-q", "-p", "no:cacheprovider", "--cfs-report", "report.json", cwd=project)
    assert said.returncode == 0, said.stdout[-4000:]
    assert "SKIPPED" not in said.stdout  # a line for each would bury the verdict
    report = json.loads((project / "report.json").read_text())
    assert report["conforms"] is True
    for contract in report["contracts"]:
        plugin = {"name": name, "distribution": f"cfs-{name}", "version": "0.1.0"}
        assert (contract["provider"], contract["plugin"]) == (name, plugin)
        assert contract["summary"]["passed"] > 10
    listed = json.loads(outside.ok("cfs", "plugins", "list", "--format", "json"))["providers"]
    assert [p["distribution"] for p in listed if p["name"] == name] == [f"cfs-{name}"]
    doctor = json.loads(outside.run("cfs", "plugins", "doctor", "--format", "json").stdout)
    assert [trouble for trouble in doctor["troubles"] if trouble["plugin"] == name] == []


def test_cfs_reads_an_image_through_a_new_transport(user):
    digest = user.ok("cfs", "image", "digest", "oci:oci:latest", "--bootable")
    assert user.ok("cfs", "image", "digest", "made-transport:plain", "--bootable") == digest
    user.ok("cfs", "image", "pull", "made-transport:plain", "--repo", "repo-transport")


INSTALL = (
    "install",
    "to-disk",
    "--source-imgref",
    "oci:oci:latest",
    "--bootloader",
    "made-bootloader",
    "--yes",
    "--repo",
)


def test_cfs_asks_a_new_policy(user):
    settings = user.folder / "policy.toml"
    refused = "policy made-policy refuses oci:oci:latest: the label vendor"
    for label, status, said in (("us", 0, ""), ("them", 7, refused)):
        settings.write_text(
            f'[policy]\nrequire = ["made-policy"]\n[policy.settings.made-policy]\nlabels = {{vendor = "{label}"}}\n'
        )
        done = user.run("cfs", "--config", settings, *INSTALL, "repo-policy", "--composefs-native", f"{label}.img")
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr
        assert (user.folder / f"{label}.img").exists() is (status == 0)


def test_cfs_installs_in_a_new_storage_format(user, tmp_path):
    """Until something says that an initramfs can mount it, the install is refused, as the project's README says."""
    chosen = {"CFS_INSTALL_STORAGE": "made-storage"}
    done = user.run("cfs", *INSTALL, "repo-storage", "storage.img", **chosen)
    assert (done.returncode, "[boot.initramfs]" in done.stderr) == (11, True), done.stderr
    package = next((user.folder / "lib").glob("python*/site-packages"))
    (package / "ours.py").write_text(INITRAMFS)
    facts = package / "cfs_ours-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: cfs-ours\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[cfs.plugins]\nours = ours\n")
    plan = user.ok("cfs", *INSTALL, "repo-storage", "--dry-run", "storage.img", **chosen)
    assert "storage   made-storage" in plan
    said = user.ok("cfs", *INSTALL, "repo-storage", "storage.img", **chosen)
    assert "read back and verified" in said


@pytest.mark.parametrize("kind", KINDS)
def test_the_ci_file_hides_nothing(user, projects, kind):
    steps = yaml.safe_load((projects[kind] / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    assert steps["strategy"]["matrix"]["dependencies"] == ["lowest-direct", "highest"]
    commands = [step["run"] for step in steps["steps"] if "run" in step]
    assert not any("||" in command for command in commands)
    assert not any("continue-on-error" in step for step in steps["steps"])
    assert commands[2:] == ["cfs plugins doctor", "pytest --cfs-report report.json"]
    user.ok("cfs", "plugins", "doctor")


def test_from_an_empty_directory_to_a_disk(wheels):
    """The recorded script: only wheels, a new bootloader, its contract, an installed disk, its check."""
    done = subprocess.run(
        [CHECKOUT / "scripts/new-plugin", wheels, "my-loader"],
        env={name: value for name, value in os.environ.items() if not name.startswith(("CFS_", "PYTHON"))},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "BootloaderContract my-loader: conforms" in done.stdout


@pytest.mark.parametrize("name", ["Upper", "under_score", "1st", "-x", "a--b", "a b", "", "a/b", "../up"])
def test_names_that_no_provider_can_have_are_refused(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-m", "cfs_core", "plugins", "new", "policy", "--", name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "cfs-mine").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cfs_core", "plugins", "new", "policy", "mine"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert list((tmp_path / "cfs-mine").iterdir()) == []
