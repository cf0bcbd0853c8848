"""What plugins may use is a decision: surface.txt, `cfs_core.plugin` and the API number change together."""

import difflib
import importlib

import pytest
from builders import surface

import cfs_core.plugin


def test_the_surface_is_the_written_one():
    written, found = surface.FILE.read_text(encoding="utf-8"), surface.text()
    changes = difflib.unified_diff(
        written.splitlines(), found.splitlines(), "surface.txt", "the code", lineterm="", n=1
    )
    assert found == written, (
        "the surface for plugins has changed:\n"
        + "\n".join(changes)
        + "\nif that is meant (see docs/api-policy.md), write it anew: make surface"
    )


@pytest.mark.parametrize("name", surface.MODULES)
def test_every_exported_name_is_there_once(name):
    module = importlib.import_module(name)
    assert [exported for exported in module.__all__ if not hasattr(module, exported)] == []
    assert len(set(module.__all__)) == len(module.__all__)


def test_both_lists_of_the_module_agree():
    assert set(cfs_core.plugin._HOMES) | {"API_VERSION"} == set(cfs_core.plugin.__all__)
