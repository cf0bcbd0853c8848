"""A machine with version 1, and where its next versions are published."""

from __future__ import annotations

import pytest
from builders.lifecycle_kit import Versions, copied, version
from builders.machines import install_below


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A machine that is copied, not changed."""
    folder = tmp_path_factory.mktemp("template")
    versions = Versions(folder / "oci")
    versions.publish(version(1))
    return install_below(folder, versions.reference)


@pytest.fixture
def versions(template, tmp_path):
    made = Versions(template.folder / "oci")
    made.publish(version(1))
    return made


@pytest.fixture
def machine(template, versions, tmp_path):
    """A copy of the machine that runs version 1 of what `versions` publishes."""
    return copied(template, tmp_path)
