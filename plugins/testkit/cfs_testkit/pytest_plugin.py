"""Fixtures for authors of cfs plugins; pytest loads this by itself where cfs-plugin-testkit is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_testkit.registry import RegistryServer


@pytest.fixture
def registry_server() -> Iterator[RegistryServer]:
    """Serve an empty registry on loopback, plain HTTP, everybody may read and write."""
    from cfs_testkit.registry import RegistryServer

    with RegistryServer() as server:
        yield server
