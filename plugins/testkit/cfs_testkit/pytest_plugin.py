"""Fixtures for authors of cfs plugins; pytest loads this by itself where cfs-plugin-testkit is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_testkit.registry import RegistryServer


MARKERS = (
    "vm: boots a virtual machine (minutes)",
    "slow: takes more than ten seconds",
    "judge: compares with another implementation, skipped where it is not installed",
    "flaky(reason): may be tried once more, for the reason given",
)
"""Marks of cfs's own plugins: their tests are run from their source distributions too, where no project names them."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture
def registry_server() -> Iterator[RegistryServer]:
    """Serve an empty registry on loopback, plain HTTP, everybody may read and write."""
    from cfs_testkit.registry import RegistryServer

    with RegistryServer() as server:
        yield server
