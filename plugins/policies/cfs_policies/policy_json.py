"""policy.json, version 1, as facts (containers-policy.json(5)); anything unknown in it makes the whole file invalid."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import ConfigError, open_regular
from cfs_policies.documents import DocumentError, as_object, check_keys, parse_object, text_of
from cfs_policies.names import Named, exact, exact_or_digest, parse_named, remapped
from cfs_policies.scopes import check_scope

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 4 * 1024 * 1024
_KEY_LIMIT = 4 * 1024 * 1024
_REKOR = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_UNSUPPORTED = ("fulcio", "pki", *_REKOR)


@dataclass(frozen=True, slots=True)
class Keys:
    """Trusted keys, as files or as data."""

    paths: tuple[Path, ...]
    data: tuple[bytes, ...]

    def read(self) -> list[bytes]:
        """Return all of them.

        Raises:
            ConfigError: one cannot be read.
        """
        found = list(self.data)
        for path in self.paths:
            try:
                with open_regular(path) as file:
                    found.append(file.read(_KEY_LIMIT))
            except OSError as error:
                msg = f"key {path} cannot be read: {error.strerror}"
                raise ConfigError(msg, hint="policy.json names it; put the key there") from error
        return found


@dataclass(frozen=True, slots=True)
class Identity:
    """Which claimed names are accepted: ``signedIdentity``."""

    kind: str = "matchRepoDigestOrExact"
    value: str = ""
    other: str = ""

    def accepts(self, intended: Named | None, claimed: str) -> bool:
        """Return whether a signature for *claimed* is one for *intended*."""
        signed = parse_named(claimed)
        if self.kind == "exactReference":
            return exact(parse_named(self.value), signed)
        if self.kind == "exactRepository":
            return parse_named(self.value).name == signed.name
        if intended is None:
            return False
        if self.kind == "matchExact":
            return exact(intended, signed)
        if self.kind == "matchRepository":
            return intended.name == signed.name
        if self.kind == "remapIdentity":
            return exact_or_digest(remapped(intended, self.value, self.other), signed)
        return exact_or_digest(intended, signed)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One entry of a list: ``kind`` is its type; keys and identity only for signatures."""

    kind: str
    keys: Keys | None = None
    identity: Identity = Identity()


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """Requirements by transport and scope; all of a list must be met."""

    default: tuple[Requirement, ...]
    transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]]


def load_policy(path: Path) -> PolicyFile:
    """Read a policy file.

    Raises:
        ConfigError: not there, unreadable, or not valid in any part.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(_LIMIT + 1)
    except OSError as error:
        msg = f"the policy {path} cannot be read: {error.strerror}"
        hint = "write one (containers-policy.json(5)), or do not require containers-policy"
        raise ConfigError(msg, hint=hint) from error
    where = str(path)
    top = parse_object(raw[: _LIMIT + 1], where)
    check_keys(top, where, needed=["default"], allowed=["transports"])
    transports: dict[str, dict[str, tuple[Requirement, ...]]] = {}
    for name, table in as_object(top.get("transports", {}), f"'transports' of {where}").items():
        entries = as_object(table, f"transport {name!r} of {where}")
        for scope in entries:
            check_scope(name, scope, where)
        transports[name] = {scope: _list(value, f"{name} {scope!r} of {where}") for scope, value in entries.items()}
    return PolicyFile(_list(top["default"], f"'default' of {where}"), transports)


def _list(value: object, where: str) -> tuple[Requirement, ...]:
    if not isinstance(value, list) or not value:
        msg = f"{where} is not a list with at least one requirement"
        raise DocumentError(msg)
    return tuple(_requirement(as_object(each, where), where) for each in value)


def _requirement(value: dict[str, Any], where: str) -> Requirement:
    kind = text_of(value, "type", where)
    where = f"{kind!r:.40} in {where}"
    if kind in ("reject", "insecureAcceptAnything"):
        check_keys(value, where, needed=["type"])
        return Requirement(kind)
    if kind == "signedBy":
        optional = ["keyPath", "keyPaths", "keyData", "signedIdentity"]
        check_keys(value, where, needed=["type", "keyType"], allowed=optional)
        if value["keyType"] != "GPGKeys":
            msg = f"{where} has the key type {value['keyType']!r:.40}; only GPGKeys is known"
            raise DocumentError(msg)
        return Requirement(kind, _keys(value, where), _identity(value, where))
    if kind == "sigstoreSigned":
        for key in _UNSUPPORTED:
            if key in value:
                msg = f"{where} demands {key!r}, which this policy cannot check"
                raise DocumentError(msg, hint="use public keys, or a policy plugin for keyless signatures")
        check_keys(
            value, where, needed=["type"], allowed=["keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity"]
        )
        return Requirement(kind, _keys(value, where), _identity(value, where))
    msg = f"{where} is not a known requirement"
    raise DocumentError(msg)


def _keys(value: dict[str, Any], where: str) -> Keys:
    given = [key for key in ("keyPath", "keyPaths", "keyData", "keyDatas") if key in value]
    if len(given) != 1:
        msg = f"{where} must have exactly one of keyPath, keyPaths and keyData"
        raise DocumentError(msg)
    found = value[given[0]]
    entries = found if given[0].endswith("s") else [found]
    if not isinstance(entries, list) or not entries or not all(isinstance(each, str) and each for each in entries):
        msg = f"{given[0]!r} of {where} is not what it should be"
        raise DocumentError(msg)
    if "Path" in given[0]:
        return Keys(tuple(map(Path, entries)), ())
    try:
        return Keys((), tuple(base64.b64decode(each, validate=True) for each in entries))
    except ValueError as error:  # of the alphabet, or no ASCII at all
        msg = f"{given[0]!r} of {where} is not base64"
        raise DocumentError(msg) from error


def _identity(value: dict[str, Any], where: str) -> Identity:
    if "signedIdentity" not in value:
        return Identity()
    table = as_object(value["signedIdentity"], f"signedIdentity of {where}")
    where = f"signedIdentity of {where}"
    kind = text_of(table, "type", where)
    fields = {
        "matchExact": (),
        "matchRepoDigestOrExact": (),
        "matchRepository": (),
        "exactReference": ("dockerReference",),
        "exactRepository": ("dockerRepository",),
        "remapIdentity": ("prefix", "signedPrefix"),
    }.get(kind)
    if fields is None:
        msg = f"{where} has the unknown type {kind!r:.40}"
        raise DocumentError(msg)
    check_keys(table, where, needed=["type", *fields])
    values = [text_of(table, field, where) for field in fields]
    if kind.startswith("exact"):
        named = parse_named(values[0])
        if named.bare != (kind == "exactRepository"):
            msg = f"{where} names {values[0]!r:.100}, which is not a {'repository' if named.tag else 'reference'}"
            raise DocumentError(msg)
    return Identity(kind, *values)
