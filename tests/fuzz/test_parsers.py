"""Every parser of what cfs did not write: kept inputs, what broke it once, and a few seeded mutations.

`make fuzz` looks for more, guided by coverage; `python -m cfs_fuzz mutate NAME --seed N` repeats what is done here.
"""

from __future__ import annotations

import itertools
import resource
import shutil
import time

import pytest
from cfs_fuzz.mutate import mutations
from cfs_fuzz.target import CORPUS, REGRESSIONS, check, load_targets

TARGETS = load_targets()
SECONDS_EACH = 0.6
"""Of mutations: all targets together take half a minute."""

MOST = 1500
SEED = 20
GROWTH = 512 << 10
"""KiB that this process may grow by for one target."""

CRASHES = [(folder.name, path) for folder in sorted(REGRESSIONS.iterdir()) for path in sorted(folder.iterdir())]

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") for tool in ("mkfs.ext4", "mkfs.vfat", "debugfs")),
    reason="e2fsprogs and dosfstools make the disks that are changed",
)


def test_there_are_targets_for_everything_and_folders_for_targets_only():
    assert len(TARGETS) >= 12
    folders = {path.name for room in (CORPUS, REGRESSIONS) for path in room.glob("*")}
    assert folders <= set(TARGETS)
    kept = [path.read_bytes() for room in (CORPUS, REGRESSIONS) for path in room.glob("*/*")]
    assert sum(map(len, kept)) < 1 << 20


@pytest.mark.parametrize(("name", "path"), CRASHES, ids=lambda value: getattr(value, "name", value))
def test_what_broke_a_parser_once_does_not_any_more(name, path):
    check(TARGETS[name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_explained_errors_comes_out(name):
    target = TARGETS[name]
    corpus = target.corpus()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(check(target, data) for data in corpus), "no seed is taken: the target tests nothing"
    end = time.monotonic() + SECONDS_EACH
    for number, data in enumerate(itertools.islice(mutations(SEED, corpus, target.words), MOST)):
        try:
            check(target, data)
        except Exception as error:
            error.add_note(f"mutation {number} of seed {SEED}: {data[:2000]!r}")
            raise
        if time.monotonic() > end:
            break
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
