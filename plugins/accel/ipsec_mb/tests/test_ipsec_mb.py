"""libipsec-mb keeps the contract of hashers where it is installed; no other library is taken for it."""

import ctypes.util
import shutil
import subprocess

import pytest

from cfs_accel_ipsec_mb.hasher import LIBRARY, make
from cfs_core.interfaces import block_hashing
from cfs_core.plugin import HashAlgorithm, HostError, hash_blocks
from cfs_testkit.context import plugin_context
from cfs_testkit.contracts import HasherContract

C_LIBRARY = ctypes.util.find_library("c")


def known(tmp_path):
    try:
        return make(plugin_context(tmp_path))
    except HostError as error:
        pytest.skip(f"{LIBRARY}: {error}")


class TestIpsecMb(HasherContract):
    provider = "ipsec-mb"

    @pytest.fixture(autouse=True)
    def _installed(self, request, tmp_path):
        if "made" in request.fixturenames or "making" in request.node.name:
            known(tmp_path)


@pytest.mark.skipif(C_LIBRARY is None, reason="no C library to be found")
def test_another_library_is_refused(tmp_path):
    with pytest.raises(HostError, match="is not libipsec-mb"):
        make(plugin_context(tmp_path, settings={"library": C_LIBRARY}))


def test_a_library_that_is_not_there_is_refused_with_what_to_install(tmp_path):
    with pytest.raises(HostError, match="cannot load") as caught:
        make(plugin_context(tmp_path, settings={"library": str(tmp_path / "none.so")}))
    assert "libipsec-mb2" in caught.value.hint


def test_a_version_whose_structures_nobody_read_is_refused(tmp_path):
    """A library that says it is a later version: nothing of it but the version is called."""
    source = tmp_path / "later.c"
    source.write_text(
        'const char *imb_get_version_str(void) { return "2.9.0"; }\n'
        "void *alloc_mb_mgr(unsigned long flags) { __builtin_trap(); }\n"
        "void free_mb_mgr(void *manager) { __builtin_trap(); }\n"
        "void init_mb_mgr_auto(void *manager, int *arch) { __builtin_trap(); }\n"
    )
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "later.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    with pytest.raises(HostError, match=r"version 2\.9\.0"):
        make(plugin_context(tmp_path, settings={"library": str(library)}))


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_core_takes_it_where_it_is_right(tmp_path, algorithm):
    hasher = known(tmp_path)
    refused = []
    block_hashing.offer(lambda: [block_hashing.Offer("ipsec-mb", lambda: hasher)], lambda *why: refused.append(why))
    try:
        choice = block_hashing.chosen(algorithm)
        assert set(choice.rates) == {"hashlib", "ipsec-mb"}
        assert refused == []
        data = bytes(range(256)) * 1600 + b"rest"
        found = hash_blocks(data, algorithm)
    finally:
        block_hashing.offer(tuple)
    assert found == hash_blocks(data, algorithm)
