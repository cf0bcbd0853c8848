"""Hashes of many blocks of one size: by hashlib, or by a plugin's library where that is right and faster here.

fs-verity hashes every 4096 bytes by themselves (Linux, Documentation/filesystems/fsverity.rst), so that many of them
can be in a processor's vector registers at once. What does it is chosen once in a process for each algorithm: an offer
is compared with hashlib, and the fastest that agrees is taken. Nothing that follows depends on which it was.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import threading
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfs_core.errors import CfsError
from cfs_core.model.digest import HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from hashlib import _Hash

    from cfs_core.interfaces.hasher import BlockHasher

BLOCK: Final = 4096
"""Bytes in a block of fs-verity."""

REFERENCE: Final = "hashlib"
"""What is used where nothing else is right and faster."""

# With fewer, a library's lanes are empty and its call costs more than it saves (measured: 8 SHA-512 lanes).
_FEWEST = 8
_MEASURED = 128  # blocks; half a millisecond of SHA-512
_ROUNDS = 3
# Counts around the lanes of vector registers and around bursts; sizes that fs-verity hashes: blocks, descriptors.
_PROVEN_COUNTS = (1, 2, 7, 8, 9, 15, 16, 17, 127, 128, 129)
_PROVEN_SIZES = (BLOCK, 256)


@dataclass(frozen=True, slots=True)
class Offer:
    """A hasher that a plugin makes, by its provider's name."""

    name: str
    make: Callable[[], BlockHasher]


@dataclass(frozen=True, slots=True)
class Choice:
    """What hashes blocks in this process, and how fast, in bytes per second of one thread."""

    name: str
    hash_blocks: Callable[[memoryview, int], bytes]
    rates: dict[str, float]
    """Of everything that was tried and is right, by name; ``hashlib`` among them."""

    refused: dict[str, str]
    """Why the others are not used, by name."""


