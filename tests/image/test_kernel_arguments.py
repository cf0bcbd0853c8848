import pytest

from cfs_core.bls import split_arguments
from cfs_core.errors import ImageError, UsageError
from cfs_core.image.kernel_arguments import LABEL, collect_arguments, quote
from cfs_core.image.reader import ImageReader
from cfs_core.model.boot import Architecture, KernelArgument
from cfs_core.model.content import BytesContent
from cfs_core.model.plan import Severity
from cfs_core.model.tree import Directory, RegularFile

BOOTC, CFS = "usr/lib/bootc/kargs.d/", "usr/lib/cfs/kargs.d/"


def image(files) -> ImageReader:
    root = Directory(0o755)
    for path, text in files.items():
        *parents, last = path.encode().split(b"/")
        here = root
        for name in parents:
            here = here.entries.setdefault(name, Directory(0o755))
        node = here.entries[last] = RegularFile(0o644)
        node.data = text.encode() if isinstance(text, str) else text
        node.size = len(node.data)
    return ImageReader(root, lambda _: BytesContent(b""))


def collected(files=(), labels=(), architecture=Architecture.AMD64, **kwargs):
    for name in ("own", "settings", "added"):
        kwargs[name] = [KernelArgument(text=text, origin=name) for text in kwargs.get(name, ())]
    return collect_arguments(image(dict(files)), dict(labels), architecture, **kwargs)


def texts(found):
    return [argument.text for argument in found.arguments]


def codes(found):
    return [(finding.code, finding.severity) for finding in found.findings]


def test_every_argument_has_its_place_and_origin():
    files = {
        BOOTC + "20-b.toml": 'kargs = ["b1", "b2 b3"]',
        BOOTC + "10-a.toml": 'kargs = ["a"]',
        BOOTC + "README": "not toml",
        CFS + "05-c.toml": 'kargs = ["c"]',
    }
    found = collected(files, {LABEL: "d e"}, own=["composefs=x"], settings=["s"], added=["z"])
    assert [(argument.text, argument.origin) for argument in found.arguments] == [
        ("a", "/usr/lib/bootc/kargs.d/10-a.toml"),
        ("b1", "/usr/lib/bootc/kargs.d/20-b.toml"),
        ("b2", "/usr/lib/bootc/kargs.d/20-b.toml"),
        ("b3", "/usr/lib/bootc/kargs.d/20-b.toml"),
        ("c", "/usr/lib/cfs/kargs.d/05-c.toml"),
        ("d", "image label containers.cfs.kargs"),
        ("e", "image label containers.cfs.kargs"),
        ("s", "settings"),
        ("composefs=x", "own"),
        ("z", "added"),
    ]
    assert found.findings == ()


@pytest.mark.parametrize(
    ("names", "architecture", "matches"),
    [
        ('["x86_64"]', Architecture.AMD64, True),
        ('["amd64"]', Architecture.AMD64, True),
        ('["aarch64", "x86_64"]', Architecture.ARM64, True),
        ('["x86_64"]', Architecture.ARM64, False),
        ('["riscv64"]', Architecture.RISCV64, True),
        ('["x86"]', Architecture.I386, True),
        ("[]", Architecture.AMD64, False),
    ],
)
def test_architectures(names, architecture, matches):
    files = {BOOTC + "a.toml": f'kargs = ["a"]\nmatch-architectures = {names}'}
    assert texts(collected(files, architecture=architecture)) == (["a"] if matches else [])


@pytest.mark.parametrize(
    "text",
    [
        "kargs = [",
        b"\xff",
        'kargs = "a"',
        "kargs = [1]",
        'match-architectures = ["x86_64"]',
        'kargs = ["a"]\nother = 1',
        'kargs = ["a"]\nmatch-architectures = "x86_64"',
        'kargs = ["a\\u0000b"]',
        'kargs = ["a=\\"open"]',
        "a = " + "[" * 3000,
    ],
)
def test_files_that_are_none(text):
    with pytest.raises(ImageError, match=r"/usr/lib/bootc/kargs.d/a.toml"):
        collected({BOOTC + "a.toml": text})
    with pytest.raises(ImageError, match="label"):
        collected(labels={LABEL: "a\x01b"})


