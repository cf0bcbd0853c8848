"""GRUB's formats: script, environment block, order of names, boot sectors, places in images."""

import shutil
import struct
import subprocess

import pytest
from grub_files import MODULES, Image, efi, elf, modules, program, shim
from hypothesis import given, settings
from hypothesis import strategies as st

from cfs_core.plugin import Architecture, BootError, find_pe
from cfs_grub import bios, config, environment
from cfs_grub.locate import find_modules, find_program, find_shim
from cfs_grub.order import Sorting, best_first, file_versions, rpm_names, rpm_versions
from cfs_grub.program import built_in, loader_name
from cfs_grub.script import find_commands, menu_entries, parse_script
from cfs_grub.words import is_plain, kernel_view, linux_words, quote

SCRIPT = r"""
# a comment with ' and "
if [ -f ${config_directory}/efiuuid.cfg ]; then
        source ${config_directory}/efiuuid.cfg
fi
function load_video {
  insmod all_video
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	load_video
	search --no-floppy --fs-uuid --set=root 1234
	echo	'Loading Linux ...'
	linux	/vmlinuz root=UUID=1 ro a"b c"d e\ f $kernelopts "${x}y"
	if [ x$feature = xy ]; then echo 'a } b'; fi
	initrd	/early.cpio /initrd
}
submenu "Advanced \"options\"" {
  menuentry 'inner' --id=inner { linux /vm2 ; }
}
blscfg
menuentry "Fedora 42: (abcdef)" {
insmod fat
chainloader /EFI/Linux/bootc/bootc_composefs-abcdef.efi
}
"""


def test_scripts_give_their_menu_entries():
    commands = parse_script(SCRIPT)
    entries = list(menu_entries(commands))
    assert [entry.arguments[0] for entry in entries] == ["Debian GNU/Linux", "inner", "Fedora 42: (abcdef)"]
    assert entries[0].option("$menuentry_id_option") == "gnulinux-simple-1"
    assert entries[1].option("--id") == "inner"
    (linux,) = find_commands(entries[0].body, "linux")
    assert linux.arguments == ("/vmlinuz", "root=UUID=1", "ro", "ab cd", "e f", "$kernelopts", "${x}y")
    assert [word.fixed for word in linux.words[-2:]] == [False, False]
    (initrd,) = find_commands(entries[0].body, "initrd")
    assert initrd.arguments == ("/early.cpio", "/initrd")
    assert SCRIPT[entries[2].start : entries[2].end].startswith('menuentry "Fedora')
    assert SCRIPT[entries[2].start : entries[2].end].endswith("efi\n}")
    assert [command.name for command in commands].count("blscfg") == 1
    (source,) = find_commands(commands, "source")
    assert source.arguments == ("${config_directory}/efiuuid.cfg",)


@settings(max_examples=300)
@given(st.text("{}'\"\\$ \n;#ab&|=menuentry", max_size=80))
def test_no_script_breaks_the_reader(text):
    for entry in menu_entries(parse_script("menuentry a { " + text)):
        assert 0 <= entry.start <= entry.end


@pytest.mark.parametrize("text", ["menuentry a {" * 5000, "{" * 50000, "'" * 50001, "menuentry" + " x" * 50000])
def test_hostile_scripts_end(text):
    parse_script(text)


@settings(max_examples=300)
@given(st.text(st.characters(blacklist_characters="\0\n\r", blacklist_categories=["Cs"]), min_size=1, max_size=20))
def test_quoted_words_come_back(text):
    (command,) = parse_script(f"linux /k {quote(text)} end")
    assert command.arguments == ("/k", text, "end")


def test_arguments_for_the_linux_command():
    assert linux_words(("quiet", "a=$x", "ä={;}")) == ("quiet", "a=$x", "ä={;}")
    assert linux_words(('a="b c"', '"d e"', 'f="g"')) == ("a=b c", "d e", "f=g")
    assert kernel_view(('a="b c"',)) == kernel_view(("a=b c",))
    for refused in ("a\\b", "it's", 'a="b"c"', "a b", 'x="a\tb"', '""', "", "a\nb"):
        with pytest.raises(BootError) as caught:
            linux_words((refused,))
        assert caught.value.hint


