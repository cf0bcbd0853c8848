from cfs_testkit.contracts import LayoutContract


class TestMutant(LayoutContract):
    provider = "mutant"