class _Process:
    """What was offered and chosen in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.offers: Callable[[], Iterable[Offer]] = tuple
        self.refuse: Callable[[str, str], object] = lambda _name, _reason: None
        self.made: dict[str, BlockHasher | str] | None = None
        self.choices: dict[HashAlgorithm, Choice] = {}

    def tell(self, name: str, reason: str) -> None:
        """Say that *name* is not used; whoever is told may be gone, and its trouble is none of who hashes."""
        with contextlib.suppress(Exception):
            self.refuse(name, reason)

    def hashers(self) -> dict[str, BlockHasher | str]:
        """Return what was offered, made once, or why it was not, by name."""
        if self.made is None:
            self.made = {}
            for each in self.offers():
                try:
                    self.made[each.name] = each.make()
                except Exception as error:  # noqa: BLE001 - a plugin's library that is missing, or not the one it knows
                    reason = str(error) if isinstance(error, CfsError) else f"{type(error).__name__}: {error}"
                    self.made[each.name] = reason
                    self.tell(each.name, reason)
        return self.made


_process = _Process()


def offer(
    offers: Callable[[], Iterable[Offer]], refuse: Callable[[str, str], object] = lambda _name, _reason: None
) -> None:
    """Say what may be chosen from now on; *refuse* is told the name of what is not used after all, and why.

    *offers* is asked when the first blocks are hashed, once.
    """
    with _process.lock:
        _process.offers = offers
        _process.refuse = refuse
        _process.made = None
        _process.choices = {}


def portable() -> dict[str, bytes]:
    """Return what was offered for `adopt` in another process, pickled, by name; what cannot be is left out."""
    found = {}
    with _process.lock:
        for name, hasher in _process.hashers().items():
            if not isinstance(hasher, str):
                with contextlib.suppress(Exception):  # a plugin's; the other process then does without it
                    found[name] = pickle.dumps(hasher, pickle.HIGHEST_PROTOCOL)
    return found


def adopt(hashers: Mapping[str, bytes]) -> None:
    """Offer what `portable` returned in the process that started this one; proven and measured here again."""
    offer(lambda: [Offer(name, functools.partial(pickle.loads, data)) for name, data in hashers.items()])


def chosen(algorithm: HashAlgorithm) -> Choice:
    """Return what hashes blocks with *algorithm* here; the first call in a process tries what is offered."""
    choice = _process.choices.get(algorithm)
    if choice is None:
        with _process.lock:
            choice = _process.choices.get(algorithm)
            if choice is None:
                choice = _process.choices[algorithm] = _choose(algorithm)
    return choice


def hashes_together(algorithm: HashAlgorithm) -> bool:
    """Return whether many blocks in one call of `hash_blocks` take less time here than as many calls."""
    return chosen(algorithm).name != REFERENCE


def measured(algorithm: HashAlgorithm) -> Choice:
    """Return what would be `chosen` now, measured in any case."""
    with _process.lock:
        return _choose(algorithm, measure=True)


def hash_blocks(data: bytes | bytearray | memoryview, algorithm: HashAlgorithm, size: int = BLOCK) -> bytes:
    """Hash each *size* bytes of *data*, the last ones zero-padded, and return the digests one behind the other.

    *size* is a multiple of 64 up to 4096. Lets other threads run meanwhile where a plugin's library does it.
    """
    view = memoryview(data)
    whole = len(view) - len(view) % size
    head = view[:whole]
    hashes = _by_hashlib(head, size, algorithm) if whole < _FEWEST * size else _by_choice(head, size, algorithm)
    if whole < len(view):
        hashes += _constructor(algorithm)(bytes(view[whole:]).ljust(size, b"\0")).digest()
    return hashes


@functools.cache
def _constructor(algorithm: HashAlgorithm) -> Callable[[bytes | memoryview], _Hash]:
    import hashlib  # loads OpenSSL; what was offered is said at every start, also of commands that hash nothing

    return {HashAlgorithm.SHA256: hashlib.sha256, HashAlgorithm.SHA512: hashlib.sha512}[algorithm]


def _by_choice(data: memoryview, size: int, algorithm: HashAlgorithm) -> bytes:
    choice = chosen(algorithm)
    try:
        hashes = choice.hash_blocks(data, size)
        if len(hashes) == len(data) // size * algorithm.size:
            return hashes
        reason = f"{len(hashes)} bytes of digests for {len(data) // size} blocks"
    except Exception as error:  # noqa: BLE001 - a plugin's; what it was asked for is done without it
        reason = f"{type(error).__name__}: {error}"
    reference = _reference(algorithm)
    _process.choices[algorithm] = Choice(REFERENCE, reference, choice.rates, {**choice.refused, choice.name: reason})
    _process.tell(choice.name, reason)
    return reference(data, size)


def _by_hashlib(data: memoryview, size: int, algorithm: HashAlgorithm) -> bytes:
    new = _constructor(algorithm)
    return b"".join([new(data[at : at + size]).digest() for at in range(0, len(data), size)])


def _reference(algorithm: HashAlgorithm) -> Callable[[memoryview, int], bytes]:
    return lambda data, size: _by_hashlib(data, size, algorithm)


def _choose(algorithm: HashAlgorithm, *, measure: bool = False) -> Choice:
    best = _reference(algorithm)
    offered = _process.hashers()
    if not offered and not measure:
        return Choice(REFERENCE, best, {}, {})
    sample = memoryview(bytes(range(256)) * (_MEASURED * BLOCK // 256))
    name = REFERENCE
    rates = {name: _rate(best, sample)}
    refused = {}
    for each, hasher in offered.items():
        if isinstance(hasher, str):
            refused[each] = hasher
            continue
        found = _bound(hasher, algorithm)
        reason = _disagreement(found, algorithm)
        if reason:
            refused[each] = reason
            _process.tell(each, reason)
            continue
        rates[each] = _rate(found, sample)
        if rates[each] > rates[name]:
            name, best = each, found
    return Choice(name, best, rates, refused)


def _bound(hasher: BlockHasher, algorithm: HashAlgorithm) -> Callable[[memoryview, int], bytes]:
    return lambda data, size: hasher.hash_blocks(data, size, algorithm)


def _disagreement(found: Callable[[memoryview, int], bytes], algorithm: HashAlgorithm) -> str:
    """Say where *found* hashes other than hashlib; empty where it never does."""
    pattern = array("I", range(max(_PROVEN_COUNTS) * BLOCK // 4 + 1)).tobytes()
    for size in _PROVEN_SIZES:
        for count in _PROVEN_COUNTS:
            # One byte further each time: at any address, and never the same blocks twice.
            data = memoryview(pattern)[count % 4 : count % 4 + count * size]
            try:
                hashes = found(data, size)
            except Exception as error:  # noqa: BLE001 - a plugin's
                return f"{type(error).__name__}: {error}"
            if hashes != _by_hashlib(data, size, algorithm):
                return f"{algorithm.value} of {count} blocks of {size} bytes is not what {REFERENCE} says"
    return ""


def _rate(found: Callable[[memoryview, int], bytes], sample: memoryview) -> float:
    """Return the best of a few rounds in bytes per second; the first one warms up."""
    best = 0.0
    for _ in range(_ROUNDS):
        before = time.perf_counter()
        found(sample, BLOCK)
        best = max(best, len(sample) / max(time.perf_counter() - before, 1e-9))
    return best