def test_only_plain_arguments_go_through_grubs_entry_reader():
    assert is_plain(("root=UUID=1-2", "console=ttyS0,115200n8", "a.b=c/d:e@f%g+h"))
    assert not any(is_plain((text,)) for text in ("a=$b", "a;b", 'a="b"', "a*", "ä", "a~b", "{}", "a\\b", "a'b"))


# --- environment block --------------------------------------------------------------------------------


def test_a_new_block_is_grubs():
    data = environment.edit(None, {"saved_entry": "x", "odd": "a\\b\nc=d"})
    assert len(data) == 1024
    assert data.startswith(b"# GRUB Environment Block\nsaved_entry=x\nodd=a\\\\b\\\nc=d\n###")
    assert environment.parse(data) == {"saved_entry": "x", "odd": "a\\b\nc=d"}


def test_what_is_not_changed_stays():
    old = b"# GRUB Environment Block\n# WARNING: Do not edit\nkernelopts=a $b \xff\nempty=\ngone=1\nlast=2\n"
    old = old.ljust(2048, b"#")
    new = environment.edit(old, {"gone": None, "last": "3", "none": None, "fresh": "é"})
    assert len(new) == 2048
    assert (
        new.rstrip(b"#")
        == b"# GRUB Environment Block\n# WARNING: Do not edit\nkernelopts=a $b \xff\nempty=\nlast=3\nfresh=\xc3\xa9\n"
    )
    assert environment.edit(old, {}) == old


def test_a_block_that_is_full_is_an_error():
    with pytest.raises(BootError, match="1024"):
        environment.edit(None, {"x": "y" * 1100})


@given(st.binary(max_size=1024))
def test_damaged_blocks_are_read(data):
    environment.parse(data)
    assert len(environment.edit(data[:900], {"a": "b"})) == 1024


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="grub-editenv is not installed")
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=8), st.text("a \\$\"'=ä", max_size=20), max_size=5))
@settings(max_examples=25, deadline=None)
def test_grub_editenv_reads_our_blocks(tmp_path_factory, values):
    block = tmp_path_factory.mktemp("env") / "grubenv"
    block.write_bytes(environment.edit(None, values))
    said = subprocess.run(["grub-editenv", block, "list"], check=True, capture_output=True).stdout.decode()
    assert said == "".join(f"{name}={value}\n" for name, value in values.items())
    subprocess.run(["grub-editenv", block, "set", "theirs=1"], check=True)
    assert environment.parse(block.read_bytes()) == values | {"theirs": "1"}


# --- order --------------------------------------------------------------------------------------------


def test_names_are_compared_as_packages():
    names = ["bootc_debian-13-1", "bootc_debian-13-0", "bootc_debian-9-5", "fedora-6.1.0-2.fc40", "alone"]
    assert best_first(reversed(names), Sorting.RPM) == [
        "fedora-6.1.0-2.fc40",
        "bootc_debian-13-1",
        "bootc_debian-13-0",
        "bootc_debian-9-5",
        "alone",
    ]


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("1.0", "1.0", 0),
        ("1.0", "2.0", -1),
        ("2.0.1", "2.0", 1),
        ("10", "9", 1),
        ("1.0010", "1.9", 1),
        ("1.05", "1.5", 0),
        ("a", "1", -1),
        ("1a", "1", 1),
        ("1.0~rc1", "1.0", -1),
        ("1.0~rc1", "1.0~rc2", -1),
        ("1.0+git", "1.0", 1),
        ("1.0+git", "1.0.1", -1),
        ("5.5p10", "5.5p1", 1),
        ("xyz.4", "8", -1),
        ("1_0", "1.0", 0),
        ("fc4", "fc.4", 0),
    ],
)
def test_versions_compare_as_rpm_does(a, b, result):
    assert rpm_versions(a, b) == result
    assert rpm_versions(b, a) == -result


STEMS = st.text("ab019.-_~+", min_size=1, max_size=12)


