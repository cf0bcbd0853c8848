"""Bootloaders that are wrong."""

from mutant import mutant

B = "bootloader.py"
P = "plugin.py"
OFFER = '    """Offer mutant."""\n'
MAKE = "    from cfs_mutant.bootloader import MutantBootloader\n"
INSTALL = '        return _copy(target, location, loader, "mutant itself")'
WRITE_MENU = 'actions.append(WriteFile(location=MENU, data=new, why="the boot menu"))'
UNCHANGED = "        if new != text:\n"
NEW = "        head = [line for line in head if line.split"
UKI = (
    (P, "entries=frozenset({EntryKind.BLS})", "entries=frozenset({EntryKind.BLS, EntryKind.UKI})"),
    (
        B,
        "    if entry.kind is not EntryKind.BLS:\n"
        '        message = "mutant starts kernels, not unified kernel images"\n',
        "    if entry.kind is EntryKind.UKI and entry.artifacts:\n"
        "        if set(entry.arguments) - set(entry.artifacts.sealed_arguments):\n"
        '            raise BootError("its arguments are sealed")\n'
        "        if entry.artifacts.addons:\n"
        '            raise BootError("no addons")\n'
        "    if entry.kind is EntryKind.UKI and not entry.artifacts:\n"
        '        if "debug" in entry.arguments:\n'
        '            raise BootError("arguments of what is kept")\n'
        "    if False:\n"
        '        message = ""\n',
    ),
    (
        B,
        "        if entry.artifacts is None and old is not None:\n",
        "        if entry.kind is EntryKind.UKI:\n"
        '            fields = {"title": title, "kernel": (folder / "vmlinuz").path, "kind": "uki"}\n'
        '            fields |= {"options": " ".join(entry.arguments)} if entry.arguments else {}\n'
        "        elif entry.artifacts is None and old is not None:\n",
    ),
    (B, "            kind=EntryKind.BLS,\n", '            kind=EntryKind(fields.get("kind", "bls")),\n'),
    (
        B,
        "    if artifacts is None or artifacts.kernel is None:\n",
        "    if artifacts is not None and artifacts.uki is not None:\n"
        '        return _copy(target, FOLDER / entry.deployment_id / "vmlinuz", artifacts.uki, "uki")\n'
        "    if artifacts is None or artifacts.kernel is None:\n",
    ),
)
READER = """
    def as_the_loader_reads(self, disk):
        text = disk.read(Location(Volume.ESP, "/EFI/mutant/menu.conf")).decode()
        words = [line.partition("#")[0].split() for line in text.splitlines()]
        return [line[1:] for line in words if line[:1] == ["options"]]

"""
"""How the loader reads, to which # begins a comment anywhere; neither writer nor reader of the plugin know it."""

