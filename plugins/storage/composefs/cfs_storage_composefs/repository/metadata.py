"""meta.json: what a repository says about itself (formats D.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cfs_core.plugin import FormatVersion, HashAlgorithm, StorageError
from cfs_storage_composefs.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "meta.json"
LIMIT = 64 * 1024
"""Bytes of a meta.json that we are willing to read."""

_VERSION = 1
_ALGORITHMS = {f"fsverity-{algorithm.value}-12": algorithm for algorithm in HashAlgorithm}
_EROFS_VERSIONS = {0: FormatVersion.V0, 1: FormatVersion.V1, 2: FormatVersion.V2}
_EROFS_NUMBERS = {version: number for number, version in _EROFS_VERSIONS.items()}
_V1_FEATURE = "v1_erofs"


def may_be_ours(data: bytes) -> bool:
    """Return whether a file of this name can be one of composefs's: it says so, or it can say nothing any more."""
    try:
        value = json.loads(data)
    except ValueError:
        return True
    return isinstance(value, dict) and str(value.get("algorithm", "")).startswith("fsverity-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Facts of a repository. ``read_only`` is set by features that we do not know how to keep intact."""

    algorithm: HashAlgorithm = HashAlgorithm.SHA512
    version: FormatVersion = FormatVersion.V1
    extra: tuple[FormatVersion, ...] = ()
    read_only: bool = False

    def to_bytes(self) -> bytes:
        """Return the file's bytes, laid out as composefs-rs does it."""
        formats: dict[str, object] = {"default": _EROFS_NUMBERS[self.version]}
        if self.extra:
            formats["extra"] = [_EROFS_NUMBERS[version] for version in self.extra]
        value = {
            "version": _VERSION,
            "algorithm": f"fsverity-{self.algorithm.value}-12",
            "features": {
                "compatible": [],
                "read-only-compatible": [_V1_FEATURE] if self.version is FormatVersion.V1 else [],
                "incompatible": [],
            },
            "erofs_formats": formats,
        }
        return json.dumps(value, indent=2).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes, where: str) -> Metadata:
        """Read a meta.json; *where* names it in messages.

        Raises:
            DamagedError: not such a file.
            StorageError: made by a newer program that says we must not use it.
        """
        value = _mapping(_load(data, where), where)
        version = value.get("version")
        if not isinstance(version, int) or isinstance(version, bool):
            _malformed(where, "version")
        if version > _VERSION:
            msg = f"{where} has format version {version}; this program knows {_VERSION}"
            raise StorageError(msg, hint="use a newer cfs")
        algorithm = _ALGORITHMS.get(str(value.get("algorithm")))
        if algorithm is None:
            msg = f"{where} names the unknown algorithm {value.get('algorithm')!r:.100}"
            raise StorageError(msg, hint=f"known are {', '.join(_ALGORITHMS)}")
        features = _mapping(value.get("features", {}), where)
        if unknown := _strings(features.get("incompatible", []), where):
            msg = f"{where} asks for features this program does not have: {', '.join(sorted(unknown))}"
            raise StorageError(msg, hint="use a newer cfs")
        read_only = _strings(features.get("read-only-compatible", []), where)
        default = FormatVersion.V1 if _V1_FEATURE in read_only else FormatVersion.V2
        extra: tuple[FormatVersion, ...] = ()
        if "erofs_formats" in value:
            formats = _mapping(value["erofs_formats"], where)
            default = _erofs_version(formats.get("default", _EROFS_NUMBERS[default]), where)
            listed = formats.get("extra", [])
            if not isinstance(listed, list):
                _malformed(where, "erofs_formats.extra")
            extra = tuple(_erofs_version(number, where) for number in listed)
        return cls(algorithm=algorithm, version=default, extra=extra, read_only=bool(read_only - {_V1_FEATURE}))


def _load(data: bytes, where: str) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        msg = f"{where} is not JSON: {error}"
        raise DamagedError(msg, hint="restore it, or make the repository anew") from error
    return value


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        _malformed(where, "an object")
    return value


def _strings(value: object, where: str) -> set[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _malformed(where, "features")
    return set(value)


def _erofs_version(number: object, where: str) -> FormatVersion:
    version = _EROFS_VERSIONS.get(number) if isinstance(number, int) else None
    if version is None:
        msg = f"{where} asks for the unknown EROFS format {number!r:.100}"
        raise StorageError(msg, hint="use a newer cfs")
    return version


def _malformed(where: str, what: str) -> NoReturn:
    msg = f"{where} is malformed at {what}"
    raise DamagedError(msg, hint="restore it, or make the repository anew")
