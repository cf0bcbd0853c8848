from cfs_testkit.contracts import InitramfsContract


class TestMutant(InitramfsContract):
    provider = "mutant"
    initrd_files = {"init": "#!/bin/sh\n", "usr/lib/toy/mount": "program"}
