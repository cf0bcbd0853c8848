import pytest

from cfs_core.errors import LimitError
from cfs_core.image.reader import ImageReader
from cfs_core.model.content import BytesContent
from cfs_core.model.tree import Directory, ObjectId, RegularFile, Symlink
from cfs_testkit.builders.oci import Dir, Link


def tree_of(tree, contents=None):
    root = Directory(0o755)
    for path, what in tree.items():
        *parents, last = path.encode("utf-8", "surrogateescape").split(b"/")
        here = root
        for name in parents:
            here = here.entries.setdefault(name, Directory(0o755))
        if isinstance(what, Dir):
            here.entries[last] = Directory(what.mode)
        elif isinstance(what, Link):
            here.entries[last] = Symlink(0o777, target=what.target.encode())
        else:
            node = here.entries[last] = RegularFile(0o644)
            node.size = len(what)
            if len(what) > 64:
                node.object = ObjectId(path)
                contents[path] = what
            else:
                node.data = what
    return root


@pytest.fixture
def reader():
    contents: dict[str, bytes] = {}
    tree = {
        "usr/lib/os-release": b"ID=x",
        "usr/bin/big": b"b" * 100,
        "etc/os-release": Link("../usr/lib/os-release"),
        "bin": Link("usr/bin"),
        "etc/abs": Link("/usr/bin/big"),
        "etc/up": Link("../../../../../usr/bin"),
        "loop/a": Link("b"),
        "loop/b": Link("a"),
        "etc/dangling": Link("nowhere"),
        "etc/self": Link("."),
        "etc/\udcff": b"raw",
    }
    return ImageReader(tree_of(tree, contents), lambda name: BytesContent(contents[name]))


def test_links_are_followed_inside_the_tree(reader):
    assert reader.read("/etc/os-release") == b"ID=x"
    assert reader.read("bin/big") == b"b" * 100
    assert reader.read("/etc/abs") == b"b" * 100
    assert reader.read("/etc/up/big") == b"b" * 100
    assert reader.read("/etc/self/self/os-release") == b"ID=x"
    assert reader.read("/../../etc/./os-release") == b"ID=x"
    assert reader.read("/bin/../lib/os-release") == b"ID=x"  # .. of what the link leads to, as the kernel does it
    assert reader.exists("/bin/../bin")
    assert reader.names("/bin") == ("big",)
    assert reader.read("/etc/\udcff") == b"raw"


@pytest.mark.parametrize(
    "path", ["/loop/a", "/etc/dangling", "/nothing", "/usr/bin/big/x", "/usr/bin/big/..", "/loop/a/x"]
)
def test_what_is_not_there(reader, path):
    assert not reader.exists(path)
    assert reader.content(path) is None
    assert reader.read(path) is None
    assert reader.names(path) == ()


def test_kinds(reader):
    assert reader.exists("/")
    assert reader.content("/usr") is None
    assert reader.names("/usr/lib/os-release") == ()
    assert reader.names("/") == ("bin", "etc", "loop", "usr")
    with pytest.raises(LimitError):
        reader.read("/usr/bin/big", limit=99)
