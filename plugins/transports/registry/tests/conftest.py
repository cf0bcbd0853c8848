"""Transports over registries on loopback, with short waits."""

from __future__ import annotations

import pytest

from cfs_core.plugin import Fetcher, RetryPolicy
from cfs_testkit.context import RecordedLog, plugin_context


@pytest.fixture
def log():
    return RecordedLog()


@pytest.fixture
def make_transport(tmp_path, log):
    """Return a function that makes a transport; its home is empty unless the test fills it."""
    from cfs_transport_registry.settings import Settings
    from cfs_transport_registry.transport import RegistryTransport

    made = []

    def make(*, environ=None, waits=None, **settings):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        environ = {"HOME": str(home), "PATH": str(tmp_path / "bin"), **(environ or {})}
        section = {"tls-verify": False, "connect-timeout": 2, "read-timeout": 1} | {
            key.replace("_", "-"): value for key, value in settings.items()
        }
        section = {key: value for key, value in section.items() if value is not None}
        parsed = Settings.of(section, environ, 4711)
        context = plugin_context(tmp_path, environ=environ, log=log)
        fetcher = Fetcher(RegistryTransport(context, parsed), context.retrier)
        fetcher.retrier.policy = RetryPolicy(first_wait_seconds=0.01)
        fetcher.retrier.pause = (lambda _: None) if waits is None else waits.append
        made.append(fetcher)
        return fetcher

    yield make
    for transport in made:
        transport.close()
