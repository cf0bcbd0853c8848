import contextlib
import hashlib
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest
from builders.pe import addon_bytes, pe_bytes, uki_bytes

from cfs_core.errors import ImageError, LimitError
from cfs_core.image.artifacts import find_artifacts, parse_os_release, with_initrd
from cfs_core.image.pe import SECTIONS_LIMIT, read_pe
from cfs_core.image.reader import ImageReader
from cfs_core.image.sealed import effective, parse_words, sealed_arguments, sealed_words
from cfs_core.model.boot import Architecture, EntryKind
from cfs_core.model.content import BytesContent, read_all
from cfs_core.model.digest import HashAlgorithm
from cfs_core.model.tree import Directory, RegularFile, Symlink
from cfs_testkit.programs import kernel as kernel_file

HEX256, HEX512 = "ab" * 32, "cd" * 64
OS_RELEASE = b'ID=debian\nPRETTY_NAME="Debian GNU/Linux 13"\nVERSION_ID=13\n'


def image(files) -> ImageReader:
    root = Directory(0o755)
    for path, data in files.items():
        *parents, last = path.encode().split(b"/")
        here = root
        for name in parents:
            here = here.entries.setdefault(name, Directory(0o755))
        node = Symlink(0o777, target=data.encode()) if isinstance(data, str) else RegularFile(0o644)
        if isinstance(node, RegularFile):
            node.size, node.data = len(data), data
        here.entries[last] = node
    return ImageReader(root, lambda _: BytesContent(b""))


def bls(version, *, kernel=b"K", initrd=b"I"):
    files = {f"usr/lib/modules/{version}/vmlinuz": kernel, f"usr/lib/modules/{version}/initramfs.img": initrd}
    return {name: data for name, data in files.items() if data is not None}


def test_a_kernel_with_its_initramfs():
    (found,) = find_artifacts(image(bls("6.12.1") | {"usr/lib/os-release": OS_RELEASE}))
    assert (found.kind, found.kernel_version) == (EntryKind.BLS, "6.12.1")
    assert (read_all(found.kernel), read_all(found.initrd)) == (b"K", b"I")
    assert found.boot_digest == hashlib.sha256(b"KI").hexdigest()
    assert found.release("PRETTY_NAME") == "Debian GNU/Linux 13"
    assert sealed_words(found) == ()


def test_a_uki_that_states_no_version_has_that_of_its_kernel():
    uki = pe_bytes([(".linux", kernel_file(version="6.12.3")), (".initrd", b"i")])
    (found,) = find_artifacts(image({"boot/EFI/Linux/a.efi": uki}))
    assert found.kernel_version == "6.12.3"
    arm = pe_bytes([(".linux", kernel_file("arm64"))], 0xAA64)
    (found,) = find_artifacts(image({"boot/EFI/Linux/a.efi": arm, "usr/lib/modules/6.12.4/modules.dep": b""}))
    assert (found.kernel_version, found.architecture) == ("6.12.4", Architecture.ARM64)


def test_a_release_is_newer_than_its_candidates():
    names = [
        "6.9.1",
        "6.12.0-rc7",
        "6.12.0-rc10",
        "6.12.0",
        "6.12.0-0.rc7.fc41",
        "6.12.0-65.fc41",
        "6.13-rc1-amd64",
        "6.13-amd64",
    ]
    shuffled = random.Random(1).sample(names, len(names))
    files = {path: data for version in shuffled for path, data in bls(version, kernel=kernel_file()).items()}
    assert [found.kernel_version for found in find_artifacts(image(files))] == names[::-1]


def test_a_kernel_that_is_none_comes_last():
    files = (
        bls("6.13.0", kernel=b"text\n")
        | bls("6.12.0", kernel=kernel_file(), initrd=None)
        | bls("6.9.0", kernel=kernel_file())
    )
    found = find_artifacts(image(files))
    assert [artifacts.kernel_version for artifacts in found] == ["6.9.0", "6.12.0", "6.13.0"]
    assert [bool(artifacts.kernel_forms) for artifacts in found] == [True, True, False]


def test_the_newest_complete_kernel_is_first():
    files = bls("6.9.12-1") | bls("6.12.0-2") | bls("6.13.0-1", initrd=None) | {"usr/lib/modules/6.14/modules.dep": b""}
    assert [found.kernel_version for found in find_artifacts(image(files))] == ["6.12.0-2", "6.9.12-1", "6.13.0-1"]
    assert find_artifacts(image({"etc/x": b""})) == ()


