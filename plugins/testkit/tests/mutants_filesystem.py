"""Filesystems that are wrong."""

from mutant import mutant

F = "filesystem.py"
WHOLE = "        whole = head.ljust("
SEEK = "            file.seek(region.offset)\n            file.write(whole)\n"

MUTANTS = (
    mutant("has another name than it registered", "says_what_the_host_lacks", (F, 'name = "mutant"', 'name = "other"')),
    mutant(
        "changes the case of names",
        "what_goes_in_comes_out",
        (
            F,
            "        for path, action in contents.items():\n",
            "        for path, action in contents.items():\n            path = path.replace('Inner', 'inner')\n",
        ),
    ),
    mutant(
        "cannot be empty",
        "an_empty_one_can_be_made",
        (
            F,
            "        text = json.dumps(index)",
            '        if not contents:\n            raise DiskError("nothing to do")\n        text = json.dumps(index)',
        ),
    ),
    mutant("asks for too little", "the_estimate_is_enough", (F, "return HEAD + files +", "return HEAD + files // 2 +")),
    mutant(
        "finds what is not wrong",
        "a_new_one_is_clean",
        (
            F,
            "        changed = []\n",
            '        changed = [Finding.error("x", "x", where="x")] if "/many" in reader.index and len(reader.index) < 400 else []\n',
        ),
    ),
    mutant(
        "writes behind its region",
        "nothing_outside_is_touched",
        (F, SEEK, SEEK + "            file.seek(region.offset + region.size)\n            file.write(b'x')\n"),
    ),
    mutant(
        "writes the time of day",
        "twice_the_same_is_byte_for_byte_the_same",
        (
            F,
            "        text = json.dumps(index).encode()\n",
            "        text = json.dumps(index).encode() + b' ' * (__import__('time').time_ns() // 1000 % 999)\n",
        ),
    ),
    mutant(
        "does not say that it is full",
        "too_small_is_disk_full",
        (
            F,
            'raise DiskFullError("too small", facts={"needed": len(whole), "available": region.size})',
            'raise DiskError("failed")',
        ),
    ),
    mutant(
        "hides why its source failed",
        "a_failing_source_is_not_hidden",
        (
            F,
            "                content = action.data if isinstance(action, WriteFile) else read_all(action.source)\n",
            "                try:\n"
            "                    content = action.data if isinstance(action, WriteFile) else read_all(action.source)\n"
            "                except Exception as error:\n"
            '                    raise DiskError("failed") from error\n',
        ),
    ),
    mutant(
        "leaves files in scratch",
        "making_it_leaves_nothing_in_scratch",
        (
            F,
            "        text = json.dumps(index)",
            '        (self.context.scratch / "index").write_text("x")\n        text = json.dumps(index)',
        ),
    ),
    mutant(
        "prints while it works",
        "it_prints_nothing_when_built",
        (F, "        text = json.dumps(index)", '        print("writing")\n        text = json.dumps(index)'),
    ),
    mutant(
        "leaves out what it does not know",
        "links_and_special_files",
        (F, '                index[path] = {"kind": "special"}', "                pass"),
    ),
    mutant(
        "invents digests",
        "verity_is_what_the_kernel_would_compute",
        (
            F,
            "digest = verity_digest(content, verity) if verity else None",
            "digest = verity_digest(content[:4096], verity) if verity else None",
        ),
    ),
    mutant(
        "ignores a wish for fs-verity",
        "verity_is_refused_where_there_is_none",
        ("plugin.py", "verity=True", "verity=False"),
    ),
    mutant(
        "has exceptions of its own for what is missing",
        "missing_paths_are_as_in_the_os_module",
        (F, "raise FileNotFoundError(path)", "raise KeyError(path)"),
    ),
    mutant(
        "reads anything",
        "what_is_no_such_filesystem_is_a_disk_error",
        (
            F,
            '            raise DiskError("no such filesystem")',
            '            self.index, self.start = {"/": {"kind": "directory"}}, 0\n            return',
        ),
        also=("a_lost_beginning_is_found",),
    ),
    mutant(
        "overlooks a lost index",
        "a_lost_beginning_is_found",
        (
            F,
            'return [Finding.error("toy", error.message, where="index")]',
            'return [Finding.error("toy", error.message, where="index")] if region.size == 4 << 20 else []',
        ),
    ),
    mutant(
        "counts its checks",
        "checking_changes_nothing",
        (
            F,
            "        try:\n            reader = Reader(region)\n",
            '        with region.path.open("r+b") as file:\n            file.seek(region.offset + HEAD - 1)\n            file.write(b"1")\n        try:\n            reader = Reader(region)\n',
        ),
    ),
)
