"""A machine that bootc installed, at each stage of its life: status, then upgrade, rollback and gc by cfs."""

from __future__ import annotations

import configparser
import json
import re

import pytest
from builders.bootc_stages import KINDS, STAGES, Template, seen
from builders.lifecycle_kit import finalized, run, staged

from cfs_core.lifecycle.document import document

BY_NAME = {stage.name: stage for stage in STAGES}
OFTEN = ("6-third-staged",)
"""The stage that every change is tried on; the others take part in the campaign."""


@pytest.fixture(scope="module", params=KINDS)
def template(request, tmp_path_factory):
    return Template(request.param, tmp_path_factory.mktemp(request.param))


def numbers(template, found):
    """Which versions are staged, booted and the rollback."""
    names = {identity: number for number, identity in template.ids.items()}
    entries = (found["status"][name] for name in ("staged", "booted", "rollback"))
    return tuple(entry and names[entry["composefs"]["verity"]] for entry in entries)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_status(template, stage, tmp_path):
    machine = template.at(stage, tmp_path)
    found = document(machine.read())
    other = next((number for number in stage.order if number != stage.booted), None)
    assert numbers(template, found) == (stage.staged, stage.booted, other)
    queued = stage.order[0] != stage.booted
    assert (found["spec"]["bootOrder"], found["status"]["rollbackQueued"]) == (
        "rollback" if queued else "default", queued,
    )  # fmt: skip
    assert found["status"]["usrOverlay"] == (
        {"accessMode": "readWrite", "persistence": "transient"} if stage.overlay else None
    )
    booted = found["status"]["booted"]
    assert (booted["image"]["version"], booted["image"]["architecture"]) == (f"v{stage.booted}", "amd64")
    assert booted["composefs"]["bootType"] == {"bls": "Bls", "uki": "Uki"}[template.kind]
    assert found["cfs"]["problems"] == ()
    assert run(machine, "status").exit_code == 0


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_what_bootc_says_of_it(template, stage, tmp_path):
    """The same as a real bootc, but for what its own bug is: the boot order of UKIs."""
    folder = seen(template.kind, stage)
    if folder is None:
        pytest.skip("CFS_BOOTC_STAGES names no directory with this stage")
    theirs = json.loads((folder / "status.json").read_text())
    ours = document(template.at(stage, tmp_path).read())
    texts = dict(zip(("staged", "booted", "rollback"), numbers(template, ours), strict=True))
    for name, number in texts.items():
        entry = theirs["status"][name]
        assert (entry is None) is (number is None)
        if entry is not None:
            assert re.fullmatch(rf".*:v{number}u?", entry["image"]["image"]["image"])
            mine = ours["status"][name]
            same = ("cachedUpdate", "incompatible", "pinned", "softRebootCapable", "downloadOnly", "store", "ostree")
            assert [entry[key] for key in same] == [mine[key] for key in same]
            assert entry["composefs"].keys() == mine["composefs"].keys()
            assert entry["image"].keys() == mine["image"].keys()
    assert theirs["status"]["usrOverlay"] == ours["status"]["usrOverlay"]
    assert theirs["status"].keys() - {"otherDeployments"} == ours["status"].keys() - {"otherDeployments"}
    if template.kind == "bls":
        assert theirs["spec"]["bootOrder"] == ours["spec"]["bootOrder"]


def test_the_stages_are_those_that_were_seen(template, tmp_path):
    """Names, keys and paths of entries are as a real bootc wrote them."""
    if seen(template.kind, STAGES[0]) is None:
        pytest.skip("CFS_BOOTC_STAGES names no such directory")
    for stage in STAGES:
        folder = seen(template.kind, stage)
        (tmp_path / stage.name).mkdir()
        machine = template.at(stage, tmp_path / stage.name)
        names = {}
        for path in sorted(folder.glob("origins/*.origin")):
            number = re.search(r":v(\d)u?$", path.read_text(), re.MULTILINE)[1]
            names[path.stem] = template.ids[int(number)]
        for kind in ("entries", "entries.staged"):
            ours = machine.root / "boot/loader" / kind
            theirs = {_renamed(path.name, names): path.read_text() for path in folder.glob(f"{kind}/*")}
            assert set(theirs) == ({path.name for path in ours.iterdir()} if ours.is_dir() else set())
            for name, text in theirs.items():
                keys = [line.split(" ")[0] for line in text.splitlines()]
                mine = (ours / name).read_text()
                assert [line.split(" ")[0] for line in mine.splitlines()] == keys
                for key in ("version", "linux", "initrd", "uki", "sort-key"):
                    line = re.search(rf"^{key} .*$", _renamed(text, names), re.MULTILINE)
                    assert line is None or line[0] in mine
        state = {path.name for path in (machine.root / "sysroot/state/deploy").iterdir()}
        assert state == set(names.values())


