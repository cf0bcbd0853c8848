"""Storage formats that are wrong."""

from mutant import mutant

R = "repository.py"
S = "storage.py"
C = "check.py"
T = "tree_text.py"

MUTANTS = (
    mutant(
        "does not say its version",
        "a_new_repository_is_empty_and_sound",
        (
            R,
            "self.options = ChosenFormat(version=FormatVersion.V1, algorithm=algorithm)",
            "self.options = FormatOptions(algorithm=algorithm)",
        ),
    ),
    mutant(
        "makes what was not asked for",
        "what_is_no_repository_is_refused",
        (S, "if create and not path.exists():", "if not path.exists():"),
    ),
    mutant(
        "leaves its scratch behind",
        "scratch_leaves_nothing",
        (
            S,
            "tempfile.TemporaryDirectory(dir=self._scratch) as folder",
            "contextlib.nullcontext(tempfile.mkdtemp(dir=self._scratch)) as folder",
        ),
    ),
    mutant(
        "sorts layers",
        "a_layer_comes_back",
        (
            R,
            "for line in self._document(self._layer(diff_id)).splitlines():",
            "for line in sorted(self._document(self._layer(diff_id)).splitlines(), key=lambda line: parse_entry(line).path):",
        ),
    ),
    mutant(
        "stores layers twice",
        "importing_again_changes_nothing",
        (
            R,
            "        self._write(self._layer(layer.diff_id), [seal(",
            "        if self.has_layer(layer.diff_id):\n"
            '            self._write(self._layer(layer.diff_id).with_name(layer.diff_id.hex), [seal(b"")])\n'
            "        self._write(self._layer(layer.diff_id), [seal(",
        ),
    ),
    mutant(
        "keeps what was not verified",
        "a_layer_that_fails_verification_is_not_kept",
        (
            R,
            '        for _ in layer.trailer():\n            pass\n        self._write(self._layer(layer.diff_id), [seal(b"".join(lines))])',
            '        self._write(self._layer(layer.diff_id), [seal(b"".join(lines))])\n        for _ in layer.trailer():\n            pass',
        ),
    ),
    mutant(
        "lets an exception of its own out",
        "a_full_disk_is_a_storage_error",
        (
            R,
            '        except OSError as error:\n            message = f"{path} cannot be written',
            '        except ZeroDivisionError as error:\n            message = f"{path} cannot be written',
        ),
    ),
    mutant(
        "finds nothing in a layer that is not there",
        "a_layer_that_is_not_here",
        (
            R,
            '        """Yield the entries of a stored layer."""\n',
            '        """Yield the entries of a stored layer."""\n        if not self.has_layer(diff_id):\n            return\n',
        ),
    ),
    mutant(
        "writes while it computes",
        "the_identity_is_known_before_anything_is_written",
        (
            R,
            "        text = self._text(tree, bootable=bootable)\n",
            '        text = self._text(tree, bootable=bootable)\n        self._write(self._path / "cache", [text])\n',
        ),
    ),
    mutant(
        "mixes the place into the identity",
        "one_tree_has_one_identity",
        (
            R,
            "        self._canonical(tree, self.options)\n",
            "        self._canonical(tree, self.options)\n        tree.mtime_nsec = ord(self._path.name[-1])\n",
        ),
    ),
    mutant("overlooks permissions", "another_tree_has_another_identity", (T, '"mode": what.mode', '"mode": 0o755')),
    mutant(
        "reads directories without their times",
        "a_directory_has_the_identity_of_its_archive",
        (S, "int(found.st_mtime), 0)", "0, 0)"),
    ),
    mutant(
        "changes what it reads",
        "a_dump_comes_back",
        (
            S,
            "        return parse_tree(dump)",
            "        tree = parse_tree(dump)\n        tree.uid = 1\n        return tree",
        ),
    ),
    mutant(
        "lets exceptions of its reader out",
        "a_damaged_dump_is_an_image_error",
        (
            T,
            "except (ValueError, KeyError, TypeError, AttributeError) as error:",
            "except (KeyError, TypeError, AttributeError) as error:",
        ),
    ),
    mutant(
        "takes any tree for bootable",
        "an_image_without_usr_is_refused",
        (S, 'if not isinstance(tree.entries.get(b"usr"), Directory):', "if False:"),
    ),
    mutant(
        "does not find images by digest",
        "a_committed_image_is_listed",
        (R, "{image.name, str(image.manifest_digest), image.id}", "{image.name, image.id}"),
    ),
    mutant(
        "loses a directory",
        "a_committed_image_is_complete",
        (
            R,
            '        return parse_tree(self._read(self._path / "images" / image).splitlines())',
            '        tree = parse_tree(self._read(self._path / "images" / image).splitlines())\n        tree.entries.pop(b"etc")\n        return tree',
        ),
    ),
    mutant(
        "does not say which image",
        "the_initramfs_is_told_which_image",
        (R, 'text=f"mutant={image.id}"', 'text="mutant=yes"'),
    ),
    mutant(
        "empties too much",
        "a_bootable_tree_keeps_usr",
        (S, "        del reader\n", '        del reader\n        tree.entries[b"usr"].entries.pop(b"share")\n'),
    ),
    mutant(
        "keeps images without a tag",
        "garbage_collection_spares_what_is_tagged",
        (
            R,
            'for path in (self._path / "images").iterdir() if path.name not in wanted]',
            'for path in (self._path / "images").iterdir() if False]',
        ),
    ),
    mutant(
        "removes what others need",
        "garbage_collection_spares_what_is_tagged",
        (
            R,
            "if path.name not in objects]",
            "if path.name not in objects or (path.stat().st_size > 300_000 and any((self._path / 'tags').iterdir()))]",
        ),
    ),
    mutant(
        "takes a dry run for a run",
        "a_dry_run_removes_nothing",
        (R, "        if not dry_run:\n            for path", "        if True:\n            for path"),
    ),
    mutant(
        "forgets images in use",
        "images_in_use_are_kept",
        (R, "        wanted = set(keep)\n", "        wanted = set()\n"),
    ),
    mutant(
        "takes no lock",
        "garbage_collection_waits_for_nobody",
        (R, "if self._lock is not None and not dry_run:", "if False:"),
    ),
    mutant(
        "finds what is not wrong",
        "a_sound_repository_has_no_problems",
        (
            R,
            '        return check(FolderReader(self._path), "/")',
            '        from cfs_core.plugin import Finding\n\n        yield from check(FolderReader(self._path), "/")\n        if len(self.images()) == 1 and self.images()[0].name == "test":\n            yield Finding.error("x", "x", where="x")',
        ),
        also=("a_full_disk_is_a_storage_error",),
    ),
    mutant(
        "does not look at layers",
        "every_changed_file_is_found",
        (C, 'for folder in ("layers", "tags"):', 'for folder in ("tags",):'),
    ),
    mutant(
        "exports no tags",
        "an_exported_repository_is_complete",
        (
            R,
            '        for path in sorted((self._path / "tags").iterdir()):\n            if json',
            "        for path in ():\n            if json",
        ),
    ),
)
