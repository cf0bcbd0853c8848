"""A container registry on loopback, for tests: what is stored, who may do what, and which faults it has."""

from cfs_testkit.registry.content import Access, Seen
from cfs_testkit.registry.server import RegistryServer

__all__ = ["Access", "RegistryServer", "Seen"]
