"""Pure parts of upgrades: kernel arguments, what is weaker, menus."""

from __future__ import annotations

import pytest

from cfs_core.config.settings import Settings, options_layer
from cfs_core.errors import RefusedError, StateError
from cfs_core.lifecycle import menus, weaker
from cfs_core.lifecycle.arguments import edited, next_arguments
from cfs_core.lifecycle.machine import Machine
from cfs_core.lifecycle.records import Records
from cfs_core.lifecycle.running import RunningSystem
from cfs_core.lifecycle.status import DeploymentStatus, Status
from cfs_core.model.boot import BootEntry, BootMenu, EntryKind
from cfs_core.target.memory import MemoryTarget

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


@pytest.mark.parametrize(
    ("running", "old", "new", "needed", "expected"),
    [
        (["rw", "composefs=a", "x"], [], [], ["composefs=b"], ["rw", "composefs=b", "x"]),
        (["composefs=?a"], [], [], ["composefs=?b"], ["composefs=?b"]),
        (["composefs.digest=v1-sha512-12:a", "composefs=a"], [], [], ["composefs=b"], ["composefs=b"]),
        (["rw"], [], [], ["composefs=b"], ["rw", "composefs=b"]),
        (["quiet", "local", "composefs=a"], ["quiet"], ["loud"], ["composefs=b"], ["local", "composefs=b", "loud"]),
        (["composefs=a"], ["quiet"], ["quiet"], ["composefs=b"], ["composefs=b"]),
        (["loud", "composefs=a"], [], ["loud"], ["composefs=b", "rw"], ["loud", "composefs=b", "rw"]),
        (["a=1", "a=1", "composefs=x"], ["a=1"], [], ["composefs=b"], ["a=1", "composefs=b"]),
    ],
)
def test_arguments_of_the_next_deployment(running, old, new, needed, expected):
    assert list(next_arguments(running, old_image=old, new_image=new, needed=needed)) == expected


def test_edited_by_hand():
    words = ("a=1", "a=2", 'b="x y"', "composefs=z", "quiet")
    assert edited(words, deleted=["a=1"]) == (words[1:], ())
    assert edited(words, deleted=["a"], appended=["c", "quiet"]) == (('b="x y"', "composefs=z", "quiet", "c"), ())
    assert edited(words, deleted=["b=x y"])[0] == ("a=1", "a=2", "composefs=z", "quiet")
    assert edited(words, deleted=["composefs", "none"]) == (words, ("composefs", "none"))


def deployment(*verified, image="docker://x/y:1", layout=EntryKind.BLS):
    return DeploymentStatus(id=A, image=image, verified=verified, layout=layout)


def settings(*policies):
    return Settings().with_layer(options_layer({"policy.require": policies}))


def test_what_is_weaker():
    judged = deployment("signed: by me", "pinned: to that")
    assert len(list(weaker.before_fetching(judged, "docker://x/z", settings()))) == 1
    assert list(weaker.before_fetching(judged, "docker://x/z", settings("signed", "pinned", "third"))) == []
    (one,) = weaker.before_fetching(judged, "docker://x/z", settings("signed"))
    assert "pinned" in one
    digest = deployment(image="docker://x/y@sha256:" + A)
    assert len(list(weaker.before_fetching(digest, "docker://x/y:2", settings()))) == 1
    assert list(weaker.before_fetching(digest, "docker://x/y@sha256:" + B, settings())) == []
    assert list(weaker.before_fetching(deployment(), "docker://x/z", settings())) == []
    uki = deployment(layout=EntryKind.UKI)
    assert len(list(weaker.after_fetching(uki, sealed=False))) == 1
    assert list(weaker.after_fetching(uki, sealed=True)) == []
    weaker.refuse(["x"], allowed=True)
    with pytest.raises(RefusedError) as caught:
        weaker.refuse(["x", "y"], allowed=False)
    assert caught.value.facts == {"weaker": ("x", "y")}


def entry(identity, **more):
    return BootEntry(
        deployment_id=identity,
        kind=EntryKind.BLS,
        title=identity[0],
        version="1",
        os_id="x",
        name=f"{identity[0]}.conf",
        **more,
    )


def machine(*entries, booted=A, default=None, pinned=()):
    status = Status(deployments=(), foreign=(), problems=(), menus={"x": BootMenu(entries=entries, default=default)})
    return Machine(
        target=MemoryTarget(), status=status, running=RunningSystem(booted=booted), loader="x",
        records=Records(pinned=frozenset(pinned)),
    )  # fmt: skip


def ids(menu):
    return [each.deployment_id for each in menu.entries], menu.default


def test_menus():
    found = machine(entry(B), entry(A), entry(C))
    assert ids(menus.with_new(found, entry(D), keep=2)) == ([D, A], None)
    assert ids(menus.with_new(found, entry(D), keep=3)) == ([D, A, B], None)
    assert ids(menus.with_new(machine(entry(B), entry(A), entry(C), pinned=[C]), entry(D), keep=2)) == ([D, A, C], None)
    assert ids(menus.with_new(found, entry(C), keep=2)) == ([C, A], None)
    assert menus.dropped(found, menus.with_new(found, entry(D), keep=2)) == (B, C)
    assert ids(menus.with_first(found, C)) == ([C, B, A], None)
    assert ids(menus.without(found, [B])) == ([A, C], None)
    other = machine(entry(B), entry(A), default=A)
    assert ids(menus.unchanged(other)) == ([B, A], A)
    assert ids(menus.with_first(other, A)) == ([A, B], A), "a default that was said is said again"
    assert ids(menus.without(other, [A])) == ([B], B)
    with pytest.raises(StateError):
        menus.without(found, [A, B, C])
    with pytest.raises(StateError):
        menus.with_first(found, D)
    assert menus.with_arguments(found, C, ("x",)).entries[2].arguments == ("x",)
    sealed = machine(BootEntry(deployment_id=A, kind=EntryKind.UKI, title="", version="", os_id=""))
    with pytest.raises(StateError):
        menus.with_arguments(sealed, A, ("x",))
