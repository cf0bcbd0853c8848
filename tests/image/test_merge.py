import io

import pytest

from cfs_core.errors import ImageError, LimitError
from cfs_core.image.merge import merge_layers
from cfs_core.model.tree import Directory, Symlink, walk
from cfs_core.tar import read_members
from cfs_testkit.builders.oci import Dir, File, Hard, Link, raw_header, tar_bytes


def entries(tree, *, parents=False):
    source = io.BytesIO(tree if isinstance(tree, bytes) else tar_bytes(tree, parents=parents))
    for member in read_members(source):
        source.read(member.size)
        if member.entry is not None:
            yield member.entry


def merged(*layers, **kwargs):
    return merge_layers((entries(tree) for tree in layers), **kwargs)


def paths(root):
    return [path.decode() for path, _ in walk(root)]


BASE = {"a": Dir(0o700), "a/b": "1", "a/c": Dir(), "a/c/d": "2", "l": Link("a"), "e": "3"}


def test_no_layers_make_an_empty_root():
    root = merge_layers([])
    assert (root.mode, root.uid, root.gid, root.mtime_sec, root.entries) == (0, 0, 0, 0, {})


def test_layers_cover_each_other():
    root = merged(BASE, {"a": Dir(0o755, uid=7), "a/b": File("new", 0o600), "a/c": "now a file", "e": Dir()})
    assert paths(root) == ["/", "/a", "/a/b", "/a/c", "/e", "/l"]
    assert (root.entries[b"a"].mode, root.entries[b"a"].uid) == (0o755, 7)
    assert root.entries[b"a"].entries[b"b"].mode == 0o600
    assert isinstance(root.entries[b"e"], Directory)


def test_root_metadata():
    root = merged({"a": "1"}, {"./": Dir(0o751, 3, 4)})
    assert (root.mode, root.uid, root.gid) == (0o751, 3, 4)
    assert paths(root) == ["/", "/a"]
    with pytest.raises(ImageError, match="is not a directory"):
        merged(raw_header(b"."))


def test_whiteouts():
    assert paths(merged(BASE, {"a/.wh.b": "", ".wh.l": "", ".wh.nothing": ""})) == ["/", "/a", "/a/c", "/a/c/d", "/e"]
    assert paths(merged(BASE, {".wh.a": ""})) == ["/", "/e", "/l"]
    assert paths(merged(BASE, {"a/.wh..wh..opq": "", "a/n": ""})) == ["/", "/a", "/a/n", "/e", "/l"]
    assert paths(merged(BASE, {".wh..wh..opq": ""})) == ["/"]
    # an opaque mark counts where it stands: earlier entries of its own layer go too
    assert paths(merged(BASE, {"a/n": "", "a/.wh..wh..opq": "", "a/m": ""})) == ["/", "/a", "/a/m", "/e", "/l"]


def test_what_is_removed_is_not_written_to():
    """The directory that a later entry is in is another one than that which was removed, with nothing of it."""
    for mark in ("a/.wh.c", "a/.wh..wh..opq"):
        made = merged(BASE, {"a/c/y": "", mark: "", "a/c/x": ""}).entries[b"a"].entries[b"c"]
        assert list(made.entries) == [b"x"]
        assert made.mode == 0o755
    with pytest.raises(ImageError, match="not a directory"):
        merged(BASE, {"a/c/y": "", "a/c": "", "a/c/x": ""})


