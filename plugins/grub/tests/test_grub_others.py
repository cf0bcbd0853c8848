"""Menus of others: what is kept of them, and read of them as GRUB does."""

import pytest
from grub_disks import (
    DEBIAN,
    GRUB,
    THEIRS,
    WITH_BLSUKI,
    bls,
    change,
    disk,
    environment,
    facts,
    letters,
    put,
    text,
    uki,
)

from cfs_core.plugin import (
    BootError,
)
from cfs_grub.environment import edit as edit_environment

FEDORAS = """\
set default="${saved_entry}"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
fi
insmod blscfg
blscfg
if [ -f $prefix/user.cfg ]; then
  source $prefix/user.cfg
fi
menuentry 'UEFI Firmware Settings' --id 'uefi-firmware' {
	fwsetup
}
"""


def test_a_grub_cfg_of_others_that_reads_entries_is_left_alone():
    target = disk()
    put(target, "/boot/grub2/grub.cfg", FEDORAS)
    put(target, "/boot/loader/entries/abc-6.1.conf", THEIRS)
    before = GRUB.read_menu(target)
    assert [(entry.deployment_id, entry.foreign) for entry in before.entries] == [
        ("abc-6.1.conf", True),
        ("uefi-firmware", True),
    ]
    menu = change(target, bls("b"))
    assert text(target, "/boot/grub2/grub.cfg") == FEDORAS
    assert text(target, "/boot/loader/entries/abc-6.1.conf") == THEIRS
    assert [entry.foreign for entry in menu.entries] == [False, True, True]
    menu = change(target, *menu.entries, default="uefi-firmware")
    assert environment(target)["saved_entry"] == "uefi-firmware"
    assert menu.default == "uefi-firmware"
    with pytest.raises(BootError, match="count"):
        change(target, bls("c", tries_left=2))
    menu = change(target, uki("d"), *menu.entries)
    assert letters(menu)[0] == "b"
    assert menu.default == "d" * 128


def test_a_grub_cfg_of_others_that_reads_no_entries_is_refused():
    target = disk()
    put(target, "/boot/grub/grub.cfg", "menuentry 'Debian' { linux /vmlinuz root=/dev/sda1 }\n")
    assert GRUB.read_menu(target).entries[0].title == "Debian"
    with pytest.raises(BootError, match=r"/boot/grub/grub\.cfg was written by another program"):
        change(target, bls("a"))


@pytest.mark.parametrize("files", [DEBIAN, WITH_BLSUKI])
def test_entries_of_others_are_offered_with_their_variables(files):
    target = disk()
    put(target, "/boot/loader/entries/zzz-6.1.conf", THEIRS)
    menu = change(target, bls("a"), of=facts(files))
    assert [entry.deployment_id for entry in menu.entries if entry.foreign] == ["zzz-6.1.conf"]
    default = menu.default or menu.entries[0].deployment_id
    assert default == "a" * 128
    script = text(target, "/boot/grub2/grub.cfg")
    written = "linux /vmlinuz ${kernelopts} ${tuned_params}\n  initrd /initrd ${tuned_initrd}\n"
    assert "blscfg" in script or written in script
    assert text(target, "/boot/loader/entries/zzz-6.1.conf") == THEIRS


NUMBERED = """\
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="NUMBER"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function never {
  menuentry 'never' { halt }
}
insmod blscfg
blscfg
menuentry 'Debian' --id d0 { linux /vmlinuz root=/dev/sda1
}
submenu 'Advanced' --id adv {
  menuentry 'old' --id d1 { linux /vmlinuz.old root=/dev/sda1
  }
}
menuentry 'Other' --id o { linux /x
}
"""


@pytest.mark.parametrize(
    ("number", "saved", "default"),
    [
        ("0", "", None),
        ("1", "", "d1"),
        ("2", "", "o"),
        ("adv>d1", "", "d1"),
        ("1>0", "", "d1"),
        ("Advanced>old", "", "d1"),
        ("9", "", None),
        ("${saved_entry}", "adv>d1", "d1"),
        ("${saved_entry}", "2", "o"),
        ("${saved_entry}", "Other", "o"),
        ("0", "o", None),
    ],
)
def test_defaults_of_others_are_read_as_grub_does(number, saved, default):
    target = disk()
    put(target, "/boot/grub/grub.cfg", NUMBERED.replace("NUMBER", number))
    put(target, "/boot/grub/grubenv", edit_environment(None, {"saved_entry": saved}).decode())
    menu = GRUB.read_menu(target)
    assert [entry.deployment_id for entry in menu.entries] == ["d0", "d1", "o"]
    assert menu.default == default


def test_a_grub_cfg_that_only_mentions_saved_entry_does_not_obey_it():
    target = disk()
    put(target, "/boot/grub2/grub.cfg", NUMBERED.replace("NUMBER", "0"))
    menu = change(target, bls("a"))
    assert menu.default is None
    with pytest.raises(BootError, match="does not obey saved_entry"):
        change(target, *menu.entries, default="o")
    change(target, *menu.entries, once="o")
    assert environment(target)["next_entry"] == "o"


def test_an_entry_in_a_submenu_is_chosen_by_its_path():
    target = disk()
    put(target, "/boot/grub2/grub.cfg", NUMBERED.replace("NUMBER", "${saved_entry}"))
    menu = change(target, bls("a"))
    menu = change(target, *menu.entries, default="d1")
    assert environment(target)["saved_entry"] == "adv>d1"
    assert menu.default == "d1"


def test_a_function_that_is_called_shows_its_entries():
    target = disk()
    script = "function f {\nmenuentry 'once' { halt }\n}\nfunction g {\nmenuentry 'never' { halt }\n}\nf\n"
    put(target, "/boot/grub2/grub.cfg", script)
    assert [entry.title for entry in GRUB.read_menu(target).entries] == ["once"]


@pytest.mark.parametrize("files", [DEBIAN, WITH_BLSUKI])
def test_of_several_lines_of_options_grub_takes_the_first(files):
    target = disk()
    put(target, "/boot/loader/entries/zzz.conf", "title Z\nlinux /z\noptions one\noptions two\n")
    menu = change(target, bls("a"), of=facts(files))
    assert next(entry for entry in menu.entries if entry.foreign).arguments == ("one",)


def test_user_cfg_keeps_what_is_not_ours():
    target = disk()
    put(target, "/boot/grub2/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2\nmenuentry 'mine' { halt }\n")
    menu = change(target, uki("a"))
    assert text(target, "/boot/grub2/user.cfg").startswith("GRUB2_PASSWORD=grub.pbkdf2\nmenuentry 'mine' { halt }\n")
    change(target, uki("b"), *[entry for entry in menu.entries if not entry.foreign])
    change(target, bls("c"))
    assert text(target, "/boot/grub2/user.cfg").startswith("GRUB2_PASSWORD=grub.pbkdf2\nmenuentry 'mine' { halt }\n")
    assert "Sealed" not in text(target, "/boot/grub2/user.cfg")


def test_the_environment_block_keeps_what_is_not_ours():
    target = disk()
    put(target, "/boot/grub2/grubenv", "# GRUB Environment Block\nkernelopts=a b\nboot_success=1\n".ljust(1024, "#"))
    change(target, bls("a"))
    assert environment(target) == {"kernelopts": "a b", "boot_success": "1"}