@given(STEMS, STEMS)
def test_orders_are_antisymmetric(a, b):
    assert rpm_names(a, b) == -rpm_names(b, a)
    assert file_versions(a, b) == -file_versions(b, a)


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("sort") is None, reason="coreutils are not installed")
@given(st.lists(st.text("ab019.-_~+Z^", min_size=1, max_size=9).filter(lambda s: s[0] != "."), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_file_names_compare_as_in_coreutils(names):
    names = list(dict.fromkeys(names))
    text = "".join(f"{name}.conf\n" for name in names)
    said = subprocess.run(
        ["sort", "-V", "-s"], input=text, capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
    ).stdout.splitlines()
    ours = [f"{name}.conf" for name in reversed(best_first(reversed(names), Sorting.FILEVERCMP))]
    for x, y in zip(said, ours, strict=True):
        assert x == y or file_versions(x.removesuffix(".conf"), y.removesuffix(".conf")) == 0


# --- BIOS ---------------------------------------------------------------------------------------------


def test_boot_code_leads_to_the_core_image():
    image = bytes(range(256)) * 2
    image = image[:510] + b"\x55\xaa"
    code = bios.boot_code(image, 2048)
    assert len(code) == 440
    assert struct.unpack_from("<Q", code, 0x5C) == (2048,)
    assert code[0x66:0x68] == b"\x90\x90"
    assert code[:0x5C] == image[:0x5C]
    assert code[0x68:] == image[0x68:440]
    assert bios.block_list(bytes(512), 2048) == (500, struct.pack("<Q", 2049))
    for broken in (b"", bytes(512), image + b"x"):
        with pytest.raises(BootError, match=r"boot\.img"):
            bios.boot_code(broken, 2048)
    with pytest.raises(BootError, match=r"diskboot\.img"):
        bios.block_list(b"short", 1)


# --- places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "prefixes"),
    [
        ("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", ("/EFI/debian",)),
        ("/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", ("/EFI/debian",)),
        ("/usr/lib/ostree-boot/efi/EFI/fedora/grubx64.efi", ("/EFI/debian", "/EFI/fedora")),
        ("/usr/lib/efi/grub2/1:2.12-30/EFI/fedora/grubx64.efi", ("/EFI/debian", "/EFI/fedora")),
        ("/usr/lib/bootupd/updates/EFI/centos/grubx64.efi", ("/EFI/debian", "/EFI/centos")),
        ("/usr/share/efi/x86_64/grub.efi", ("/EFI/debian",)),
        ("/usr/share/grub2/x86_64-efi/grub.efi", ("/EFI/debian",)),
    ],
)
def test_programs_are_found_where_distributions_put_them(path, prefixes):
    for signed in (False, True):
        files = {path: program(signed=signed)}
        found = find_program(Image(files), Architecture.AMD64)
        assert found.path == path
        assert found.signed is signed
        assert found.prefixes == prefixes
        assert found.modules == set(MODULES)
        assert found.bls is None
        assert find_program(Image(files), Architecture.ARM64) is None


def test_arm64_has_its_own():
    path = "/usr/lib/grub/arm64-efi/monolithic/grubaa64.efi"
    assert find_program(Image({path: program()}), Architecture.ARM64).path == path


@pytest.mark.parametrize(
    ("names", "sorting"),
    [
        ((), None),
        (("blsuki",), Sorting.FILEVERCMP),
        (("blscfg",), Sorting.RPM),
        (("blsuki", "blscfg"), Sorting.RPM),  # Fedora 44 and RHEL 10: blscfg is the older command there
        (("blscfg", "blsuki"), Sorting.RPM),
    ],
)
def test_what_reads_entries_is_found_by_looking(names, sorting):
    path = "/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"
    assert find_program(Image({path: program(*names)}), Architecture.AMD64).bls is sorting
    assert find_modules(Image(modules("x86_64-efi", *names)), "x86_64-efi").bls is sorting


def test_signatures_and_modules_of_programs():
    assert find_pe(program(signed=True)).signed
    assert not find_pe(program()).signed
    assert [module.name for module in built_in(program())] == list(MODULES)
    assert loader_name(shim()) == "grubx64.efi"
    assert loader_name(shim("grub.efi")) == "grub.efi"
    assert loader_name(efi(b"grubx64.efi")) is None


@settings(max_examples=200)
@given(st.data())
def test_damaged_programs_are_read(data):
    text = bytearray(program(signed=True)[:1500])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 8))
        text[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    find_pe(bytes(text))
    built_in(bytes(text))
    loader_name(bytes(text))
    built_in(b"mimg" + bytes(4) + (24).to_bytes(8, "little") + (1 << 60).to_bytes(8, "little") + elf("x"))


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("grub-mkimage") is None, reason="grub-mkimage is not installed")
def test_a_real_program_says_what_it_was_made_of(tmp_path):
    folder = "/usr/lib/grub/x86_64-efi"
    argv = ["grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/x", "-o", tmp_path / "g.efi", "part_gpt", "ext2", "linux"]
    if subprocess.run(argv, check=False, capture_output=True).returncode != 0:
        pytest.skip(f"no modules in {folder}")
    data = (tmp_path / "g.efi").read_bytes()
    names = {module.name for module in built_in(data)}
    assert names >= {"part_gpt", "ext2", "linux", "boot", "fshelp"}
    assert not names & {"xfs", "normal", "test"}
    assert not find_pe(data).signed


