"""Layouts that are wrong."""

from mutant import mutant

L = "layout.py"

MUTANTS = (
    mutant(
        "makes things too small",
        "every_need_is_met",
        (L, "(need.volume, need.bytes_needed,", "(need.volume, need.bytes_needed // 2,"),
    ),
    mutant(
        "chooses no filesystem",
        "filesystems_are_those_asked_for",
        (L, "need.filesystems[0] if need.filesystems else None", "None"),
    ),
    mutant(
        "aligns to sectors only",
        "partitions_do_not_overlap",
        (L, "start, partitions = MIB, []", "start, partitions = MIB + 512, []"),
        also=("a_given_disk_is_filled",),
    ),
    mutant(
        "lets partitions overlap",
        "partitions_do_not_overlap",
        (L, "            start += aligned(size)\n", "            start += max(MIB, aligned(size) - MIB)\n"),
    ),
    mutant(
        "has the same identifiers always",
        "the_seed_decides_all_identifiers",
        (L, 'f"{request.seed}/{volume}"', 'f"{volume}"'),
    ),
    mutant(
        "leaves the rest of a disk empty",
        "a_given_disk_is_filled",
        (L, "root = max(root, (request.disk_size - used) // MIB * MIB)", "root = max(root, 100 * MIB)"),
    ),
    mutant(
        "takes any disk for large enough",
        "what_does_not_fit_is_refused",
        (L, '            raise RefusedError("too small")\n', "            root = MIB\n"),
    ),
    mutant(
        "forgets numbers",
        "what_was_written_is_read",
        (L, '"volume": Volume(entry["volume"])}', '"volume": Volume(entry["volume"]), "number": 0}'),
    ),
    mutant(
        "finds what is not wrong",
        "a_new_table_is_clean",
        (L, "        problems = []\n", '        problems = [Finding.error("x", "x", where="x")]\n'),
        also=("a_second_table_replaces_the_first", "every_lost_sector_is_found"),
    ),
    mutant(
        "clears what is in partitions",
        "the_file_keeps_its_size_and_contents",
        (
            L,
            '        with path.open("r+b") as file:\n',
            '        with path.open("r+b") as file:\n            file.seek(MIB)\n            file.write(bytes(4096))\n',
        ),
    ),
    mutant(
        "makes the file longer",
        "the_file_keeps_its_size_and_contents",
        (
            L,
            '        size = path.stat().st_size\n        with path.open("r+b")',
            '        size = path.stat().st_size + TABLE\n        with path.open("r+b")',
        ),
        also=("twice_the_same_is_byte_for_byte_the_same",),
    ),
    mutant(
        "keeps an old table",
        "a_second_table_replaces_the_first",
        (
            L,
            '        size = path.stat().st_size\n        with path.open("r+b")',
            '        size = path.stat().st_size\n        if self.table(path, backup=False):\n            return\n        with path.open("r+b")',
        ),
    ),
    mutant(
        "writes the time of day",
        "twice_the_same_is_byte_for_byte_the_same",
        (
            L,
            ".encode()\n        sealed",
            '.encode() + b" " * (__import__("time").time_ns() // 1000 % 999)\n        sealed',
        ),
    ),
    mutant(
        "does not look at the second table",
        "every_lost_sector_is_found",
        (L, "for backup in (False, True):", "for backup in (False,):"),
    ),
    mutant(
        "repairs where it should look",
        "checking_changes_nothing",
        (
            L,
            "                problems.append(",
            "                if self.table(path, backup=not backup):\n                    self.write(path, self.read(path), seed=None)\n                problems.append(",
        ),
    ),
    mutant(
        "lets an exception of its own out",
        "no_table_is_a_disk_error",
        (L, 'raise DiskError(f"{path} has no table")', 'raise ValueError("no table")'),
    ),
)
