"""composefs keeps the contract of storage formats, in every version and with every hash."""

from types import MappingProxyType

from cfs_core.plugin import FormatOptions, FormatVersion, HashAlgorithm
from cfs_testkit.contracts import StorageContract

UNPROTECTED = MappingProxyType({"meta.json": "composefs-rs gives it no checksum: a feature's name may change unseen"})


class TestComposefs(StorageContract):
    provider = "composefs"
    unprotected = UNPROTECTED


class TestComposefsV0Sha256(StorageContract):
    provider = "composefs"
    unprotected = UNPROTECTED
    options = FormatOptions(version=FormatVersion.V0, algorithm=HashAlgorithm.SHA256)


class TestComposefsV2(StorageContract):
    provider = "composefs"
    unprotected = UNPROTECTED
    options = FormatOptions(version=FormatVersion.V2, algorithm=HashAlgorithm.SHA512)
