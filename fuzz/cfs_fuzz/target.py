"""What a target is, and the rule that all of them are held to."""

from __future__ import annotations

import errno
import importlib
import pkgutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cfs_core.errors import CfsError

ROOM = Path(__file__).resolve().parents[1]
CORPUS, REGRESSIONS = ROOM / "corpus", ROOM / "regressions"
SECONDS = 5.0
"""Of the CPU, for one input: what takes longer is a hang."""

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL}

TARGETS: dict[str, Target] = {}


class BrokenRuleError(Exception):
    """An input did something else than be read, or be refused with an explanation."""


@dataclass(frozen=True)
class Target:
    """One parser. *run* is given any bytes; *seeds* are inputs that it takes, made by our own builders."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    """Tokens of the format, for the fuzzer to put in."""

    absent: bool = False
    """Whether the interface says "not there" as the os module does: readers of filesystems."""

    largest: int = 65536
    """Bytes of an input that is made up."""

    def corpus(self) -> list[bytes]:
        """Return what builders make, what was worth keeping, and every crash that was found, each once."""
        kept = [
            path.read_bytes() for folder in (CORPUS, REGRESSIONS) for path in sorted((folder / self.name).glob("*"))
        ]
        return list(dict.fromkeys([*self.seeds(), *kept]))


def target(
    name: str,
    seeds: Callable[[], Iterable[bytes]],
    words: Iterable[bytes] = (),
    *,
    absent: bool = False,
    largest: int = 65536,
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Declare the function below as target *name*."""

    def declare(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        if name in TARGETS:
            msg = f"two targets are named {name}"
            raise ValueError(msg)
        TARGETS[name] = Target(name, run, seeds, tuple(words), absent, largest)
        return run

    return declare


def load_targets() -> dict[str, Target]:
    """Import all targets and return them by name."""
    from cfs_fuzz import targets

    for module in pkgutil.iter_modules(targets.__path__):
        importlib.import_module(f"cfs_fuzz.targets.{module.name}")
    return dict(sorted(TARGETS.items()))


def check(which: Target, data: bytes) -> bool:
    """Give *data* to a parser and return whether it was taken.

    Raises:
        BrokenRuleError: an error without code or message, or too slow.
        Exception: whatever the parser let out: a fault of the parser.
    """
    began = time.process_time()
    taken = True
    try:
        which.run(data)
    except CfsError as error:
        if error.code == "internal" or not error.message:
            msg = f"an error that explains nothing: {error!r}"
            raise BrokenRuleError(msg) from error
        taken = False
    except OSError as error:
        if not which.absent or error.errno not in _ABSENT:
            raise
        taken = False
    took = time.process_time() - began
    if took > SECONDS:
        msg = f"{took:.1f} s for {len(data)} bytes"
        raise BrokenRuleError(msg)
    return taken
