"""registries.conf, version 2: mirrors, other locations, blocked and insecure registries, aliases, helpers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import BlockedError, ConfigError, open_regular, parse_toml
from cfs_transport_registry.reference import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cfs_core.plugin import ImageReference
    from cfs_transport_registry.settings import Settings

_PULL_FROM = frozenset({"", "all", "digest-only", "tag-only"})
_FILE_LIMIT = 4 * 1024 * 1024

AUTH_FILES = "containers-auth.json"
"""Stands in the list of credential helpers for the files that podman login writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A repository as it is really asked for."""

    repository: Repository
    insecure: bool = False
    mirror: bool = False

    def __str__(self) -> str:
        return str(self.repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mirror:
    location: str
    insecure: bool
    pull_from: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registry:
    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[_Mirror, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """All files merged: a later table replaces an earlier one with the same prefix."""

    registries: Mapping[str, _Registry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    credential_helpers: tuple[str, ...] = (AUTH_FILES,)
    """What to ask for credentials, in order; the last file that has a list decides."""

    @classmethod
    def load(cls, settings: Settings) -> RegistriesConf:
        """Read the main file and its drop-ins.

        Raises:
            ConfigError: unreadable, not TOML, version 1, or a value of the wrong kind.
        """
        registries: dict[str, _Registry] = {}
        aliases: dict[str, str] = {}
        helpers: tuple[str, ...] = ()
        for path in _files(settings):
            content = _read(path)
            _merge(path, content, registries, aliases)
            helpers = _helpers(path, content) or helpers
        return cls(registries, {name: full for name, full in aliases.items() if full}, helpers or (AUTH_FILES,))

    def endpoints(self, reference: ImageReference) -> tuple[Endpoint, ...]:
        """Return where to ask for *reference*, in order: mirrors, then the registry itself.

        Raises:
            BlockedError: forbidden.
        """
        registry = self._match(reference)
        if registry is None:
            return (Endpoint(repository=Repository.of(reference.name)),)
        by_digest = reference.digest is not None
        found = [
            Endpoint(
                repository=_rewrite(registry, mirror.location, reference.name), insecure=mirror.insecure, mirror=True
            )
            for mirror in registry.mirrors
            if mirror.pull_from in ("", "all") or mirror.pull_from == ("digest-only" if by_digest else "tag-only")
        ]
        primary = _rewrite(registry, registry.location, reference.name)
        return (*found, Endpoint(repository=primary, insecure=registry.insecure))

    def destination(self, reference: ImageReference) -> Endpoint:
        """Return where *reference* is pushed to; mirrors and other locations are for reading only.

        Raises:
            BlockedError: forbidden.
        """
        registry = self._match(reference)
        insecure = registry is not None and registry.insecure
        return Endpoint(repository=Repository.of(reference.name), insecure=insecure)

    def _match(self, reference: ImageReference) -> _Registry | None:
        full = reference.name
        full += f":{reference.tag}" if reference.tag and not reference.digest else ""
        full += f"@{reference.digest}" if reference.digest else ""
        best: tuple[int, _Registry] | None = None
        for registry in self.registries.values():
            if _matched(full, registry.prefix) >= 0 and (best is None or len(registry.prefix) > best[0]):
                best = (len(registry.prefix), registry)
        if best is None:
            return None
        registry = best[1]
        if registry.blocked:
            msg = f"registry {registry.prefix} is blocked by {registry.origin}"
            raise BlockedError(msg, hint="use another source, or change that file")
        return registry


def _matched(name: str, prefix: str) -> int:
    """Return how many characters of *name* the prefix covers, -1 if it does not match."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        bare = host.partition(":")[0] if ":" not in prefix else host
        return len(bare) if bare.endswith(prefix[1:]) and len(bare) > len(prefix) - 1 else -1
    if not name.startswith(prefix):
        return -1
    rest = name[len(prefix) :]
    return len(prefix) if not rest or rest[0] in ":/@" else -1


def _rewrite(registry: _Registry, location: str, name: str) -> Repository:
    if not location:
        return Repository.of(name)
    covered = min(_matched(name, registry.prefix), len(name))
    if covered < 0:  # the prefix named a tag or digest
        covered = len(name)
        location = location.partition("@")[0]
        head, slash, tail = location.rpartition("/")
        location = head + slash + tail.partition(":")[0]
    return Repository.of(location + name[covered:])