def test_hard_links():
    root = merged(BASE, {"h": Hard("a/b"), "a/c/h": Hard("h")})
    assert root.entries[b"h"] is root.entries[b"a"].entries[b"b"]
    assert root.entries[b"h"] is root.entries[b"a"].entries[b"c"].entries[b"h"]
    root = merged(BASE, {"h": Hard("l"), "a/b": "other"})
    assert isinstance(root.entries[b"h"], Symlink)
    root = merged({"x": "1", "y": Hard("x")}, {"x": "2"})
    assert root.entries[b"x"] is not root.entries[b"y"]
    assert paths(merged(BASE, {"a/b": Hard("a/b")})) == paths(merged(BASE))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"e/y": "1"}, "'/e/y' is in '/e', where 'e' is not a directory"),
        ({"l/y": "1"}, "'/l/y' is in '/l', where 'l' is a symbolic link"),
        ({"h": Hard("nothing")}, "hard link to '/nothing', which does not exist"),
        ({"h": Hard("a")}, "hard link to the directory '/a'"),
        ({"h": Hard("/")}, "hard link to the directory '/'"),
        ({"h": Hard("l/b")}, "hard link to '/l/b', which does not exist"),
    ],
)
def test_layers_that_do_not_fit(tree, message):
    with pytest.raises(ImageError, match=message) as caught:
        merged(BASE, tree)
    assert caught.value.facts["layer"] == 2


def test_directories_that_no_entry_names_are_implied():
    told = []
    root = merge_layers([entries(BASE), entries({"x/y/f": "1", "x/y/g": Hard("x/y/f")})], implied=told.append)
    for node in (root.entries[b"x"], root.entries[b"x"].entries[b"y"]):
        assert (node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec, node.xattrs) == (0o755, 0, 0, 0, 0, ())
    assert told == [b"/x/y", b"/x/y"]


def test_an_entry_that_names_an_implied_directory_decides():
    named = {"x": Dir(0o711, 3, 4)}
    for layers in (({"x/f": "1", **named},), ({"x/f": "1"}, named)):
        root = merged(*layers)
        assert (root.entries[b"x"].mode, root.entries[b"x"].uid) == (0o711, 3)
        assert list(root.entries[b"x"].entries) == [b"f"]


@pytest.mark.parametrize("mark", ["x/.wh.y", "x/.wh..wh..opq", "l/.wh.y", "e/.wh..wh..opq", ".wh.none", "e/.wh.y"])
def test_whiteouts_of_nothing_are_nothing(mark):
    assert paths(merged(BASE, {mark: ""})) == paths(merged(BASE))


def test_what_aufs_kept_for_itself_is_skipped():
    kept = {".wh..wh.aufs": "", ".wh..wh.plnk": Dir(0o700), ".wh..wh.plnk/1.2": "x" * 100, "a/.wh..wh.orph/f": "1"}
    assert paths(merged(BASE, {**kept, "n": "1"})) == [*paths(merged(BASE)), "/n"]


def test_the_number_of_entries_is_limited():
    assert merged(BASE, entry_limit=6)
    with pytest.raises(LimitError, match="more than 5 entries"):
        merged(BASE, entry_limit=5)


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        ({"a/f": "upper", "a/.wh.f": ""}, b"/a/f"),
        ({"n": Dir(0o755), "n/f": "1", ".wh.n": ""}, b"/n"),
        ({"n": Dir(0o755), "n/f": "1", "n/.wh..wh..opq": ""}, b"/n/f"),
        ({"a": Dir(0o700), ".wh.a": ""}, b"/a"),
    ],
)
def test_a_layer_that_takes_away_what_it_has_itself_is_told(layer, path):
    """What is left is what composefs-rs leaves."""
    told = []
    lower = {"a": Dir(0o755), "a/f": "lower"}
    root = merged(lower, layer, contradicted=lambda number, where: told.append((number, where)))
    assert told == [(2, path)]
    assert path.decode() not in paths(root)


def test_a_file_after_its_whiteout_replaces_what_was_below():
    told = []

    def contradicted(*where):
        told.append(where)

    lower = {"a": Dir(0o755), "a/f": "lower"}
    root = merged(lower, {"a/.wh.f": "", "a/f": "upper"}, contradicted=contradicted)
    assert (told, paths(root)) == ([], ["/", "/a", "/a/f"])
    root = merged({"f": "1"}, {"g": "1"}, {".wh.f": "", ".wh.g": "", "f": "2"}, contradicted=contradicted)
    assert (told, paths(root)) == ([], ["/", "/f"])
