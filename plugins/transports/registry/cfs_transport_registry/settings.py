"""What an operator can set, and where the files of podman, docker and ostree are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import ConfigError, directory_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = frozenset(
    {"authfile", "tls-verify", "cert-dir", "registries-conf", "connect-timeout", "read-timeout", "minimum-rate"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the section ``transport.registry``, and places from the environment. Times in seconds."""

    authfile: Path | None = None
    tls_verify: bool | None = None
    """None: as registries.conf says."""

    cert_dir: Path | None = None
    """Certificates in place of those of certs.d: ``HOST[:PORT]/`` in it, or all hosts' in itself where it has files."""

    registries_conf: Path | None = None
    connect_timeout: float = 15.0
    read_timeout: float = 30.0
    """Longest silence, and the window in which a transfer must make some progress."""

    minimum_rate: float = 1024.0
    """Bytes per second that a blob has to bring as a whole, or it is given up."""

    home: Path | None = None
    config_home: Path | None = None
    runtime_dir: Path | None = None
    docker_config: Path | None = None
    root: Path = Path("/")
    """Where the system-wide files are looked for."""

    uid: int = 0
    helper_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What credential helpers see; theirs often are configured by variables."""

    @classmethod
    def of(cls, section: Mapping[str, object], environ: Mapping[str, str], uid: int) -> Self:
        """Read settings, and the environment variables that podman, skopeo and docker use.

        Raises:
            ConfigError: unknown key, wrong type, a named file that is not there.
        """
        values = {key.replace("_", "-"): value for key, value in section.items() if value is not None}
        if unknown := sorted(set(values) - _KNOWN):
            msg = f"unknown setting transport.registry.{unknown[0]}"
            raise ConfigError(msg, hint=f"known are {', '.join(sorted(_KNOWN))}")
        verify = values.get("tls-verify")
        if verify is not None and not isinstance(verify, bool):
            msg = f"transport.registry.tls-verify is {verify!r}, not true or false"
            raise ConfigError(msg)

        return cls(
            authfile=_file(values, "authfile", environ, "REGISTRY_AUTH_FILE"),
            tls_verify=verify,
            cert_dir=_file(values, "cert-dir", environ, None),
            registries_conf=_file(values, "registries-conf", environ, "CONTAINERS_REGISTRIES_CONF"),
            connect_timeout=_seconds(values, "connect-timeout", 15.0),
            read_timeout=_seconds(values, "read-timeout", 30.0),
            minimum_rate=_number(values, "minimum-rate", 1024.0, "bytes per second, 0 for no limit"),
            home=directory_of(environ, "HOME"),
            config_home=directory_of(environ, "XDG_CONFIG_HOME", ".config"),
            runtime_dir=directory_of(environ, "XDG_RUNTIME_DIR"),
            docker_config=Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else None,
            uid=uid,
            helper_environment=dict(environ),
        )


def _file(values: Mapping[str, object], key: str, environ: Mapping[str, str], variable: str | None) -> Path | None:
    value = values.get(key)
    origin = f"transport.registry.{key}"
    if value is None and variable is not None:
        value = environ.get(variable) or None
        origin = f"${variable}"
    if value is None:
        return None
    if not isinstance(value, str | Path):
        msg = f"{origin} is {value!r}, not a path"
        raise ConfigError(msg)
    path = Path(value).expanduser()
    try:
        path.stat()
    except OSError as error:
        msg = f"{origin} names {path}, which cannot be used: {error.strerror}"
        raise ConfigError(msg, hint="correct the path, or leave it out to use the usual places") from error
    return path


def _seconds(values: Mapping[str, object], key: str, default: float) -> float:
    value = _number(values, key, default, "seconds above 0")
    if not value:
        msg = f"transport.registry.{key} is 0, not a number of seconds above 0"
        raise ConfigError(msg)
    return value


def _number(values: Mapping[str, object], key: str, default: float, unit: str) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        msg = f"transport.registry.{key} is {value!r}, not a number of {unit}"
        raise ConfigError(msg)
    return float(value)