def test_a_kernel_behind_a_link():
    files = {"usr/lib/modules/6.1/vmlinuz": "../../../../boot/vmlinuz-6.1", "boot/vmlinuz-6.1": b"K"}
    (found,) = find_artifacts(image(files))
    assert read_all(found.kernel) == b"K"


def test_a_uki_with_its_addons():
    uki = uki_bytes(f'quiet composefs={HEX512} a="b c"')
    files = bls("6.12.1") | {
        "boot/EFI/Linux/os.efi": uki,
        "boot/EFI/Linux/os.efi.extra.d/debug.addon.efi": addon_bytes("debug"),
        "boot/EFI/Linux/other.efi.extra.d/no.addon.efi": addon_bytes("no"),
        "boot/loader/addons/all.addon.efi": addon_bytes("all"),
    }
    found, kernel = find_artifacts(image(files))
    assert (found.kind, kernel.kind) == (EntryKind.UKI, EntryKind.BLS)
    assert (found.uki_name, found.kernel_version) == ("os.efi", "6.12.1")
    assert read_all(found.uki) == uki
    assert found.boot_digest == hashlib.sha256(kernel_file() + b"initrd").hexdigest()
    assert found.sealed_arguments == ("quiet", f"composefs={HEX512}", 'a="b c"')
    assert found.release("PRETTY_NAME") == "Test OS 1"
    assert [(addon.name, addon.is_global) for addon in found.addons] == [
        ("debug.addon.efi", False),
        ("all.addon.efi", True),
    ]
    assert [word.hex for word in sealed_words(found)] == [HEX512]
    assert [(word.text, word.origin) for word in sealed_arguments(found)][2:] == [
        ('a="b c"', "os.efi"),
        ("all", "all.addon.efi"),
        ("debug", "debug.addon.efi"),
    ]


def test_ukis_beside_the_modules_and_by_version():
    files = {
        "usr/lib/modules/6.9.1/a.efi": uki_bytes(version="6.9.1"),
        "usr/lib/modules/6.12.1/deep/er/b.efi": uki_bytes(None, version="", initrd=None),
    }
    first, second = find_artifacts(image(files))
    assert (first.kernel_version, first.uki_name, first.sealed_arguments) == ("6.12.1", "b.efi", ())
    assert first.boot_digest == hashlib.sha256(kernel_file()).hexdigest()
    assert second.kernel_version == "6.9.1"


def test_the_seal_may_be_in_an_addon():
    files = {
        "boot/EFI/Linux/os.efi": uki_bytes("quiet"),
        "boot/EFI/Linux/os.efi.extra.d/seal.addon.efi": addon_bytes(f"composefs=?{HEX256}"),
    }
    (found,) = find_artifacts(image(files))
    (word,) = sealed_words(found)
    assert (word.hex, word.algorithm, word.verity_optional) == (HEX256, HashAlgorithm.SHA256, True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"boot/loader/entries/a.conf": b"title x"}, "boot entries of its own: /boot/loader/entries/a.conf"),
        ({"boot/EFI/Linux/a.efi": b"no PE"}, "a.efi is not a usable UKI"),
        ({"boot/EFI/Linux/a.efi": pe_bytes([(".text", b"x")])}, "no .linux section"),
        ({"boot/EFI/Linux/a.efi": pe_bytes([(".linux", b"a"), (".linux", b"b")])}, "2 sections named .linux"),
        ({"boot/EFI/Linux/a.efi": "nowhere"}, "not a regular file"),
        ({"boot/EFI/Linux/a.efi": uki_bytes()[:-600]}, "outside of the file"),
        (
            {"boot/EFI/Linux/a.efi": uki_bytes(), "boot/EFI/Linux/a.efi.extra.d/b.addon.efi": b"x"},
            "a.efi is not a usable UKI",
        ),
    ],
)
def test_what_is_refused(files, message):
    with pytest.raises(ImageError, match=message) as caught:
        find_artifacts(image(files))
    assert caught.value.hint or "regular" in message


def test_pe_sections():
    pe = read_pe(BytesContent(pe_bytes([(".cmdline", b"a"), (".linux", b"L" * 700), (".empty", b"")])))
    assert pe.architecture is Architecture.AMD64
    content = pe.section(".linux")
    assert content.size == 700
    with content.open() as file:
        file.seek(690)
        assert file.read() == b"L" * 10
        file.seek(0)
        assert file.read(5) == b"LLLLL"
    assert pe.section(".none") is None


