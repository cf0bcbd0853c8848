"""One client per repository that is asked, with the credentials and TLS settings of its host."""

from __future__ import annotations

import importlib.metadata
import threading
from typing import TYPE_CHECKING

from cfs_core.plugin import StoppedError, TlsError, TransportError
from cfs_transport_registry.certificates import authorities_of, tls_context
from cfs_transport_registry.oras_client import OrasClient
from cfs_transport_registry.reference import HUB, HUB_SERVER

if TYPE_CHECKING:
    from cfs_core.plugin import StopSignal
    from cfs_transport_registry.credentials import CredentialStore
    from cfs_transport_registry.registries_conf import Endpoint
    from cfs_transport_registry.settings import Settings


class Clients:
    """Makes clients when they are first needed and keeps them. Safe to use from several threads."""

    def __init__(self, settings: Settings, credentials: CredentialStore, stop: StopSignal) -> None:
        self._settings = settings
        self._stop = stop
        self._credentials = credentials
        self._clients: dict[Endpoint, OrasClient] = {}
        self._lock = threading.Lock()

    def client(self, endpoint: Endpoint) -> OrasClient:
        """Return the client for *endpoint*.

        Raises:
            ConfigError: credentials or certificates cannot be used.
            TransportError: an insecure registry answers neither with nor without TLS.
        """
        with self._lock:
            if endpoint not in self._clients:
                self._clients[endpoint] = self._make(endpoint)
            return self._clients[endpoint]

    def close(self) -> None:
        """Close idle connections of all clients."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _make(self, endpoint: Endpoint) -> OrasClient:
        insecure = endpoint.insecure if self._settings.tls_verify is None else not self._settings.tls_verify
        client = self._build(endpoint, plain_http=False, insecure=insecure)
        if not insecure:
            return client
        # This is no downgrade: of a registry marked insecure no certificate is verified, so whoever is in between could
        # as well answer in TLS. podman and skopeo ask in this order, too.
        try:
            client.request("/v2/").close()
        except StoppedError:
            raise
        except TransportError as error:
            if not isinstance(error, TlsError) and not error.transient:
                return client  # it speaks TLS and wants something else, credentials most likely
            client.close()
            return self._build(endpoint, plain_http=True, insecure=True)
        return client

    def _build(self, endpoint: Endpoint, *, plain_http: bool, insecure: bool) -> OrasClient:
        settings = self._settings
        server = HUB_SERVER if endpoint.repository.host == HUB else endpoint.repository.host
        return OrasClient(
            server,
            plain_http=plain_http,
            tls=lambda name: tls_context(name, server, settings, verify=not insecure),
            authorities=authorities_of(server, settings),
            credentials=self._credentials.find(endpoint.repository),
            timeouts=(settings.connect_timeout, settings.read_timeout),
            user_agent=f"cfs/{importlib.metadata.version('cfs-core')}",
            encrypted_only=not insecure,
            stop=self._stop,
        )
