"""Hashers as the whole command meets them."""

from __future__ import annotations

import json

from builders.distributions import Site

CONTENT = bytes(range(256)) * 640

PLUGIN = """
from cfs_core.plugin import BlockHasher, HasherProvider, hookimpl
CFS_PLUGIN_API = (2, 0)
class Odd(BlockHasher):
    def hash_blocks(self, data, size, algorithm):
        return b"odd"
@hookimpl
def cfs_register_hashers():
    return [HasherProvider(name="odd", summary="odd", factory=lambda context: Odd())]
"""


def test_a_plugin_that_hashes_wrongly_is_told_by_doctor_and_never_used(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(CONTENT)
    site = Site(tmp_path / "site")
    before = site.cfs("image", "digest", f"dir:{tree}", CFS_LOG="debug", CFS_DISABLE_PLUGINS="")
    site.install("odd", "1.0", {"odd": "odd_plugin"}, {"odd_plugin.py": PLUGIN})
    after = site.cfs("image", "digest", f"dir:{tree}", CFS_LOG="debug", CFS_DISABLE_PLUGINS="")
    assert (after.returncode, after.stdout) == (0, before.stdout)
    assert "hasher.refused" in after.stderr
    report = json.loads(site.cfs("plugins", "doctor", "--format", "json", CFS_DISABLE_PLUGINS="").stdout)
    assert all(found["name"] != "odd" for found in report["hashing"].values())
    assert "not what hashlib says" in report["hashing"]["sha512"]["refused"]["odd"]
    assert report["hashing"]["sha512"]["rates"]["hashlib"] > 1e6
