"""One sync for many threads: each has one that began after it asked, and they are fewer than threads."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from cfs_storage_composefs.repository.syncing import SharedSync


class Disk:
    """Counts syncs, and remembers what each has made durable: what was written before it began."""

    def __init__(self):
        self.written = set()
        self.durable = set()
        self.syncs = 0
        self.failures = 0

    def sync(self):
        before = set(self.written)
        self.syncs += 1
        time.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "I/O error")
        self.durable |= before


def run(disk, threads, rounds):
    shared = SharedSync(disk.sync)
    early, errors = [], []

    def work(number):
        for turn in range(rounds):
            disk.written.add((number, turn))
            try:
                shared()
            except OSError as error:
                errors.append(error)
                continue
            if (number, turn) not in disk.durable:
                early.append((number, turn))

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
        assert not thread.is_alive()
    return early, errors


def test_nobody_goes_on_before_it_is_durable():
    disk = Disk()
    assert run(disk, 8, 10) == ([], [])
    assert disk.syncs < 8 * 10 / 2


def test_alone_every_call_syncs():
    disk = Disk()
    assert run(disk, 1, 3) == ([], [])
    assert disk.syncs == 3


@pytest.mark.parametrize("failures", [1, 3])
def test_an_error_is_told_once_and_does_not_count_as_a_sync(failures):
    disk = Disk()
    disk.failures = failures
    early, errors = run(disk, 6, 4)
    assert early == []
    assert [error.errno for error in errors] == [errno.EIO] * failures
