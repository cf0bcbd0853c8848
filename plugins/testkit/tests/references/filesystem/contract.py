from cfs_testkit.contracts import FilesystemContract


class TestMutant(FilesystemContract):
    provider = "mutant"
    least_bytes = 8 << 20