def _renamed(text, names):
    for old, new in names.items():
        text = text.replace(old, new)
    return text.replace("bootc_debian-", "bootc_test-").replace("bootc-debian-", "bootc-test-")


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.campaign) for name in BY_NAME]
)
def test_cfs_takes_over(template, name, tmp_path):
    """Upgrade, go back, collect: what lives starts, and what is on the disk is what bootc expects."""
    machine = template.at(BY_NAME[name], tmp_path)
    old = machine.read().running.booted
    template.publish(4)
    done = staged(machine)
    assert done.result == "staged"
    assert finalized(machine).result == "finalized"
    assert machine.reboot() == done.image_id
    found = machine.read()
    assert found.rollback.id == old
    run(machine, "rollback")
    assert machine.reboot() == old
    run(machine, "gc")
    assert run(machine, "fsck").exit_code == 0
    found = machine.read()
    assert found.status.problems == found.status.notes == ()
    assert {each.id for each in found.status.deployments} == {old, done.image_id}
    images = {path.name for path in (machine.root / "sysroot/composefs/images").iterdir() if path.is_symlink()}
    assert images >= {old, done.image_id}
    _as_bootc_expects(machine, template.kind, [old, done.image_id])


@pytest.mark.parametrize("name", ["1-staged", pytest.param("6-third-staged", marks=pytest.mark.campaign)])
def test_cfs_finalizes_what_bootc_staged(template, name, tmp_path):
    stage = BY_NAME[name]
    machine = template.at(stage, tmp_path)
    assert finalized(machine).result == "finalized"
    new, old = template.ids[stage.staged], template.ids[stage.booted]
    assert machine.reboot() == new
    found = machine.read()
    assert (found.rollback.id, found.status.problems) == (old, ())
    _as_bootc_expects(machine, template.kind, [new, old])


def _as_bootc_expects(machine, kind, order):
    """Field by field: entries, origins, boot files, tags; best first."""
    root = machine.root
    entries = sorted((root / "boot/loader/entries").iterdir(), key=lambda path: path.name.rpartition("-")[2])
    assert len(entries) == len(order)
    for rank, (path, identity) in enumerate(zip(reversed(entries), order, strict=True)):
        match = re.fullmatch(r"bootc_([a-z0-9_.]+)-(.+)-([01])\.conf", path.name)
        assert match is not None
        assert int(match[3]) == 1 - rank
        lines = [line.split(" ", 1) for line in path.read_text().splitlines()]
        fields = dict(lines)
        # systemd-boot knows the key uki since version 258; for that of the tests cfs writes efi, which means the same.
        uki = "efi" if "efi" in fields else "uki"
        wanted = ["linux", "initrd", "options"] if kind == "bls" else [uki]
        assert [key for key, _ in lines] == ["title", "version", *wanted, "sort-key"]
        assert fields["sort-key"] == f"bootc-{match[1]}-{rank}"
        if kind == "bls":
            words = fields["options"].split(" ")
            assert [word for word in words if word.startswith("composefs=")] == [f"composefs={identity}"]
            names = re.fullmatch(r"/EFI/Linux/bootc_composefs-([0-9a-f]{128})/vmlinuz", fields["linux"])
            assert fields["initrd"] == f"/EFI/Linux/bootc_composefs-{names[1]}/initrd"
        else:
            assert fields[uki] == f"/EFI/Linux/bootc/bootc_composefs-{identity}.efi"
        for key in ("linux", "initrd", uki):
            assert key not in fields or (root / "boot" / fields[key].lstrip("/")).is_file()
        _origin_as_bootc_expects(root, kind, identity)
    assert not (root / "boot/loader/entries.staged").exists()
    assert not (root / "run/composefs/staged-deployment").exists()


def _origin_as_bootc_expects(root, kind, identity):
    folder = root / "sysroot/state/deploy" / identity
    parser = configparser.RawConfigParser(delimiters=("=",))
    parser.read_string((folder / f"{identity}.origin").read_text())
    assert parser["origin"]["container-image-reference"].startswith("ostree-unverified-image:oci:")
    assert parser["boot"]["boot_type"] == kind
    assert re.fullmatch(r"[0-9a-f]{64}", parser["boot"]["digest"])
    manifest = parser["image"]["manifest_digest"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", manifest)
    assert (folder / "etc").is_dir()
    link = root / "sysroot/composefs/images" / identity
    assert re.fullmatch(r"\.\./objects/[0-9a-f]{2}/[0-9a-f]{126}", str(link.readlink()))
    tags = {path.name for path in (root / "sysroot/composefs/streams/refs/oci").iterdir()}
    assert f"localhost%2Fbootc-{manifest}" in tags
