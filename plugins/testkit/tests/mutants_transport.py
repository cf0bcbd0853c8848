"""Transports that are wrong."""

from mutant import mutant

T = "transport.py"
READ = 'return "", file.read(MANIFEST_LIMIT + 1)'
OPEN_BLOB = "        path = Path(reference.name, descriptor.digest.algorithm.value, descriptor.digest.hex)\n"
YIELD = 'yield iter(lambda: file.read(CHUNK), b"")'
END = """        with file:
            yield file
"""
FETCH = "        del accept\n"
WRITER = (
    ("plugin.py", 'schemes=("mutant",),', 'schemes=("mutant",), can_write=True,'),
    (
        T,
        END,
        END
        + """
    def open_writer(self, reference):
        return Writer(Path(reference.name))


class Writer(ImageWriter):
    def __init__(self, folder):
        self.folder = folder

    def has_blob(self, descriptor):
        return self.at(descriptor).exists()

    def put_blob(self, descriptor, chunks):
        self.at(descriptor).parent.mkdir(parents=True, exist_ok=True)
        temporary = self.at(descriptor).with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.writelines(chunks)
        temporary.rename(self.at(descriptor))

    def put_manifest(self, descriptor, raw, *, top):
        (self.folder / "manifest.json").write_bytes(raw)

    def at(self, descriptor):
        return self.folder / descriptor.digest.algorithm.value / descriptor.digest.hex
""",
    ),
    (T, "    ImageReference,\n", "    ImageReference,\n    ImageWriter,\n"),
    (
        "test",
        "    @pytest.fixture\n    def damage",
        '    @pytest.fixture\n    def destination(self, tmp_path):\n        return f"mutant:{tmp_path}/new"\n\n'
        "    @pytest.fixture\n    def damage",
    ),
)

