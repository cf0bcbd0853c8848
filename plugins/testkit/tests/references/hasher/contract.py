from cfs_testkit.contracts import HasherContract


class TestMutant(HasherContract):
    provider = "mutant"