def test_deleting():
    files = {BOOTC + "a.toml": 'kargs = ["console=tty0", "console=ttyS0", "quiet", "a-b=1", "a_b=2"]'}
    found = collected(files, deleted=["console=tty0", "quiet", "a_b"], added=["quiet"])
    assert texts(found) == ["console=ttyS0", "quiet"]
    assert [argument.text for argument in found.removed] == ["console=tty0", "quiet", "a-b=1", "a_b=2"]
    assert found.findings == ()
    found = collected(files, own=["composefs=x", "rw"], deleted=["nothing", "composefs", "rw"])
    assert texts(found)[-2:] == ["composefs=x", "rw"]
    assert codes(found) == [
        ("boot.karg-not-found", Severity.WARNING),
        ("boot.karg-needed", Severity.ERROR),
        ("boot.karg-needed", Severity.ERROR),
    ]


def test_contradictions_are_said_and_nothing_is_dropped():
    files = {BOOTC + "a.toml": 'kargs = ["ro", "root=/dev/sda1", "console=a", "hugepages=4"]'}
    found = collected(files, own=["root=UUID=1", "rw"], added=["console=b", "hugepages=4"])
    assert texts(found) == [
        "ro",
        "root=/dev/sda1",
        "console=a",
        "hugepages=4",
        "root=UUID=1",
        "rw",
        "console=b",
        "hugepages=4",
    ]
    assert codes(found) == [("boot.karg-conflict", Severity.WARNING)] * 2
    assert "/usr/lib/bootc/kargs.d/a.toml" in found.findings[0].message
    found = collected({BOOTC + "a.toml": 'kargs = ["composefs=other"]'}, own=["composefs=x"])
    assert codes(found) == [("boot.karg-composefs", Severity.ERROR)]
    assert collected(own=["root=UUID=1"], added=["root=UUID=1"]).findings == ()


def test_the_command_line_has_an_end():
    assert codes(collected(added=["x" * 2047])) == []
    assert codes(collected(added=["x" * 2048])) == [("boot.cmdline-too-long", Severity.ERROR)]
    assert codes(collected(added=["x" * 1024], architecture=Architecture.RISCV64)) == [
        ("boot.cmdline-too-long", Severity.ERROR)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  a  b\tc\n", ("a", "b", "c")),
        ('a="b c" d', ('a="b c"', "d")),
        ('"a b"=c', ('"a b"=c',)),
        ('a=b"c d"e f', ('a=b"c d"e', "f")),
        ('a="b c', ('a="b c',)),
        ("a=\\ b", ("a=\\", "b")),
        ("ä=$x 'q r'", ("ä=$x", "'q", "r'")),
    ],
)
def test_splitting_as_the_kernel_does(text, words):
    assert split_arguments(text) == words


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("quiet", "quiet"),
        ("a=b c", 'a="b c"'),
        ('a="b c"', 'a="b c"'),
        ("a b", '"a b"'),
        ("a b=c", '"a b=c"'),
        ("a=$HOME\\'ä", "a=$HOME\\'ä"),
    ],
)
def test_one_argument_is_one_word(text, word):
    assert quote(text) == word
    assert split_arguments(word) == (word,)


@pytest.mark.parametrize("text", ["", " ", 'a="', 'a="b" c', "a\nb", "a\0", "a\x7f"])
def test_arguments_that_cannot_be_one_word(text):
    with pytest.raises(UsageError):
        quote(text)
    with pytest.raises(UsageError):
        collected(added=[text])


def test_options_of_the_root_that_override_what_the_system_needs_are_refused():
    found = collected(own=["rootflags=subvol=@"], added=["rootflags=ro"])
    assert codes(found) == [("boot.karg-conflict", Severity.ERROR)]
    found = collected({BOOTC + "a.toml": 'kargs = ["rootflags=ro"]'}, own=["rootflags=subvol=@"])
    assert codes(found) == [("boot.karg-conflict", Severity.WARNING)]


def test_quotes_hide_no_composefs_argument():
    found = collected(own=["composefs=a"], added=['"composefs=b"'])
    assert codes(found) == [("boot.karg-composefs", Severity.ERROR)]