def test_profiles():
    sections = [
        (".linux", b"L"),
        (".cmdline", b"base"),
        (".profile", b"ID=a"),
        (".cmdline", b"one"),
        (".profile", b"ID=b"),
    ]
    pe = read_pe(BytesContent(pe_bytes(sections)))
    assert read_all(pe.section(".cmdline")) == b"base"
    assert pe.text(".cmdline") == "one"
    assert read_pe(BytesContent(pe_bytes([*sections[:3], *sections[4:]]))).text(".cmdline") == "base"
    assert read_pe(BytesContent(pe_bytes([(".cmdline", b"a b\0c\0")]))).text(".cmdline") == "a b"
    with pytest.raises(ImageError, match="2 sections"):
        read_pe(BytesContent(pe_bytes([*sections[:4], (".cmdline", b"two")]))).text(".cmdline")


def test_pe_files_that_are_none():
    good = pe_bytes([(".linux", b"x" * 600)])
    for cut in (0, 1, 63, 64, 80, 190, 230):
        with pytest.raises(ImageError):
            read_pe(BytesContent(good[:cut]))
    far = good[:0x3C] + struct.pack("<I", 0xFFFFFFF0) + good[0x40:]
    with pytest.raises(ImageError):
        read_pe(BytesContent(far))
    with pytest.raises(LimitError):
        read_pe(BytesContent(pe_bytes((f".{i}", b"") for i in range(SECTIONS_LIMIT + 1))))
    with pytest.raises(LimitError):
        read_pe(BytesContent(pe_bytes([(".cmdline", b"x" * 100)]))).text(".cmdline", limit=99)


def test_mutated_ukis_never_raise_anything_else():
    generator = random.Random(20)
    good = uki_bytes(f"composefs={HEX256}")
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(generator.randint(1, 8)):
            data[generator.randrange(400 if generator.random() < 0.8 else len(data))] = generator.randrange(256)
        with contextlib.suppress(ImageError):
            for found in find_artifacts(image({"boot/EFI/Linux/a.efi": bytes(data)})):
                sealed_words(found)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (f"composefs={HEX256}", (HEX256, HashAlgorithm.SHA256, False, None)),
        (f"composefs=?{HEX512}", (HEX512, HashAlgorithm.SHA512, True, None)),
        (f'composefs="{HEX512}"', (HEX512, HashAlgorithm.SHA512, False, None)),
        (f"composefs.digest=v1-sha512-12:{HEX512}", (HEX512, HashAlgorithm.SHA512, False, "v1")),
        (f"composefs.digest=?v2-sha256-12:{HEX256}", (HEX256, HashAlgorithm.SHA256, True, "v2")),
    ],
)
def test_seal_words(word, expected):
    (found,) = parse_words(["quiet", word, "composefs.other=1", "composefsx=1"])
    assert (found.hex, found.algorithm, found.verity_optional, found.version) == expected


@pytest.mark.parametrize(
    "word",
    [
        "composefs=",
        "composefs=abc",
        "composefs=" + "AB" * 32,
        f"composefs.digest=v1-sha256-12:{HEX512}",
        "composefs.digest=x",
    ],
)
def test_seal_words_that_are_none(word):
    with pytest.raises(ImageError, match="names no composefs image"):
        list(parse_words([word]))


