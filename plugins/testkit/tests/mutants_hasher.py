"""Hashers that are wrong."""

from mutant import mutant

H = "hasher.py"

MUTANTS = (
    mutant(
        "forgets what does not fill its lanes",
        "hashes_as_hashlib",
        (
            H,
            "range(0, len(data), LANES * size)",
            "range(0, len(data) // (LANES * size) * LANES * size or 1, LANES * size)",
        ),
        also=(
            "any_size_of_blocks",
            "digests_are_kept_apart",
            "threads_do_not_disturb_each_other",
        ),
    ),
    mutant(
        "knows one size of blocks",
        "any_size_of_blocks",
        (H, "data[at : at + size]).digest()", "data[at : at + 4096]).digest()"),
    ),
    mutant(
        "fails without blocks",
        "nothing_is_nothing",
        (H, "        return bytes(self.own.output)", "        data[0]\n        return bytes(self.own.output)"),
    ),
    mutant(
        "rounds addresses down",
        "any_address",
        (
            H,
            "    def hash_blocks(self, data, size, algorithm):\n",
            "    def hash_blocks(self, data, size, algorithm):\n"
            "        shift = len(data.obj) - len(data)\n"
            "        data = memoryview(data.obj)[shift // 16 * 16 :][: len(data)]\n",
        ),
    ),
    mutant(
        "pads in place",
        "data_stays_as_it_is",
        (
            H,
            "        return bytes(self.own.output)",
            "        if not data.readonly:\n            data[-1] ^= 1\n        return bytes(self.own.output)",
        ),
    ),
    mutant(
        "holds what it was given",
        "data_stays_as_it_is",
        (H, "        self.own.output = byte", "        self.held = data[:]\n        self.own.output = byte"),
    ),
    mutant(
        "returns its own buffer",
        "digests_are_kept_apart",
        (
            H,
            "        self.own.output = bytearray(len(data) // size * algorithm.size)\n",
            "        self.own.__dict__.setdefault('output', bytearray())[:] = bytes(len(data) // size * algorithm.size)\n",
        ),
        (H, "        return bytes(self.own.output)", "        return self.own.output"),
    ),
    mutant(
        "shares one buffer between threads",
        "threads_do_not_disturb_each_other",
        (H, "self.own = threading.local()", "self.own = type('Shared', (), {})()"),
    ),
)