MUTANTS = (
    # --- what all kinds of plugins have in common
    mutant("prints when it registers", "registers_without_trouble", (P, OFFER, OFFER + '    print("hello")\n')),
    mutant(
        "registers something else each time",
        "registers_the_same_every_time",
        (P, 'summary="mutant as a bootloader"', "summary=str(__import__('random').random())"),
    ),
    mutant(
        "has a summary of two lines",
        "has_a_summary_of_one_line",
        (P, 'summary="mutant as a bootloader"', 'summary="one\\ntwo"'),
    ),
    mutant(
        "imports everything at once",
        "registration_loads_no_implementation",
        (P, "CFS_PLUGIN_API = (2, 0)", "CFS_PLUGIN_API = (2, 0)\nimport cfs_mutant.bootloader"),
    ),
    mutant(
        "makes something that only looks right",
        "factory_makes_the_interface",
        (
            P,
            "    return MutantBootloader()",
            '    return type("Other", (), {"__getattr__": lambda self, name: getattr(MutantBootloader(), name)})()',
        ),
    ),
    mutant("prints when it is made", "making_it_prints_nothing", (P, MAKE, MAKE + '    print("hello")\n')),
    # --- its console
    mutant(
        "takes everybody's errors for its own",
        "the_words_on_its_console_are_its_own",
        (P, 'failed=(r"^mutant: error: ",)', 'failed=(r"[Ee]rror|Failed",)'),
    ),
    mutant(
        "is started by whatever is",
        "the_words_on_its_console_are_its_own",
        (P, 'started=(r"^mutant \\d",)', 'started=(r"^BdsDxe: starting",)'),
    ),
    mutant(
        "calls everything harmless",
        "the_words_on_its_console_are_its_own",
        (P, 'failed=(r"^mutant: error: ",)', 'harmless=(r".",)'),
    ),
    # --- needs and findings
    mutant("gives no reason for its needs", "needs_are_sensible", (B, 'why="mutant and kernels"', 'why=""')),
    mutant(
        "forgets that kernels need room",
        "needs_count_the_boot_files",
        (B, "            files += facts.artifacts.contents", "            pass"),
        also=("needs_hold_what_is_put_there",),
    ),
    mutant(
        "refuses what it could start",
        "accepts_an_image_that_fits",
        (B, "        found = []\n", '        found = [Finding.error("boot.bad", "bad", "hint")]\n'),
        also=("firmware_finds_the_loader",),
    ),
    mutant(
        "does not look for its files",
        "finds_that_the_loader_is_missing",
        (B, "if facts.image is not None and _loader(facts) is None:", "if False:"),
        also=("firmware_finds_the_loader",),
    ),
    mutant(
        "says not what to do",
        "finds_that_the_loader_is_missing",
        (
            B,
            'Finding.error("boot.loader-missing", message, "install the package of mutant in the image")',
            'Finding.error("boot.loader-missing", message, "")',
        ),
    ),
    mutant(
        "starts from any firmware",
        "finds_that_the_firmware_does_not_fit",
        (B, "if facts.firmware != {Firmware.UEFI}:", "if False:"),
    ),
    # --- installing
    mutant(
        "writes outside its volumes",
        "install_stays_on_the_volumes_it_asked_for",
        (B, INSTALL, INSTALL + ' + [WriteFile(location=Location(Volume.ROOT, "/evil"), data=b"", why="evil")]'),
    ),
    mutant(
        "writes the time of day",
        "install_is_pure",
        (
            B,
            INSTALL,
            INSTALL
            + ' + [WriteFile(location=Location(Volume.ESP, "/stamp"), data=str(__import__("time").time_ns()).encode(), why="time")]',
        ),
    ),
    mutant(
        "makes an entry when it is installed",
        "install_adds_no_entry",
        (
            B,
            INSTALL,
            INSTALL
            + ' + ([] if target.exists(MENU) else [WriteFile(location=MENU, data=b"entry me\\n  title T\\n", why="entry")])',
        ),
        also=("a_title_cannot_break_the_menu",),
    ),
    mutant(
        "starts anew with every update",
        "install_again_destroys_nothing",
        (
            B,
            INSTALL,
            '        return [RemovePath(location=FOLDER, why="anew"), *_copy(target, location, loader, "mutant itself")]',
        ),
    ),
    mutant(
        "sets variables of the machine that builds",
        "install_ignores_the_running_machine",
        (B, INSTALL, INSTALL + ' + [SetEfiVariable(name="BootOrder", guid="8be4df61", data=b"", why="first")]'),
        (B, "    RemovePath,\n", "    RemovePath,\n    SetEfiVariable,\n"),
    ),
    # --- menus
    mutant(
        "sees a default where nothing is",
        "an_empty_disk_has_an_empty_menu",
        (B, "            default=default if any(", '            default="0" * 8 if text is None else default if any('),
    ),
    mutant(
        "wants to be installed first",
        "a_menu_can_be_planned_before_the_disk_exists",
        (
            B,
            "        del facts\n",
            '        if not target.names(Location(Volume.ESP, "/EFI/BOOT")):\n            raise BootError("not installed")\n',
        ),
        also=("needs_hold_what_is_put_there",),
    ),
    mutant(
        "loses titles",
        "an_entry_comes_back_as_it_was_wanted",
        (B, 'title=fields.get("title", self.name)', 'title="Linux"'),
    ),
    mutant(
        "names no files",
        "an_entry_has_its_boot_files",
        (B, 'for key in ("kernel", "initrd") for path', 'for key in ("kernel",) for path'),
        also=(
            "letter_case_is_nothing_on_fat",
            "boot_files_that_another_entry_shares_stay",
            "after_every_action_the_default_is_complete",
            "after_every_action_the_default_is_the_old_or_the_new_one",
        ),
    ),
    mutant(
        "takes backslashes away",
        "arguments_are_not_interpreted",
        (B, '"options": " ".join(entry.arguments),', '"options": " ".join(entry.arguments).replace("\\\\", ""),'),
        also=(
            "every_letter_of_an_argument_arrives",
            "every_pair_of_letters_arrives",
        ),
    ),
    mutant(
        "puts any title into its menu",
        "a_title_cannot_break_the_menu",
        (B, 'letter if letter.isprintable() else " "', "letter"),
    ),
    mutant(
        "sorts by name from ten on",
        "entries_are_shown_in_the_wanted_order",
        (
            B,
            NEW,
            "        stanzas = sorted(stanzas, key=lambda each: each.name) if len(stanzas) > 9 else stanzas\n" + NEW,
        ),
    ),
    mutant(
        "keeps the order of three",
        "the_order_can_be_turned_around",
        (
            B,
            NEW,
            "        if len(there) == 3 and {each.name for each in stanzas} == known.keys():\n"
            "            stanzas = [known[each.name] for each in there]\n" + NEW,
        ),
    ),
    mutant("writes what is there", "what_is_there_needs_no_action", (B, UNCHANGED, "        if True:\n")),
    mutant(
        "says another reason each time",
        "planning_a_menu_is_pure",
        (B, 'why="the boot menu"', "why=str(__import__('random').random())"),
    ),
    mutant(
        "puts a copy of the menu elsewhere",
        "menus_stay_on_the_volumes_it_asked_for",
        (
            B,
            UNCHANGED,
            UNCHANGED
            + '            actions.append(WriteFile(location=Location(Volume.ROOT, "/menu"), data=new, why="copy"))\n',
        ),
    ),
    mutant(
        "never tidies up",
        "a_removed_entry_leaves_nothing_behind",
        (B, 'if name != "menu.conf" and name not in kept:', "if False:"),
    ),
    mutant(
        "tidies up what another one shares",
        "boot_files_that_another_entry_shares_stay",
        (
            B,
            "        kept = {stanza.name for stanza in stanzas}\n",
            "        kept = {stanza.name for stanza in stanzas}\n"
            "        for gone in known.keys() - kept:\n"
            '            data = _read(target, FOLDER / gone / "vmlinuz")\n'
            "            for name in kept & known.keys():\n"
            '                if _read(target, FOLDER / name / "vmlinuz") == data:\n'
            '                    actions.append(RemovePath(location=FOLDER / name / "initrd", why="shared"))\n',
        ),
        also=("after_every_action_the_default_is_complete",),
    ),
    # --- options
    mutant(
        "loses the default",
        "a_default_that_is_not_first",
        (B, "[] if wanted.default is None else", "[] if True else"),
    ),
    mutant(
        "takes any default",
        "a_default_that_does_not_exist_is_refused",
        (
            B,
            "        if wanted.default is not None and wanted.default not in",
            "        if False and wanted.default not in",
        ),
    ),
    mutant(
        "loses boot counters",
        "boot_counting_is_kept_or_refused",
        (B, "    if entry.tries_left is not None:", "    if False:"),
    ),
    mutant(
        "loses the choice for the next boot",
        "a_one_shot_choice_is_kept_or_refused",
        (B, "        if wanted.once is not None:", "        if False:"),
    ),
    mutant("loses the timeout", "a_timeout_is_kept_or_refused", (B, "[] if timeout is None else", "[] if True else")),
    mutant(
        "takes entries of any kind",
        "kinds_that_were_not_declared_are_refused",
        (B, "    if entry.kind is not EntryKind.BLS:", "    if False:"),
        (
            B,
            "    if artifacts is None or artifacts.kernel is None:\n",
            "    if artifacts is None or artifacts.kernel is None:\n        return []\n",
        ),
    ),
    mutant(
        "drops arguments of a sealed kernel",
        "arguments_of_a_sealed_kernel_are_not_dropped",
        (
            B,
            '            raise BootError("its arguments are sealed")\n',
            "            import dataclasses\n            object.__setattr__(entry, 'arguments', ())\n",
        ),
        base=UKI,
    ),
    mutant(
        "drops addons",
        "addons_of_a_sealed_kernel_are_placed",
        (B, '            raise BootError("no addons")\n', "            pass\n"),
        base=UKI,
    ),
    # --- others, and crashes
    mutant(
        "drops entries of others",
        "entries_of_others_stay",
        (B, "stanzas += [stanza for stanza in there if not stanza.ours]", "pass"),
    ),
    mutant(
        "reads only good menus",
        "damaged_menus_are_no_crash",
        (
            B,
            'text.decode(errors="surrogateescape") if text is not None else ""',
            'text.decode() if text is not None else ""',
        ),
    ),
    mutant(
        "writes the menu before the files",
        "after_every_action_the_default_is_complete",
        (B, WRITE_MENU, WRITE_MENU.replace("actions.append(", "actions.insert(0, ")),
        also=("after_every_action_the_default_is_the_old_or_the_new_one",),
    ),
    mutant(
        "writes the menu first and its default then",
        "after_every_action_the_default_is_the_old_or_the_new_one",
        (
            B,
            WRITE_MENU,
            'order = [line for line in head if not line.startswith("default ")]\n            '
            'actions.append(WriteFile(location=MENU, data=_format(order, stanzas).encode(), why="the order"))\n            '
            + WRITE_MENU,
        ),
    ),
    mutant(
        "leaves temporary files",
        "a_second_run_finishes_what_a_crash_left",
        (
            B,
            WRITE_MENU,
            'temporary = Location(Volume.ESP, f"/menu-{len(actions)}")\n'
            '            actions.append(WriteFile(location=temporary, data=new, why="menu"))\n'
            '            actions.append(RenamePath(source=temporary, location=MENU, why="menu"))',
        ),
        (B, "    RemovePath,\n", "    RemovePath,\n    RenamePath,\n"),
    ),
    # --- what firmware and loader would see (mistakes of a first plugin that the kit once let pass)
    mutant(
        "is put where no firmware looks",
        "firmware_finds_the_loader",
        (B, "/EFI/BOOT/BOOT{facts.architecture.efi.upper()}.EFI", "/EFI/mutant/{facts.architecture.efi}.efi"),
    ),
    mutant(
        "calls itself by Go's name of the architecture",
        "firmware_finds_the_loader",
        (B, "BOOT{facts.architecture.efi.upper()}.EFI", "BOOT{facts.architecture.value.upper()}.EFI"),
    ),
    mutant(
        "is made for one architecture",
        "firmware_finds_the_loader",
        (B, "mutant{architecture.efi}.efi", "mutantx64.efi"),
    ),
    mutant(
        "asks for no room for itself",
        "needs_hold_what_is_put_there",
        (B, "        files = [_loader(facts)]\n", "        files = []\n"),
    ),
    mutant(
        "starts from BIOS if there is UEFI too",
        "finds_that_the_firmware_does_not_fit",
        (B, "if facts.firmware != {Firmware.UEFI}:", "if Firmware.UEFI not in facts.firmware:"),
    ),
    mutant(
        "has a marker that no image has",
        "markers_are_files_of_the_image",
        (P, "/usr/lib/mutant/mutant*.efi", "/usr/lib/mutant/*.bin"),
    ),
    mutant(
        "refuses no special letters",
        "every_letter_of_an_argument_arrives",
        (B, 'not argument.isprintable() or " " in argument or not argument', "not argument"),
        also=("arguments_are_not_interpreted",),
    ),
    mutant(
        "refuses spaces only",
        "every_letter_of_an_argument_arrives",
        (B, 'not argument.isprintable() or " " in argument', '" " in argument'),
    ),
    mutant(
        "takes two letters for a comment",
        "every_pair_of_letters_arrives",
        (B, '"options": " ".join(entry.arguments),', '"options": " ".join(entry.arguments).partition("/*")[0],'),
    ),
    mutant(
        "loses root= in writer and reader alike",
        "usual_arguments_arrive",
        (
            B,
            '"options": " ".join(entry.arguments),',
            '"options": " ".join(word for word in entry.arguments if not word.startswith("root=")),',
        ),
        (
            B,
            'tuple(fields.get("options", "").split(" "))',
            'tuple(word for word in fields.get("options", "").split(" ") if not word.startswith("root="))',
        ),
    ),
    mutant(
        "rewrites the lines of others",
        "entries_of_others_stay",
        (B, "            lines += stanza.lines\n", '            lines += [line + "\\r" for line in stanza.lines]\n'),
    ),
    mutant(
        "takes other letter case for another file",
        "letter_case_is_nothing_on_fat",
        (
            B,
            'kernel.lower() == (FOLDER / self.name / "vmlinuz").path.lower()',
            'kernel == (FOLDER / self.name / "vmlinuz").path',
        ),
    ),
    mutant(
        "loses arguments of a sealed kernel that is kept",
        "arguments_of_a_kept_sealed_kernel_are_not_dropped",
        (
            B,
            '            raise BootError("arguments of what is kept")\n',
            "            object.__setattr__(entry, 'arguments', ())\n",
        ),
        base=UKI,
    ),
    mutant(
        "takes no care of what the loader takes for a comment",
        "every_letter_of_an_argument_arrives",
        ("test", "    image_files = ", READER + "    image_files = "),
        also=("every_pair_of_letters_arrives",),
    ),
)

NOT_SEEN = {
    "names the device by a fixed name": "right on one disk, wrong on another: only a boot shows it (cfs_testkit.boot)",
    "leaves out the end of a block": "writer and reader agree; an `as_the_loader_reads` shows it, or a boot",
    "refuses letters that the loader would hand over": "too strict is no fault of a menu; only the loader knows",
}
"""Mistakes that no check can see in memory, and why."""