@pytest.mark.parametrize(
    ("line", "algorithm", "expected"),
    [
        ("", HashAlgorithm.SHA512, None),
        (f"composefs={HEX512} composefs={'0' * 128}", HashAlgorithm.SHA512, HEX512),
        (f"composefs={HEX256} composefs={HEX512}", HashAlgorithm.SHA512, HEX256),
        (f"composefs={HEX256} composefs.digest=v1-sha512-12:{HEX512}", HashAlgorithm.SHA512, HEX512),
        (f"composefs={HEX256} composefs.digest=v1-sha512-12:{HEX512}", HashAlgorithm.SHA256, HEX256),
        (f"composefs.digest=v1-sha512-12:{HEX512}", HashAlgorithm.SHA256, None),
    ],
)
def test_the_initramfs_takes_the_first_identity_that_fits_the_repository(line, algorithm, expected, tmp_path):
    found = effective(parse_words(line.split()), algorithm)
    assert (found and found.hex) == expected
    cmdline = tmp_path / "cmdline"
    cmdline.write_text(line)
    script = Path(__file__).parents[2] / "plugins/initramfs/cfs_initramfs/boot/cfs-setup-root"
    done = subprocess.run(
        ["sh", script, "parse", algorithm.value],
        env={"CFS_CMDLINE": str(cmdline), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split(" ")[0] == (expected or ""), done.stderr


def test_os_release():
    text = 'ID=debian\nNAME=\'A B\'\nX="a \\"q\\" \\$b"\n# c\nbad line\n1X=1\nY="open\nID=last\n'
    assert dict(parse_os_release(text)) == {"ID": "last", "NAME": "A B", "X": 'a "q" $b'}


SEALED = uki_bytes(f"quiet composefs={HEX512}")


@pytest.mark.parametrize(
    "files",
    [
        {"boot/EFI/Linux/T.EFI": SEALED},
        {"boot/efi/linux/t.efi": SEALED},
        {"boot/EFI/LINUX/t.Efi": SEALED},
        {"boot/efi/EFI/Linux/t.efi": SEALED},
        {"efi/EFI/Linux/t.efi": SEALED},
        {"boot/EFI/Linux": "../../usr/lib/ukis", "usr/lib/ukis/t.efi": SEALED},
        {"boot/EFI/Linux": "/usr/lib/ukis", "usr/lib/ukis/t.efi": SEALED},
        {"boot/EFI": "../usr/lib/efi", "usr/lib/efi/Linux/t.efi": SEALED},
        {"boot": "usr/lib/boot", "usr/lib/boot/EFI/Linux/t.efi": SEALED},
        {"boot/EFI/Linux/t.efi": "../../../usr/lib/t.efi", "usr/lib/t.efi": SEALED},
        {"boot/efi/EFI/Linux/t.efi": SEALED, "efi": "boot/efi"},
        {"usr/lib/modules/6.1/UKI.EFI": SEALED},
        {"usr/lib/modules/6.1": "../kernels/6.1", "usr/lib/kernels/6.1/uki.efi": SEALED},
    ],
)
def test_a_sealed_uki_is_found_wherever_an_esp_would_have_it(files):
    found, kernel = find_artifacts(image(bls("6.12.1") | files))
    assert (found.kind, kernel.kind) == (EntryKind.UKI, EntryKind.BLS)
    assert sealed_words(found)[0].hex == HEX512


def test_addons_are_found_without_regard_to_case():
    files = {
        "boot/EFI/Linux/T.EFI": uki_bytes("quiet"),
        "boot/EFI/Linux/t.efi.EXTRA.D/A.ADDON.EFI": addon_bytes(f"composefs={HEX256}"),
        "boot/Loader/Addons/B.Addon.EFI": addon_bytes("global"),
    }
    (found,) = find_artifacts(image(files))
    assert [addon.name for addon in found.addons] == ["A.ADDON.EFI", "B.Addon.EFI"]
    assert sealed_words(found)[0].hex == HEX256


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"boot/EFI/Linux/more": "/usr/lib/ukis", "usr/lib/ukis/t.efi": SEALED}, "link to a directory"),
        ({"boot/EFI/debian/t.efi": SEALED}, "no loader looks for one there"),
        ({"boot/EFI/BOOT/BOOTX64.EFI": SEALED}, "no loader looks for one there"),
        ({"boot/EFI/Linux/linux": SEALED}, "no loader looks for one there"),
        ({"efi/t.efi": SEALED}, "no loader looks for one there"),
        ({"usr/lib/modules/6.2/vmlinuz": SEALED}, "no loader looks for one there"),
        ({"boot/vmlinuz-6.1": SEALED}, "no loader looks for one there"),
        ({"boot/EFI/Linux/t.efi": "/absent"}, "not a regular file"),
    ],
)
def test_a_sealed_uki_that_nobody_would_start_is_refused(files, words):
    with pytest.raises(ImageError) as caught:
        find_artifacts(image(bls("6.12.1") | files))
    assert words in str(caught.value)
    assert caught.value.hint


def test_other_programs_below_boot_are_no_ukis():
    files = {
        "boot/EFI/BOOT/BOOTX64.EFI": pe_bytes([(".text", b"loader")]),
        "boot/EFI/debian/unsealed.efi": uki_bytes("quiet"),
        "boot/EFI/debian/broken.efi": SEALED[:100],
        "boot/grub/grub.cfg": b"MZ",
        "boot/loop": "../boot",
    }
    (found,) = find_artifacts(image(bls("6.12.1") | files))
    assert found.kind is EntryKind.BLS


def test_an_added_initrd_is_one_of_the_boot_files_and_counts_in_the_digest():
    (found,) = find_artifacts(image(bls("6.12")))
    more = with_initrd(with_initrd(found, BytesContent(b"2")), BytesContent(b"3"))
    assert [read_all(content) for content in more.initrds] == [b"I", b"2", b"3"]
    assert [read_all(content) for content in more.contents] == [b"K", b"I", b"2", b"3"]
    assert more.boot_digest == hashlib.sha256(b"KI23").hexdigest()
    assert found.extra_initrds == ()
