"""Seeded damage to the tree of a bootable image: what bad builds, bad copies and bad ideas leave behind."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

from cfs_testkit.builders.oci import Dir, File, Link
from cfs_testkit.programs import kernel, program

OTHER_TEXTS = {
    "os-release": (b"", b"NAME=\n", b"\xff\xfe", b"ID='x\n"),
    "fstab": (
        b"UUID=00000000-1111-2222-3333-444444444444 / ext4 defaults 0 1\n",
        b"x\n",
        b"/dev/sdz1 /var ext4 x 0 0\n",
        b"\0",
    ),
    ".toml": (
        b'kargs = ["init=/nothing"]\n',
        b'kargs = ["root=/dev/sdz9"]\n',
        b"kargs = 1\n",
        b"[",
        b'kargs = ["rootflags=nope"]\n',
        b'[etc]\nmount = "nowhere"\n',
        b"[root]\ntransient = true\n",
        b'kargs = ["composefs=0", "ro", "panic=1"]\n',
        b'kargs = ["rd.break", "single"]\n',
        b'kargs = ["rdinit=/x"]\n',
        b'kargs = ["initrd=/x"]\n',
        b'kargs = ["noinitrd"]\n',
    ),
    "modules.builtin": (b"", b"\xff", b"kernel/fs/ext4/ext4.ko\n"),
    "machine-id": (b"x\n", b"uninitialized\n", b"0" * 32 + b"\n"),
    "passwd": (b"", b"root"),
}
"""Contents that a file of that name may have and should not, by a part of its path."""


@dataclass(frozen=True)
class Damaged:
    """A tree after the damage, and what was done, in words."""

    tree: dict[str, object]
    what: str

    hidden: bool
    """Whether bits were flipped: inside of a program that shows in nothing but what it does."""


def damaged(seed: int, tree: dict[str, object], *, steps: int = 1, paths: Collection[str] = ()) -> Damaged:
    """Return *tree* with *steps* of damage, to one of *paths* if there are any; the same seed does the same."""
    chance = random.Random(seed)
    done = dict(tree)
    words = []
    for _ in range(steps):
        path = chance.choice(sorted({*paths} & {*done} or done))
        words.append(chance.choice(_STEPS)(chance, done, path))
    return Damaged(done, f"seed {seed}: {'; '.join(words)}", any(word.startswith("flip") for word in words))


def _flip(chance, tree, path):
    """A few bits of the first kilobyte or of all of it: as memory, cables and disks do it."""
    what = tree[path]
    if not isinstance(what, File) or not what.data:
        return _empty(chance, tree, path)
    data = bytearray(_bytes(what))
    end = min(len(data), 1024) if chance.random() < 0.7 else len(data)
    places = sorted(chance.randrange(end) for _ in range(chance.choice((1, 4, 64))))
    for at in places:
        data[at] ^= 1 << chance.randrange(8)
    tree[path] = replace(what, data=bytes(data))
    return f"flip bits of {path} at {places[:6]}"


def _truncate(chance, tree, path):
    what = tree[path]
    if not isinstance(what, File):
        return _delete(chance, tree, path)
    data = _bytes(what)
    size = int(len(data) * chance.choice((0.01, 0.5, 0.9, 0.999)))
    tree[path] = replace(what, data=data[:size])
    return f"cut {path} to {size} bytes"


def _empty(_chance, tree, path):
    tree[path] = File(b"", mode=0o644)
    return f"empty {path}"


def _zeros(_chance, tree, path):
    what = tree[path]
    size = len(_bytes(what)) if isinstance(what, File) else 4096
    tree[path] = File(bytes(size), mode=0o755)
    return f"{path} is {size} zeros"


def _swap(chance, tree, path):
    other = chance.choice(sorted(tree))
    tree[path], tree[other] = tree[other], tree[path]
    return f"swap {path} and {other}"


def _delete(_chance, tree, path):
    for name in [name for name in tree if name == path or name.startswith(f"{path}/")]:
        del tree[name]
    return f"delete {path}"


def _delete_folder(_chance, tree, path):
    folder = path.rpartition("/")[0] or path
    for name in [name for name in tree if name == folder or name.startswith(f"{folder}/")]:
        del tree[name]
    return f"delete {folder} with all in it"


def _mode(chance, tree, path):
    what = tree[path]
    mode = chance.choice((0, 0o600, 0o644, 0o444, 0o4755, 0o777, 0o111))
    if isinstance(what, Link):
        return _link(chance, tree, path)
    tree[path] = replace(what, mode=mode)
    return f"{path} has mode {mode:04o}"


def _link(chance, tree, path):
    target = chance.choice(("/nowhere", path.rpartition("/")[2], "..", "/dev/null", "/usr/bin/tool", "/run/x", "."))
    for name in [name for name in tree if name.startswith(f"{path}/")]:
        del tree[name]
    tree[path] = Link(target)
    return f"{path} is a link to {target}"


def _directory(_chance, tree, path):
    for name in [name for name in tree if name.startswith(f"{path}/")]:
        del tree[name]
    tree[path] = Dir(0o755)
    return f"{path} is a directory"


def _file(_chance, tree, path):
    for name in [name for name in tree if name.startswith(f"{path}/")]:
        del tree[name]
    tree[path] = File(b"text\n", mode=0o644)
    return f"{path} is a text file"


def _foreign(chance, tree, path):
    architecture = chance.choice(("arm64", "riscv64"))
    data = kernel(architecture) if "vmlinuz" in path else program(architecture)
    tree[path] = File(data, mode=0o755)
    return f"{path} is a program for {architecture}"


def _interpreter(chance, tree, path):
    wanted = chance.choice(("/lib64/ld-nothing.so.2", "/usr/bin/tool", "/etc", "relative"))
    data = f"#!{wanted}\nexit 0\n".encode() if chance.random() < 0.5 else program(interpreter=wanted)
    tree[path] = File(data, mode=0o755)
    return f"{path} wants the interpreter {wanted}"


def _text(chance, tree, path):
    for part, texts in OTHER_TEXTS.items():
        if part in path:
            text = chance.choice(texts)
            tree[path] = File(text)
            return f"{path} holds {text[:60]!r}"
    part = chance.choice(sorted(OTHER_TEXTS))
    text = chance.choice(OTHER_TEXTS[part])
    place = {
        "os-release": "usr/lib/os-release", "fstab": "etc/fstab", ".toml": "usr/lib/bootc/kargs.d/50-x.toml",
        "modules.builtin": path, "machine-id": "etc/machine-id", "passwd": "etc/passwd",
    }[part]  # fmt: skip
    tree[place] = File(text)
    return f"{place} holds {text[:60]!r}"


def _bytes(what: File) -> bytes:
    return what.data.encode() if isinstance(what.data, str) else bytes(what.data)


_STEPS = (_flip, _flip, _truncate, _truncate, _empty, _zeros, _swap, _delete, _delete, _delete_folder, _mode, _link,
          _directory, _file, _foreign, _interpreter, _text, _text)  # fmt: skip