def _files(settings: Settings) -> Iterator[Path]:
    system = settings.root / "etc/containers"
    user = settings.config_home / "containers" if settings.config_home else None
    folders = [system]
    if settings.registries_conf is not None:
        yield settings.registries_conf
        folders = []
    elif user is not None and (user / "registries.conf").is_file():
        yield user / "registries.conf"
        folders = []
    elif (system / "registries.conf").is_file():
        yield system / "registries.conf"
    if user is not None and settings.registries_conf is None:
        folders.append(user)
    for folder in folders:
        yield from sorted((folder / "registries.conf.d").glob("*.conf"))


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            raw = file.read(_FILE_LIMIT)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    return parse_toml(raw, str(path))


def _merge(path: Path, content: Mapping[str, Any], registries: dict[str, _Registry], aliases: dict[str, str]) -> None:
    if "registries" in content:
        msg = f"{path} is in the old version 1 format"
        raise ConfigError(msg, hint="write [[registry]] tables: containers-registries.conf(5)")
    tables = content.get("registry", [])
    if not isinstance(tables, list):
        msg = f"registry in {path} is not an array of tables"
        raise ConfigError(msg, hint="write [[registry]]")
    for table in tables:
        registry = _registry(path, table)
        registries[registry.prefix] = registry
    for name, full in _expect(path, content, "aliases", dict, default={}).items():
        if not isinstance(full, str) or (full and "/" not in full):
            msg = f"the alias of {name!r} in {path} is {full!r}, not HOST/NAME"
            raise ConfigError(msg)
        aliases[name] = full


def _helpers(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    names = _expect(path, content, "credential-helpers", list, default=[])
    for name in names:
        if not isinstance(name, str) or not name:
            msg = f"credential-helpers in {path} has {name!r}, not the name of a helper"
            raise ConfigError(msg)
    return tuple(names)


def _registry(path: Path, table: object) -> _Registry:
    if not isinstance(table, dict):
        msg = f"{path} has a [[registry]] that is not a table"
        raise ConfigError(msg)
    location = _location(path, _expect(path, table, "location", str, default=""))
    prefix = _location(path, _expect(path, table, "prefix", str, default="")) or location
    if not prefix or (not location and not prefix.startswith("*.")):
        msg = f"{path} has a [[registry]] without location"
        raise ConfigError(msg, hint="only a prefix such as *.example.com may go without a location")
    if "*" in prefix.removeprefix("*.") or (prefix.startswith("*.") and "/" in prefix):
        msg = f"{path} has the prefix {prefix!r}"
        raise ConfigError(msg, hint="a wildcard may only stand first and for whole host names: *.example.com")
    only_digests = _expect(path, table, "mirror-by-digest-only", bool, default=False)
    mirrors = []
    for mirror in _expect(path, table, "mirror", list, default=[]):
        if not isinstance(mirror, dict) or not mirror.get("location"):
            msg = f"a mirror of {prefix} in {path} has no location"
            raise ConfigError(msg)
        pull_from = _expect(path, mirror, "pull-from-mirror", str, default="")
        if pull_from not in _PULL_FROM or (pull_from and only_digests):
            msg = f"a mirror of {prefix} in {path} has pull-from-mirror {pull_from!r}"
            raise ConfigError(msg, hint="all, digest-only or tag-only; not together with mirror-by-digest-only")
        mirrors.append(
            _Mirror(
                location=_location(path, _expect(path, mirror, "location", str, default="")),
                insecure=_expect(path, mirror, "insecure", bool, default=False),
                pull_from="digest-only" if only_digests else pull_from,
            )
        )
    return _Registry(
        prefix=prefix,
        location=location,
        insecure=_expect(path, table, "insecure", bool, default=False),
        blocked=_expect(path, table, "blocked", bool, default=False),
        mirrors=tuple(mirrors),
        origin=str(path),
    )


def _location(path: Path, text: str) -> str:
    if "://" in text:
        msg = f"{path} has the location {text!r}"
        raise ConfigError(msg, hint="write it without the protocol: HOST[:PORT][/NAMESPACE]")
    return text.rstrip("/")


def _expect(path: Path, table: Mapping[str, Any], key: str, kind: type, *, default: Any) -> Any:  # noqa: ANN401 - by kind
    value = table.get(key, default)
    if not isinstance(value, kind):
        msg = f"{key} in {path} is {value!r}, not a {kind.__name__}"
        raise ConfigError(msg)
    return value