MUTANTS = (
    mutant(
        "shouts its scheme", "schemes_are_words", ("plugin.py", 'schemes=("mutant",)', 'schemes=("mutant", "MUTANT")')
    ),
    mutant("forgets what was written", "a_reference_keeps_what_was_written", (T, "text=text)", "text=path)")),
    mutant(
        "lets an exception out of its grammar",
        "nonsense_is_a_usage_error",
        (T, "raise UsageError(message, hint=", "raise ValueError(message + "),
    ),
    mutant(
        "writes the manifest anew",
        "the_manifest_is_byte_for_byte",
        (T, READ, 'return "", file.read(MANIFEST_LIMIT) + b" "'),
    ),
    mutant(
        "makes another manifest each time",
        "asking_twice_gives_the_same_manifest",
        (T, FETCH, FETCH + '        self.count = getattr(self, "count", -1) + 1\n'),
        (T, READ, 'return "", file.read(MANIFEST_LIMIT - 99) + b" " * self.count'),
        also=("a_digest_names_the_image",),
    ),
    mutant(
        "states a type of its own",
        "the_media_type_is_stated_or_empty",
        (T, READ, 'return ("" if reference.digest else "text/plain"), file.read(MANIFEST_LIMIT + 1)'),
    ),
    mutant(
        "has never heard of digests",
        "a_digest_names_the_image",
        (T, FETCH, FETCH + '        if reference.digest:\n            raise ValueError("digest")\n'),
    ),
    mutant(
        "calls a missing image a failure",
        "an_image_that_does_not_exist",
        (
            T,
            FETCH,
            FETCH + '        if not Path(reference.name).exists():\n            raise TransportError("failed")\n',
        ),
    ),
    mutant(
        "reads manifests without end",
        "an_endless_manifest_is_not_read",
        (T, "file.read(MANIFEST_LIMIT + 1)", "file.read()"),
    ),
    mutant(
        "loses the last layer",
        "layers_hold_the_published_files",
        ("test", '    provider = "mutant"\n', '    provider = "mutant"\n    keeps_manifests = False\n'),
        (
            T,
            READ,
            "import json, hashlib\n"
            "            manifest = json.loads(file.read())\n"
            '            config = Path(reference.name, manifest["config"]["digest"].replace(":", "/"))\n'
            "            facts = json.loads(config.read_bytes())\n"
            '            if len(manifest["layers"]) > 1:\n'
            '                del manifest["layers"][1], facts["rootfs"]["diff_ids"][1]\n'
            "            data = json.dumps(facts).encode()\n"
            "            name = hashlib.sha256(data).hexdigest()\n"
            "            (config.parent / name).write_bytes(data)\n"
            '            manifest["config"] |= {"digest": f"sha256:{name}", "size": len(data)}\n'
            '            return "", json.dumps(manifest).encode()',
        ),
    ),
    mutant(
        "starts from the beginning again",
        "a_blob_can_be_read_from_the_middle",
        (T, "            file.seek(offset)\n", ""),
    ),
    mutant("reads whole layers into memory", "chunks_are_short", (T, YIELD, "yield [file.read()]")),
    mutant(
        "calls a missing blob a failure",
        "a_blob_that_does_not_exist",
        (T, OPEN_BLOB, OPEN_BLOB + '        if not path.exists():\n            raise TransportError("failed")\n'),
    ),
    mutant(
        "keeps files open",
        "leaving_a_blob_early_gives_everything_back",
        (
            T,
            OPEN_BLOB,
            OPEN_BLOB + '        path.exists() and self.__dict__.setdefault("kept", []).append(path.open("rb"))\n',
        ),
    ),
    mutant(
        "has one place for all threads",
        "layers_are_fetched_by_several_threads",
        (
            T,
            YIELD,
            'self.file = file\n            import time\n            time.sleep(0.01)\n            yield iter(lambda: self.file.read(CHUNK), b"")',
        ),
    ),
    mutant(
        "calls a compressed layer uncompressed",
        "uncompressed_layers_have_their_diff_id",
        (
            T,
            END,
            END + "\n    def open_uncompressed_layer(self, reference, descriptor, diff_id):\n"
            "        return self.open_blob(reference, descriptor, 0)\n",
        ),
        also=("layers_hold_the_published_files",),
    ),
    mutant(
        "judges another reference than was written",
        "the_canonical_reference_is_the_same_request",
        (
            T,
            END,
            END + "\n    def canonical(self, reference):\n        import dataclasses\n"
            '        return dataclasses.replace(reference, text="elsewhere")\n',
        ),
    ),
    mutant(
        "lets an exception of its own out",
        "damage_is_an_error_of_cfs",
        (
            T,
            OPEN_BLOB,
            OPEN_BLOB
            + "        import hashlib\n        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != path.name:\n"
            '            raise ValueError("damaged")\n',
        ),
    ),
    mutant("prints what it reads", "reading_prints_nothing", (T, OPEN_BLOB, OPEN_BLOB + '        print("reading")\n')),
    mutant(
        "cannot be closed twice",
        "closing_twice_is_harmless",
        (
            T,
            END,
            END
            + '\n    def close(self):\n        self.__dict__.pop("path") if hasattr(self, "path") else setattr(self, "path", 1)\n        if not hasattr(self, "path"):\n            raise RuntimeError("closed")\n',
        ),
        also=("leaving_a_blob_early_gives_everything_back",),
    ),
    mutant(
        "has no list of referrers",
        "referrers_are_descriptors",
        (T, END, END + "\n    def referrers(self, reference, digest, artifact_type=None):\n        return None\n"),
    ),
    mutant(
        "pretends to write",
        "one_that_only_reads_refuses_to_write",
        (T, END, END + "\n    def open_writer(self, reference):\n        return None\n"),
    ),
    mutant(
        "writes something else",
        "what_is_written_is_read_back",
        (T, "write_bytes(raw)", 'write_bytes(raw + b" ")'),
        base=WRITER,
        also=("writing_again_replaces_or_refuses",),
    ),
    mutant(
        "never replaces",
        "writing_again_replaces_or_refuses",
        (
            T,
            '(self.folder / "manifest.json").write_bytes(raw)',
            'path = self.folder / "manifest.json"\n        path.exists() or path.write_bytes(raw)',
        ),
        base=WRITER,
    ),
    mutant(
        "shows an image that is half there",
        "a_writer_left_early_shows_nothing",
        (
            T,
            'temporary = self.at(descriptor).with_suffix(".tmp")',
            '(self.folder / "manifest.json").write_bytes(b"{}")\n        temporary = self.at(descriptor).with_suffix(".tmp")',
        ),
        base=WRITER,
    ),
    mutant(
        "keeps wrong blobs",
        "a_blob_that_fails_is_not_kept",
        (T, 'temporary = self.at(descriptor).with_suffix(".tmp")', "temporary = self.at(descriptor)"),
        base=WRITER,
    ),
    mutant(
        "says every blob is there",
        "has_blob_tells_the_truth",
        (T, "return self.at(descriptor).exists()", "return True"),
        base=WRITER,
        also=("what_is_written_is_read_back", "writing_again_replaces_or_refuses", "a_blob_that_fails_is_not_kept"),
    ),
    mutant(
        "says no blob is there",
        "has_blob_tells_the_truth",
        (T, "return self.at(descriptor).exists()", "return False"),
        base=WRITER,
    ),
)
