"""Images, layers and dump files, damaged by seed: read or refused with an explanation, never an internal error.

A sample here, 2,000 of each by `make campaign`. A failure prints the seed and what was done.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import shutil

import pytest
from builders import bootable
from builders.damaged_tree import damaged
from builders.in_process import in_process
from cfs_fuzz.mutate import mutations
from cfs_fuzz.targets.layers import with_checksums
from cfs_fuzz.targets.storage import dumps

from cfs_core.plugin import HashAlgorithm
from cfs_testkit.builders.oci import Image, layer, write_layout

SAMPLE, CAMPAIGN = 40, 2000
NOT_EXPLAINED = {1, 4, 14}
"""Exit statuses of an internal error, a plugin's fault and a fault of the host."""

WORDS = (b'"digest"', b'"size"', b"sha256:", b"[" * 2000, b"1e999", b'"mediaType"', b"ustar", b".wh.", b"\0", b"{}")


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """Run cfs in this process; return its exit status, what it printed, and what it complained of."""
    return in_process(tmp_path, monkeypatch, capfd)


def explained(status, err, what):
    """Fail unless all is well, or it is said what is not."""
    assert status not in NOT_EXPLAINED, f"{what}\n{err}"
    assert "[internal]" not in err, f"{what}\n{err}"
    assert "Traceback" not in err, f"{what}\n{err}"
    assert status == 0 or re.search(r"^error: .+\[[a-z.-]+\]$", err, re.MULTILINE), f"{what}\n{err}"


# --- layouts and layers ---------------------------------------------------------------------------------------------


def tree():
    """A small image with everything that a layer may hold."""
    from cfs_fuzz.targets.layers import TREE

    return Image([layer(TREE), layer({"etc/a": b"1", "usr/.wh.old": b""}, "zstd"), layer({"b": b"2"}, "none")])


def damage_layout(folder, seed):
    """Change one file of a layout; every other time what refers to it is made to fit again. Return what was done."""
    chance = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    made = tree()
    write_layout(folder, {"t": made})
    blobs = folder / "blobs/sha256"
    files = [folder / "index.json", folder / "oci-layout", *sorted(blobs.iterdir())]
    path = chance.choice(files)
    data = path.read_bytes()
    changed = next(mutations(seed, [data], WORDS))
    if path.parent == blobs and chance.random() < 0.2:
        changed = with_checksums(changed)
    path.write_bytes(changed)
    if path.parent == blobs and chance.random() < 0.7:
        rename(folder, path.name, changed)
    return f"seed {seed}: {path.relative_to(folder)} is {changed[:300]!r} ({len(data)} bytes, now {len(changed)})"


def rename(folder, old, changed):
    """Give a blob the name that its bytes have, and its new digest and size to whatever names it."""
    blobs = folder / "blobs/sha256"
    new = hashlib.sha256(changed).hexdigest()
    (blobs / old).rename(blobs / new)
    for path in (*sorted(blobs.iterdir()), folder / "index.json"):
        text = path.read_bytes()
        if old.encode() in text and text.startswith(b"{"):
            fitting = text.replace(old.encode(), new.encode())
            fitting = re.sub(rb'(%s",\s*"size":\s*)\d+' % new.encode(), rb"\g<1>%d" % len(changed), fitting)
            path.write_bytes(fitting)
            if path.parent == blobs:
                rename(folder, path.name, fitting)


def read_layouts(cli, folder, seeds):
    statuses = set()
    for seed in seeds:
        what = damage_layout(folder / "oci", seed)
        command = ("digest", "dump")[seed % 2]
        status, _, err = cli("image", command, f"oci:{folder}/oci:t")
        explained(status, err, what)
        statuses.add(status)
    assert len(statuses) > 2, "nothing was refused, or everything"


def test_damaged_layouts_and_layers(cli, tmp_path):
    read_layouts(cli, tmp_path, range(SAMPLE))


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_two_thousand_damaged_layouts_and_layers(cli, tmp_path):
    read_layouts(cli, tmp_path, range(10_000, 10_000 + CAMPAIGN))


# --- dump files -----------------------------------------------------------------------------------------------------


def read_dumps(cli, folder, count, seed):
    statuses = set()
    path = folder / "dump"
    words = (b"\\x00", b" 40755 ", b" @100644 ", b" - ", b"\t", b"security.capability=")
    for number, data in enumerate(itertools.islice(mutations(seed, dumps(HashAlgorithm.SHA512), words), count)):
        path.write_bytes(data)
        status, _, err = cli("image", "digest", f"dump:{path}")
        explained(status, err, f"mutation {number} of seed {seed}: {data[:300]!r}")
        statuses.add(status)
    assert len(statuses) > 1, "nothing was refused, or everything"


def test_damaged_dump_files(cli, tmp_path):
    read_dumps(cli, tmp_path, SAMPLE, 1)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_two_thousand_damaged_dump_files(cli, tmp_path):
    read_dumps(cli, tmp_path, CAMPAIGN, 2)


# --- bootable images ------------------------------------------------------------------------------------------------


def judge_images(cli, folder, seeds):
    statuses = set()
    for seed in seeds:
        change = damaged(seed, bootable.tree(), steps=1 + seed % 3)
        shutil.rmtree(folder / "oci", ignore_errors=True)
        write_layout(folder / "oci", {"t": Image([layer(change.tree, "none")])})
        status, out, err = cli("image", "check", f"oci:{folder}/oci:t", "--format", "json")
        if "[plugin]" in err:  # no loader is left in the image
            assert "no bootloader can be chosen" in err, change.what
            continue
        explained(status, err, change.what)
        (judgement,) = json.loads(out)["judgements"]
        assert (judgement["exit_status"], bool(judgement["code"])) == (status, status != 0), change.what
        assert "hint: " in err or status == 0, f"{change.what}\n{err}"
        statuses.add(status)
    assert {0, 8, 11} <= statuses


def test_damaged_bootable_images_are_refused_or_taken(cli, tmp_path):
    judge_images(cli, tmp_path, range(SAMPLE))


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_two_thousand_damaged_bootable_images(cli, tmp_path):
    judge_images(cli, tmp_path, range(10_000, 10_000 + CAMPAIGN))


def test_the_same_seed_does_the_same():
    for seed in range(30):
        first, second = (damaged(seed, bootable.tree(), steps=3) for _ in range(2))
        assert (first.what, first.tree) == (second.what, second.tree)
