"""The default plugins as they are installed here."""

import pytest

from cfs_core.errors import PluginError
from cfs_core.pluginhost import families
from cfs_core.pluginhost.distributions import DISTRIBUTIONS, install_hint
from cfs_core.pluginhost.load import PluginHost


def test_packages_that_errors_name_are_those_that_exist():
    host = PluginHost()
    host.load_installed()
    found = {
        provider.name: host.collect(family).owner(provider.name).distribution
        for family in families.ALL
        for provider in host.collect(family)
    }
    first_party = {name: owner for name, owner in found.items() if owner in set(DISTRIBUTIONS.values())}
    assert first_party == DISTRIBUTIONS
    with pytest.raises(PluginError) as caught:
        host.collect(families.FILESYSTEMS).get("zfs")
    assert "pip install" not in caught.value.hint
    assert install_hint("grub") == "pip install cfs-grub"
