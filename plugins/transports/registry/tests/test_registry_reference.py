"""Image names: what is accepted, and as what."""

from __future__ import annotations

import pytest

from cfs_core.plugin import UsageError
from cfs_transport_registry.reference import parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("docker://fedora", "docker.io/library/fedora", "latest"),
        ("docker://fedora:40", "docker.io/library/fedora", "40"),
        ("docker://user/image", "docker.io/user/image", "latest"),
        ("docker://docker.io/fedora:40", "docker.io/library/fedora", "40"),
        ("docker://index.docker.io/library/fedora", "docker.io/library/fedora", "latest"),
        ("docker://quay.io/a/b/c:v1.0_x-y", "quay.io/a/b/c", "v1.0_x-y"),
        ("docker://localhost/foo", "localhost/foo", "latest"),
        ("docker://localhost:5000/foo:t", "localhost:5000/foo", "t"),
        ("docker://127.0.0.1:5000/foo", "127.0.0.1:5000/foo", "latest"),
        ("docker://[::1]:5000/foo", "[::1]:5000/foo", "latest"),
        ("docker://Example.COM/foo", "example.com/foo", "latest"),
        ("docker://a.b/x__y/z-_".rstrip("-_"), "a.b/x__y/z", "latest"),
        ("registry:quay.io/a/b:1", "quay.io/a/b", "1"),
        ("registry:short:1", "quay.io/known/short", "1"),
        ("docker://short:1", "docker.io/library/short", "1"),
        (f"docker://quay.io/a/b@{DIGEST}", "quay.io/a/b", None),
        (f"docker://quay.io/a/b:1@{DIGEST}", "quay.io/a/b", "1"),
    ],
)
def test_names_are_normalised(text, name, tag):
    reference = parse(text, {"short": "quay.io/known/short"})
    assert (reference.name, reference.tag) == (name, tag)
    assert (str(reference.digest) == DIGEST) == ("@" in text)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "docker:fedora",
        "docker://UPPER/Repo",
        "docker://quay.io/Repo",
        "docker://../x",
        "docker://quay.io/../x",
        "docker://quay.io/a//b",
        "docker://quay.io/a b",
        "docker://quay.io/a:bad tag",
        "docker://quay.io/a:",
        "docker://quay.io/a:" + "x" * 129,
        "docker://quay.io/",
        "docker://quay.io/a@sha256:abc",
        "docker://quay.io/a@",
        "docker://user:password@quay.io/a",
        "docker://https://quay.io/a",
        "docker://quay.io/a?x=y",
        "docker://quay.io/a#b",
        "docker://quay.io/a%2e%2e",
        "docker://-x.io/a",
        "docker://quay.io:port/a",
        "docker://quay.io/" + "a" * 250,
        "docker://a\nb/c",
        "registry:unknown",
        "registry:unknown/name",
    ],
)
def test_everything_else_is_refused_with_advice(text):
    with pytest.raises(UsageError) as caught:
        parse(text, {})
    assert caught.value.exit_status == 2
    assert caught.value.hint
