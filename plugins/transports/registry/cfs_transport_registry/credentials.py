"""Finding credentials where podman, docker and ostree keep them (containers-auth.json(5), docker's config.json)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import CommandError, ConfigError
from cfs_transport_registry.reference import HUB, Repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cfs_core.plugin import CommandRunner
    from cfs_transport_registry.settings import Settings

_FILE_LIMIT = 4 * 1024 * 1024
_HUB_KEYS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_TOKEN_USER = "<token>"  # noqa: S105 - docker's marker, not a password
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user with a password, or an identity token (OAuth 2 refresh token). Never shown."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)
    source: str = ""
    """Which file or helper they come from, for messages."""


class CredentialStore:
    """Looks credentials up, file by file; reads each file once."""

    def __init__(self, settings: Settings, commands: CommandRunner) -> None:
        self._settings = settings
        self._commands = commands
        self._files: list[tuple[Path, dict[str, Any]]] | None = None

    def find(self, repository: Repository) -> Credentials | None:
        """Return what is configured for *repository*: in each file helpers first, then the longest matching key.

        Raises:
            ConfigError: a file that is there is unreadable or malformed.
        """
        for path, content in self._load():
            found = self._in_file(path, content, repository)
            if found is not None:
                return found
        return None

    def _load(self) -> list[tuple[Path, dict[str, Any]]]:
        if self._files is None:
            self._files = [(path, content) for path in self._places() if (content := _read(path)) is not None]
        return self._files

    def _places(self) -> Iterator[Path]:
        settings = self._settings
        if settings.authfile is not None:
            yield settings.authfile
            return
        if settings.runtime_dir is not None:
            yield settings.runtime_dir / "containers/auth.json"
        yield settings.root / f"run/containers/{settings.uid}/auth.json"
        if settings.config_home is not None:
            yield settings.config_home / "containers/auth.json"
        if settings.docker_config is not None:
            yield settings.docker_config / "config.json"
        elif settings.home is not None:
            yield settings.home / ".docker/config.json"
        for folder in ("etc/ostree", "run/ostree", "usr/lib/ostree"):
            yield settings.root / folder / "auth.json"

    def _in_file(self, path: Path, content: Mapping[str, Any], repository: Repository) -> Credentials | None:
        helpers = _table(path, content, "credHelpers")
        names = _HUB_KEYS if repository.host == HUB else {repository.host}
        for key, helper in helpers.items():
            if _key_host(key) in names:
                return self._ask_helper(path, helper, _server(repository.host))
        keys = {_normalise(key): value for key, value in _table(path, content, "auths").items()}
        for candidate in _candidates(repository):
            if candidate in keys:
                found = _decode(path, candidate, keys[candidate])
                if found is not None:
                    return found
        if store := content.get("credsStore"):
            return self._ask_helper(path, store, _server(repository.host))
        return None

    def _ask_helper(self, path: Path, helper: object, server: str) -> Credentials | None:
        if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
            msg = f"{path} names the credential helper {helper!r}, which is not a program suffix"
            raise ConfigError(msg)
        program = f"docker-credential-{helper}"
        if self._commands.find(program) is None:
            msg = f"{path} wants credentials from {program}, which is not installed"
            raise ConfigError(msg, hint=f"install {program}, or remove it from {path}")
        try:
            done = self._commands.run(
                [program, "get"],
                stdin=server.encode(),
                env=self._settings.helper_environment,
                ok=frozenset({0, 1}),
            )
            answer = json.loads(done.stdout) if done.returncode == 0 else None
        except CommandError as error:
            msg = f"{program} failed for {server}"
            raise ConfigError(msg, hint=f"try: echo {server} | {program} get") from error
        except ValueError as error:
            msg = f"{program} answered for {server} with something that is not JSON"
            raise ConfigError(msg) from error
        if not isinstance(answer, dict) or not answer.get("Secret"):
            return None
        user, secret = str(answer.get("Username", "")), str(answer["Secret"])
        if user == _TOKEN_USER:
            return Credentials(identity_token=secret, source=program)
        return Credentials(user=user, password=secret, source=program)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        msg = f"credentials file {path} cannot be read: {error.strerror}"
        raise ConfigError(msg, hint="correct its permissions, or name another with --authfile") from error
    except OSError as error:
        msg = f"credentials file {path} cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    if not raw.strip():
        return {}
    try:
        content = json.loads(raw) if len(raw) <= _FILE_LIMIT else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        msg = f"credentials file {path} is not a JSON object"
        raise ConfigError(msg, hint="log in again with podman login, or name another with --authfile")
    return content


def _table(path: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name)
    if table is None:
        return {}
    if not isinstance(table, dict):
        msg = f"{name} in {path} is not a table"
        raise ConfigError(msg)
    return table


def _normalise(key: str) -> str:
    """Return ``host[/namespace]`` of a key that may be an URL (``https://index.docker.io/v1/``)."""
    bare = re.sub(r"\Ahttps?://", "", key)
    is_url = bare != key
    host, _, rest = bare.rstrip("/").partition("/")
    if host in _HUB_KEYS:
        host = HUB
    if not rest or is_url or rest in ("v1", "v2"):
        return host
    return f"{host}/{rest}"


def _key_host(key: str) -> str:
    return re.sub(r"\Ahttps?://", "", key).partition("/")[0]


def _server(host: str) -> str:
    return "https://index.docker.io/v1/" if host == HUB else host


def _candidates(repository: Repository) -> Iterator[str]:
    parts = repository.path.split("/")
    for count in range(len(parts), 0, -1):
        yield f"{repository.host}/{'/'.join(parts[:count])}"
    yield repository.host


def _decode(path: Path, key: str, value: object) -> Credentials | None:
    if not isinstance(value, dict):
        msg = f"the entry of {key} in {path} is not a table"
        raise ConfigError(msg)
    source = str(path)
    if token := value.get("identitytoken"):
        return Credentials(identity_token=str(token), source=source)
    if auth := value.get("auth"):
        try:
            user, colon, password = base64.b64decode(str(auth), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            msg = f"the entry of {key} in {path} is not base64 of user:password"
            raise ConfigError(msg, hint=f"log in again: podman login {key.partition('/')[0]}")
        return Credentials(user=user, password=password.strip("\0"), source=source)
    if value.get("username"):
        return Credentials(user=str(value["username"]), password=str(value.get("password", "")), source=source)
    return None
