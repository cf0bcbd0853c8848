"""Which transport a scheme belongs to, as registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import PluginError, UsageError

if TYPE_CHECKING:
    from cfs_core.interfaces.provider import TransportProvider
    from cfs_core.pluginhost.registry import Registry


def scheme_owners(registry: Registry[TransportProvider]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Map schemes to transport names, and schemes that several transports claim to those names."""
    owners: dict[str, str] = {}
    contested: dict[str, tuple[str, ...]] = {}
    for provider in registry:
        for scheme in provider.schemes:
            if scheme in contested:
                contested[scheme] += (provider.name,)
            elif scheme in owners:
                contested[scheme] = (owners.pop(scheme), provider.name)
            else:
                owners[scheme] = provider.name
    return owners, contested


def owner_of(scheme: str, registry: Registry[TransportProvider]) -> str:
    """Return the name of the transport that *scheme* belongs to.

    Raises:
        UsageError: it is none's.
        PluginError: two plugins claim it.
    """
    owners, contested = scheme_owners(registry)
    if scheme in contested:
        names = " and ".join(f"{name} of {registry.owner(name)}" for name in contested[scheme])
        msg = f"{scheme}: is claimed by {names}; neither is used"
        raise PluginError(msg, hint="switch one off with --disable-plugin NAME")
    if scheme not in owners:
        lost = "; ".join(str(trouble) for trouble in registry.trouble if trouble.fatal)
        msg = f"no transport for {scheme}: (known: {', '.join(sorted(owners)) or 'none'})"
        msg += f"; not working: {lost}" if lost else ""
        raise UsageError(msg, hint="install a plugin, for example `pip install cfs-transport-oci-dir`")
    return owners[scheme]
