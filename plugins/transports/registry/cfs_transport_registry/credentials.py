"""Finding credentials where podman, docker and ostree keep them (containers-auth.json(5), docker's config.json)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import CommandError, ConfigError, open_regular
from cfs_transport_registry.reference import HUB, HUB_NAMES, Repository
from cfs_transport_registry.registries_conf import AUTH_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cfs_core.plugin import CommandRunner, Logger
    from cfs_transport_registry.settings import Settings

_FILE_LIMIT = 4 * 1024 * 1024
HELPER_SECONDS = 120.0
"""A helper may ask a person to unlock a key ring."""

_HUB_URL = "https://index.docker.io/v1/"
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

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown, in every form in which somebody may repeat it."""
        pair = f"{self.user}:{self.password}"
        forms = (base64.b64encode(pair.encode()).decode(), pair, self.password) if self.password else ()
        return (*forms, self.identity_token) if self.identity_token else forms


class CredentialStore:
    """Looks credentials up, place by place; reads each file once, and only if no place before it knew."""

    def __init__(
        self, settings: Settings, commands: CommandRunner, log: Logger, helpers: Sequence[str] = (AUTH_FILES,)
    ) -> None:
        self._settings = settings
        self._commands = commands
        self._log = log
        self._helpers = helpers if settings.authfile is None else (AUTH_FILES,)
        self._contents: dict[Path, dict[str, Any] | None] = {}

    def find(self, repository: Repository) -> Credentials | None:
        """Return what is configured for *repository*: in each file helpers first, then the longest matching key.

        Raises:
            ConfigError: a file or helper on the way cannot be used, and none after it knows.
        """
        failure: ConfigError | None = None
        for helper in self._helpers:
            if helper == AUTH_FILES:
                found = self._in_files(repository)
            else:
                try:
                    found = self._ask_helper("registries.conf", helper, repository)
                except ConfigError as error:
                    self._log.debug("registry.helper-failed", helper=helper, reason=str(error))
                    failure, found = failure or error, None
            if found is not None:
                return found
        if failure is not None:
            raise failure
        return None

    def _in_files(self, repository: Repository) -> Credentials | None:
        for path, shared in self._places():
            if path not in self._contents:
                self._contents[path] = self._load(path, shared=shared)
            content = self._contents[path]
            if content is not None and (found := self._in_file(path, content, repository)) is not None:
                return found
        return None

    def _load(self, path: Path, *, shared: bool) -> dict[str, Any] | None:
        try:
            return _read(path)
        except PermissionError as error:
            if shared:  # root's own, on a host whose users pull with theirs or with none
                self._log.debug("registry.authfile-unreadable", path=str(path))
                return None
            msg = f"credentials file {path} cannot be read: {error.strerror}"
            raise ConfigError(msg, hint="correct its permissions, or name another with --authfile") from error

    def _places(self) -> Iterator[tuple[Path, bool]]:
        """Yield files, and whether they are the whole system's."""
        settings = self._settings
        if settings.authfile is not None:
            yield settings.authfile, False
            return
        if settings.runtime_dir is not None:
            yield settings.runtime_dir / "containers/auth.json", False
        yield settings.root / f"run/containers/{settings.uid}/auth.json", False
        if settings.config_home is not None:
            yield settings.config_home / "containers/auth.json", False
        if settings.docker_config is not None:
            yield settings.docker_config / "config.json", False
        elif settings.home is not None:
            yield settings.home / ".docker/config.json", False
        for folder in ("etc/ostree", "run/ostree", "usr/lib/ostree"):
            yield settings.root / folder / "auth.json", True

    def _in_file(self, path: Path, content: Mapping[str, Any], repository: Repository) -> Credentials | None:
        helpers = _table(path, content, "credHelpers")
        for name in _helper_keys(repository.host):
            if name in helpers:
                return self._ask_helper(path, helpers[name], repository)
        keys = {_normalise(key): value for key, value in _table(path, content, "auths").items()}
        for candidate in _candidates(repository):
            if candidate in keys:
                found = _decode(path, candidate, keys[candidate])
                if found is not None:
                    return found
        if store := content.get("credsStore"):
            return self._ask_helper(path, store, repository)
        return None

    def _ask_helper(self, origin: Path | str, helper: object, repository: Repository) -> Credentials | None:
        if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
            # what stands there may be a password that somebody put into the wrong place
            msg = f"{origin} names a credential helper that cannot be the end of a program's name"
            hint = "write what follows docker-credential- in the program's name: letters, digits, dots, - and _"
            raise ConfigError(msg, hint=hint)
        program = f"docker-credential-{helper}"
        if self._commands.find(program) is None:
            msg = f"{origin} wants credentials from {program}, which is not installed"
            raise ConfigError(msg, hint=f"install {program}, or remove it from {origin}")
        asked = (self._ask(program, server) for server in _servers(repository.host))
        return next((found for found in asked if found is not None), None)

    def _ask(self, program: str, server: str) -> Credentials | None:
        try:
            done = self._commands.run(
                [program, "get"],
                stdin=server.encode(),
                env=self._settings.helper_environment,
                ok=frozenset({0, 1}),
                output_limit=_FILE_LIMIT,
                seconds=HELPER_SECONDS,
            )
            answer = json.loads(done.stdout) if done.returncode == 0 else None
        # Neither error is kept as the cause: it has what the helper wrote, and that may be a secret.
        except CommandError as error:
            status = error.facts.get("status")
            msg = f"{program} failed for {server}" + (f" (exit status {status})" if status is not None else "")
            raise ConfigError(msg, hint=f"try: echo {server} | {program} get") from None
        except ValueError:
            msg = f"{program} answered for {server} with something that is not JSON"
            raise ConfigError(msg, hint=f"try: echo {server} | {program} get") from None
        if not isinstance(answer, dict) or not answer.get("Secret"):
            return None
        user, secret = str(answer.get("Username", "")), str(answer["Secret"])
        if user == _TOKEN_USER:
            return Credentials(identity_token=secret, source=program)
        return Credentials(user=user, password=secret, source=program)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with open_regular(path) as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise
    except OSError as error:
        msg = f"credentials file {path} cannot be read: {error.strerror}"
        raise ConfigError(msg, hint="name another with --authfile, or log in again with podman login") from error
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
    if host in HUB_NAMES:
        host = HUB
    if not rest or is_url or rest in ("v1", "v2"):
        return host
    return f"{host}/{rest}"


def _helper_keys(host: str) -> tuple[str, ...]:
    """Return what stands for *host* in credHelpers: whole hosts, no namespaces (containers-auth.json(5))."""
    return (HUB, *sorted(HUB_NAMES - {HUB}), _HUB_URL) if host == HUB else (host,)


def _servers(host: str) -> tuple[str, ...]:
    """Return the names under which helpers may keep the credentials of *host*: docker's, then podman's."""
    return (_HUB_URL, HUB) if host == HUB else (host,)


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
        except ValueError:  # no base64, no ASCII, no UTF-8
            colon = ""
        if not colon:
            msg = f"the entry of {key} in {path} is not base64 of user:password"
            raise ConfigError(msg, hint=f"log in again: podman login {key.partition('/')[0]}")
        return Credentials(user=user, password=password.strip("\0"), source=source)
    if value.get("username"):
        return Credentials(user=str(value["username"]), password=str(value.get("password", "")), source=source)
    return None
