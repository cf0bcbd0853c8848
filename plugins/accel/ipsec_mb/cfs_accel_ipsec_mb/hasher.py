"""Bursts of plain SHA-256 and SHA-512 through libipsec-mb.

What its header ``intel-ipsec-mb.h`` (2.0.0 and 2.0.2, amd64) says of the parts that are used, in bytes from the start:
in ``IMB_JOB`` (216 bytes) ``src`` 24, ``hash_start_src_offset_in_bytes`` 56, ``msg_len_to_hash_in_bytes`` 64,
``auth_tag_output`` 88, ``auth_tag_output_len_in_bytes`` 96, ``hash_alg`` 140; in ``IMB_MGR``
``submit_hash_burst_nocheck`` 1008. The library promises none of that to later versions (a job was 200 bytes in 1.3),
so only those are taken whose header was read.
"""

from __future__ import annotations

import platform
import sys
import threading
from array import array
from typing import TYPE_CHECKING, Any, Final

import cffi

from cfs_core.plugin import BlockHasher, HashAlgorithm, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.plugin import PluginContext

LIBRARY: Final = "libIPSec_MB.so.2"
KNOWN_VERSIONS: Final = frozenset({"2.0.0", "2.0.2"})

_BURST = 128
"""Jobs in a call; IMB_MAX_BURST_SIZE."""

_JOB_WORDS = 27
_SRC, _OFFSET, _LENGTH, _OUTPUT, _OUTPUT_LENGTH, _ALGORITHM = 3, 7, 8, 11, 12, 35  # the last in words of 32 bits
_NUMBERS = {HashAlgorithm.SHA256: 15, HashAlgorithm.SHA512: 17}  # IMB_AUTH_SHA_256, IMB_AUTH_SHA_512

_DECLARATIONS = """
typedef struct IMB_MGR {
    char before[1008];
    uint32_t (*submit_hash_burst_nocheck)(struct IMB_MGR *, uint64_t *jobs, uint32_t count, int algorithm);
} IMB_MGR;
const char *imb_get_version_str(void);
IMB_MGR *alloc_mb_mgr(uint64_t flags);
void free_mb_mgr(IMB_MGR *);
void init_mb_mgr_auto(IMB_MGR *, int *arch);
"""


def make(context: PluginContext) -> BlockHasher:
    """Load the library.

    Raises:
        HostError: it is not installed, of a version whose structures are not known, or for another processor.
    """
    name = str(context.settings.get("library") or LIBRARY)
    if platform.machine() != "x86_64" or sys.byteorder != "little":
        msg = f"libipsec-mb is for x86_64, and this is {platform.machine()}"
        raise HostError(msg, hint="uninstall cfs-accel-ipsec-mb; hashlib gives the same")
    return _load(name)


def _load(name: str) -> IpsecMbHasher:
    """Load the library from the file *name*, in this process or in a worker of it.

    Raises:
        HostError: as for `make`.
    """
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        library: Any = ffi.dlopen(name)
    except OSError as error:
        # cffi says what else it tried, behind two spaces.
        msg = str(error).partition("  ")[0].rstrip(".")
        raise HostError(
            msg, hint="apt install libipsec-mb2, or name its file in `library` of [hasher.ipsec-mb]"
        ) from error
    try:
        version = _text(ffi.string(library.imb_get_version_str(), 32))
    except AttributeError as error:
        msg = f"{name} is not libipsec-mb: {error}"
        raise HostError(msg, hint="name its file in `library` of [hasher.ipsec-mb]") from error
    if version not in KNOWN_VERSIONS:
        msg = f"{name} is version {version}, whose structures are not known; known: {', '.join(sorted(KNOWN_VERSIONS))}"
        raise HostError(msg, hint="apt install libipsec-mb2 of Debian 13 or later; hashlib is used meanwhile")
    return IpsecMbHasher(ffi, library, name)


def _text(found: bytes | str) -> str:
    return found.decode("ascii", "replace") if isinstance(found, bytes) else found


class _Own(threading.local):
    """A thread's own manager and its jobs."""

    def __init__(self) -> None:
        self.manager: Any = None
        self.jobs: dict[tuple[HashAlgorithm, int], _Jobs] = {}


class IpsecMbHasher(BlockHasher):
    """One manager for each thread: two threads in one of them crash."""

    def __init__(self, ffi: Any, library: Any, name: str) -> None:  # noqa: ANN401 - cffi has no types
        self._ffi = ffi
        self._library = library
        self._name = name
        self._own = _Own()

    def __reduce__(self) -> tuple[Callable[[str], IpsecMbHasher], tuple[str]]:
        return _load, (self._name,)

    def hash_blocks(self, data: memoryview, size: int, algorithm: HashAlgorithm) -> bytes:
        """See `BlockHasher.hash_blocks`."""
        own = self._own
        jobs = own.jobs.get((algorithm, size))
        if jobs is None:
            if own.manager is None:
                own.manager = self._manager()
            jobs = own.jobs[algorithm, size] = _Jobs(self._ffi, own.manager, size, algorithm)
        return jobs.hash(data)

    def _manager(self) -> Any:  # noqa: ANN401
        manager = self._library.alloc_mb_mgr(0)
        if not manager:
            msg = "libipsec-mb gives no manager"
            raise MemoryError(msg)
        manager = self._ffi.gc(manager, self._library.free_mb_mgr)
        self._library.init_mb_mgr_auto(manager, self._ffi.NULL)
        return manager


class _Jobs:
    """A burst's jobs for one algorithm and one size of blocks; from call to call only the addresses of data change."""

    def __init__(self, ffi: Any, manager: Any, size: int, algorithm: HashAlgorithm) -> None:  # noqa: ANN401
        self._ffi = ffi
        self._manager = manager
        self._size = size
        self._digest = algorithm.size
        self._number = _NUMBERS[algorithm]
        self._jobs = ffi.new(f"uint64_t[{_BURST * _JOB_WORDS}]")
        self._output = ffi.new(f"uint8_t[{_BURST * algorithm.size}]")
        words = memoryview(ffi.buffer(self._jobs)).cast("Q")
        words[_LENGTH::_JOB_WORDS] = array("Q", [size] * _BURST)
        start = int(ffi.cast("uintptr_t", self._output))
        words[_OUTPUT::_JOB_WORDS] = array("Q", range(start, start + _BURST * algorithm.size, algorithm.size))
        words[_OUTPUT_LENGTH::_JOB_WORDS] = array("Q", [algorithm.size] * _BURST)
        words.cast("B").cast("I")[_ALGORITHM :: 2 * _JOB_WORDS] = array("I", [self._number] * _BURST)
        self._sources = [words[_SRC : count * _JOB_WORDS : _JOB_WORDS] for count in range(_BURST + 1)]

    def hash(self, data: memoryview) -> bytes:
        """Hash each block of *data*."""
        size = self._size
        keep = self._ffi.from_buffer(data)
        address = int(self._ffi.cast("uintptr_t", keep))
        submit = self._manager.submit_hash_burst_nocheck
        pieces = []
        left = len(data) // size
        while left:
            count = min(left, _BURST)
            self._sources[count][:] = array("Q", range(address, address + count * size, size))
            done = submit(self._manager, self._jobs, count, self._number)
            if done != count:
                msg = f"libipsec-mb did {done} of {count} jobs"
                raise RuntimeError(msg)
            pieces.append(self._ffi.buffer(self._output, count * self._digest)[:])
            address += count * size
            left -= count
        self._ffi.release(keep)
        return b"".join(pieces)