@pytest.mark.parametrize("root", ["/usr/lib/grub", "/usr/share/grub2", "/usr/lib64/grub"])
def test_modules_are_found(root):
    files = {f"{root}/i386-pc/{name}": b"" for name in ("kernel.img", "moddep.lst", "normal.mod", "blsuki.mod")}
    found = find_modules(Image(files), "i386-pc")
    assert found.directory == f"{root}/i386-pc"
    assert found.bls is Sorting.FILEVERCMP
    assert find_modules(Image({f"{root}/i386-pc/normal.mod": b""}), "i386-pc") is None


@pytest.mark.parametrize(
    ("shim", "manager"),
    [
        ("/usr/lib/shim/shimx64.efi.signed", "/usr/lib/shim/mmx64.efi.signed"),
        ("/usr/lib/efi/shim/15.8/EFI/fedora/shimx64.efi", "/usr/lib/efi/shim/15.8/EFI/fedora/mmx64.efi"),
        ("/usr/share/efi/x86_64/shim.efi", "/usr/share/efi/x86_64/MokManager.efi"),
    ],
)
def test_shim_is_found(shim, manager):
    found = find_shim(Image({shim: b"shim", manager: b"manager"}), Architecture.AMD64)
    assert found.path == shim
    assert found.manager.data == b"manager"


# --- our scripts, judged by GRUB ----------------------------------------------------------------------


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="grub-script-check is not installed")
@pytest.mark.parametrize("sorting", [None, *Sorting])
@pytest.mark.parametrize("tries", [None, 0, 3])
def test_our_scripts_are_scripts(sorting, tries, tmp_path):
    words = tuple(map(quote, linux_words(("a=$x", "b={;}'"[:-1], 'c="d e"', "ü=(|&<>#)"))))
    entry = config.ScriptEntry(id="bootc_x-1-1", title='It\'s "x" {', linux="/k", words=words, initrds=("/a", "/b"))
    text = config.grub_cfg(
        choices=[
            config.Counted(id="bootc_x-1-1", variable=None if tries is None else "cfs_tries_a"),
            config.Counted(id="Other: (b)"),
        ],
        entries=None if sorting else [entry, config.uki_entry("In between", "c"), entry],
        entries_path="/boot/loader/entries",
        prefix="",
        sorting=sorting,
        has_user=True,
        user_first=False,
        timeout=None,
        most_tries=tries or 0,
    )
    user = config.USER_CFG_HEAD + config.uki_entry('A "quoted" $title', "b") + config.efiuuid_cfg("1234-ABCD") + "\n"
    for number, script in enumerate([text, user, config.stub("u-u", "/boot/grub2")]):
        path = tmp_path / f"{number}.cfg"
        path.write_text(script, encoding="utf-8")
        subprocess.run(["grub-script-check", path], check=True)
