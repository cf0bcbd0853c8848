"""TLS settings per registry host: custom authorities and client certificates (containers-certs.d(5))."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from cfs_core.plugin import ConfigError
from cfs_transport_registry.reference import HUB, HUB_SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_transport_registry.settings import Settings


def tls_context(host: str, registry: str, settings: Settings, *, verify: bool) -> ssl.SSLContext:
    """Return the context for connections to *host* (with port) on behalf of *registry*.

    Both are the same but for redirects and token servers: those get the registry's authorities, never its client key.

    Raises:
        ConfigError: a certificate or key in certs.d cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for folder in _folders(registry, settings):
        _load(context, folder, client=host == registry)
    if host != registry and settings.cert_dir is None:
        for folder in _folders(host, settings):
            _load(context, folder, client=True)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def authorities_of(host: str, settings: Settings) -> Path:
    """Return the directory in which the authority of *host* would be found: what a hint may name.

    Raises:
        ConfigError: ``cert-dir`` cannot be used.
    """
    if settings.cert_dir is not None:
        return next(_given(host, settings.cert_dir), settings.cert_dir / host)
    return next(_folders(host, settings), settings.root / "etc/containers/certs.d" / host)


def _is_flat(folder: Path) -> bool:
    """Whether certificates lie in *folder* itself, as podman's --cert-dir has them, and not in directories of hosts."""
    return any(path.suffix in {".crt", ".cert", ".key"} and path.is_file() for path in folder.iterdir())


def _folders(host: str, settings: Settings) -> Iterator[Path]:
    if settings.cert_dir is not None:
        yield from _given(host, settings.cert_dir)
        return
    places = [settings.root / "etc/containers/certs.d", settings.root / "etc/docker/certs.d"]
    if settings.config_home is not None:
        places.insert(0, settings.config_home / "containers/certs.d")
    names = (HUB, host) if host == HUB_SERVER else (host,)  # podman looks under the name that users write
    for place in places:
        if found := [place / name for name in names if _is_folder(place / name)]:
            yield from found
            return


def _given(host: str, folder: Path) -> Iterator[Path]:
    """Yield what ``cert-dir`` has for *host*.

    Raises:
        ConfigError: it cannot be read, or has certificates in both layouts: which of them are meant?
    """
    names = (HUB, host) if host == HUB_SERVER else (host,)
    try:
        flat, own = _is_flat(folder), [folder / name for name in names if (folder / name).is_dir()]
    except OSError as error:
        msg = f"{folder} cannot be read: {error.strerror}"
        raise ConfigError(msg, hint="cert-dir is a directory of certificates, or of one directory per host") from error
    if flat and own:
        msg = f"{folder} has certificates, and the directory {own[0].name} with more"
        raise ConfigError(msg, hint="keep one layout: files for all hosts, or a directory HOST[:PORT] for each")
    yield from [folder] if flat else own


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    except PermissionError:  # /etc/docker is root's alone on some hosts
        return False


def _load(context: ssl.SSLContext, folder: Path, *, client: bool) -> None:
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        msg = f"{folder} cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    for path in names:
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert" and client:
                key = path.with_suffix(".key")
                if not key.is_file():
                    msg = f"client certificate {path} has no key {key.name} beside it"
                    raise ConfigError(msg)
                context.load_cert_chain(path, key, password=_no_password)
            elif path.suffix == ".key" and not path.with_suffix(".cert").is_file():
                msg = f"client key {path} has no certificate {path.stem}.cert beside it"
                raise ConfigError(msg, hint="authorities end in .crt, client certificates in .cert")
        except (ssl.SSLError, OSError) as error:
            msg = f"{path} cannot be used: {error}"
            raise ConfigError(msg, hint="it has to be in PEM format, and a key without a password") from error


def _no_password() -> str:
    """Keep OpenSSL from asking on the terminal."""
    return ""
