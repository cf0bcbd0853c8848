"""Initramfs providers that are wrong."""

from mutant import mutant

M = "initramfs.py"
FOUND = "        if PROGRAM in names(data):\n"

MUTANTS = (
    mutant("names nobody", "recognises_its_own", (M, 'handler="toy", ', "")),
    mutant(
        "reads the first archive only",
        "recognises_it_however_it_is_packed",
        (M, "        data = archive(data, found)\n", "        data = archive(data, found) and b''\n"),
    ),
    mutant(
        "asks for arguments in one string", "arguments_are_words", (M, 'arguments=("rw",)', 'arguments=("rw quiet",)')
    ),
    mutant(
        "refuses what it does not know",
        "says_nothing_about_others",
        (
            M,
            '            return InitramfsVerdict(supported=True, handler="toy", arguments=("rw",))\n        return InitramfsVerdict(supported=None)',
            '            return InitramfsVerdict(supported=True, handler="toy", arguments=("rw",))\n        return InitramfsVerdict(supported=False)',
        ),
    ),
    mutant("knows every format", "knows_no_other_format", (M, 'if storage_format != "composefs":', "if False:")),
    mutant(
        "takes nothing for enough",
        "no_initramfs_is_no_yes",
        (
            M,
            "        if artifacts.initrd is None:\n            return InitramfsVerdict(supported=None)",
            "        if artifacts.initrd is None:\n            return InitramfsVerdict(supported=artifacts.uki is None)",
        ),
    ),
    mutant(
        "searches where it should parse",
        "a_lost_half_is_no_yes",
        (M, FOUND, "        if PROGRAM.encode() in data or PROGRAM in names(data):\n"),
    ),
    mutant(
        "lets exceptions of its parser out",
        "garbage_is_no_crash",
        (
            M,
            '        except ValueError as error:\n            raise ImageError("no number") from error',
            "        finally:\n            pass",
        ),
    ),
    mutant(
        "unpacks everything",
        "a_bomb_does_not_fill_memory",
        (
            M,
            "inflater.decompress(data, LIMIT)",
            "__import__('gzip').decompress(data) if len(data) > 100_000 else inflater.decompress(data, LIMIT)",
        ),
    ),
    mutant(
        "changes its mind",
        "answers_the_same_every_time",
        (M, FOUND, '        self.count = getattr(self, "count", 0) + 1\n' + FOUND),
        (M, 'arguments=("rw",)', 'arguments=("rw",) * self.count'),
    ),
    mutant(
        "reads what is not there",
        "a_unified_kernel_image_without_sections_is_no_crash",
        (
            M,
            "        if artifacts.initrd is None:\n",
            "        if artifacts.initrd is None and artifacts.uki is not None:\n            raise KeyError('.initrd')\n        if artifacts.initrd is None:\n",
        ),
    ),
)
