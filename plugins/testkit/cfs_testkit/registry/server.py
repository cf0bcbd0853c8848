"""A real registry on loopback: pulling, pushing, authentication, TLS, referrers, and a fault script per path."""

from __future__ import annotations

import contextlib
import ssl
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from cfs_testkit.registry.content import Access, Registry
from cfs_testkit.registry.http import Handler

if TYPE_CHECKING:
    from pathlib import Path


class RegistryServer(Registry):
    """Serves until the context ends. Fill it with `put_blob`, `put_manifest`, or by pushing to it."""

    def __init__(
        self,
        *,
        access: Access | None = None,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
        referrers: bool = True,
        token_uses: int | None = None,
    ) -> None:
        super().__init__(access=access, referrers=referrers, token_uses=token_uses)
        self._server = _Server(self)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            if client_ca is not None:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.tls = context
            self.scheme = "https"
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    tls: ssl.SSLContext | None = None

    def __init__(self, registry: RegistryServer) -> None:
        self.registry = registry
        super().__init__(("127.0.0.1", 0), Handler)

    def finish_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - as in the base
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        with contextlib.suppress(OSError), self.tls.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the play."""
