"""policy.json, scopes, names, pinned digests: what is read, and that every mistake means no."""

from __future__ import annotations

import json

import pytest

from cfs_core.image.manifest import parse_config, parse_manifest
from cfs_core.plugin import ConfigError, Digest, ImageReference, ResolvedImage
from cfs_policies.digest_pinned import DigestPinned
from cfs_policies.documents import DocumentError
from cfs_policies.names import parse_named
from cfs_policies.places import Places
from cfs_policies.policy_json import Identity, load_policy
from cfs_policies.scopes import scopes
from cfs_testkit.images import build_image

HEX = "a" * 64
ACCEPT = [{"type": "insecureAcceptAnything"}]


def reference(scheme, name, tag=None, digest=None):
    return ImageReference(
        scheme=scheme, name=name, tag=tag, digest=Digest.parse(digest) if digest else None, text=f"{scheme}:{name}"
    )


# --- scopes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            reference("docker", "a.example.com:5000/ns/app", "1"),
            [
                "a.example.com:5000/ns/app:1",
                "a.example.com:5000/ns/app",
                "a.example.com:5000/ns",
                "a.example.com:5000",
                "*.example.com",
                "*.com",
                "",
            ],
        ),
        (
            reference("registry", "quay.io/app", None, f"sha256:{HEX}"),
            [f"quay.io/app@sha256:{HEX}", "quay.io/app", "quay.io", "*.io", ""],
        ),
        (reference("oci", "/no/such/place", "tag"), ["/no/such/place", "/no/such", "/no", ""]),
        (reference("docker-archive", "/x.tar"), [""]),
        (
            reference("containers-storage", f"[overlay@/g]localhost/t@{HEX}", "1"),
            [
                f"[overlay@/g]localhost/t:1@{HEX}",
                "[overlay@/g]localhost/t:1",
                "[overlay@/g]localhost/t",
                "[overlay@/g]localhost",
                "[overlay@/g]",
                "[/g]",
                "",
            ],
        ),
        (
            reference("containers-storage", f"[vfs@/g]q.io/t@{HEX}", "1", f"sha256:{HEX}"),
            [
                f"[vfs@/g]q.io/t:1@sha256:{HEX}@{HEX}",
                f"[vfs@/g]q.io/t:1@sha256:{HEX}",
                "[vfs@/g]q.io/t:1",
                "[vfs@/g]q.io/t",
                "[vfs@/g]q.io",
                "[vfs@/g]",
                "[/g]",
                "",
            ],
        ),
        (reference("containers-storage", f"[vfs@/g]@{HEX}"), [f"[vfs@/g]@{HEX}", "[vfs@/g]", "[/g]", ""]),
    ],
)
def test_scopes_go_from_special_to_general(given, expected):
    assert list(scopes(given)) == expected


@pytest.mark.parametrize("name", ["q.io/t", "t", f"@{HEX}", "[/g]q.io/t"])
def test_a_store_reference_that_is_not_canonical_has_no_scopes(name):
    with pytest.raises(DocumentError):
        list(scopes(reference("containers-storage", name, "1")))


def test_a_store_behind_a_link_goes_by_both_paths(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    found = list(scopes(reference("containers-storage", f"[vfs@{tmp_path}/link]@{HEX}")))
    assert found.index(f"[vfs@{tmp_path}/store]") > found.index(f"[vfs@{tmp_path}/link]@{HEX}")
    assert f"[{tmp_path}/store]" in found


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("user/app", "docker.io/user/app"),
        ("index.docker.io/busybox", "docker.io/library/busybox"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
        (f"quay.io/a@sha256:{HEX}", f"quay.io/a@sha256:{HEX}"),
    ],
)
def test_names_are_normalised(text, full):
    assert str(parse_named(text)) == full


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a b", "quay.io/", "quay.io/a@sha256:x", "/a", "a:", "quay.io/../a", "a@b@c"]
)
def test_other_texts_are_no_names(text):
    with pytest.raises(DocumentError):
        parse_named(text)


@pytest.mark.parametrize(
    ("identity", "intended", "claimed", "accepted"),
    [
        (Identity(), "q.io/a:1", "q.io/a:1", True),
        (Identity(), "q.io/a:1", "q.io/a:2", False),
        (Identity(), "q.io/a:1", "q.io/a", False),
        (Identity(), f"q.io/a@sha256:{HEX}", "q.io/a:7", True),
        (Identity(), f"q.io/a@sha256:{HEX}", "q.io/b:7", False),
        (Identity("matchExact"), f"q.io/a@sha256:{HEX}", "q.io/a:7", False),
        (Identity("matchExact"), "q.io/a:1", "q.io/a:1", True),
        (Identity("matchRepository"), "q.io/a:1", "q.io/a", True),
        (Identity("matchRepository"), "q.io/a:1", "q.io/ab", False),
        (Identity("exactReference", "q.io/z:1"), "q.io/a:1", "q.io/z:1", True),
        (Identity("exactReference", "q.io/z:1"), "q.io/z:1", "q.io/z:2", False),
        (Identity("exactRepository", "q.io/z"), None, "q.io/z:5", True),
        (Identity("remapIdentity", "mirror.io/q", "q.io"), "mirror.io/q/a:1", "q.io/a:1", True),
        (Identity("remapIdentity", "mirror.io/q", "q.io"), "mirror.io/quay/a:1", "q.iouay/a:1", False),
        (Identity("matchRepository"), None, "q.io/a", False),
    ],
)
def test_which_claimed_names_are_accepted(identity, intended, claimed, accepted):
    named = parse_named(intended) if intended else None
    assert identity.accepts(named, claimed) is accepted


# --- policy.json -----------------------------------------------------------------------------


def write(tmp_path, content):
    path = tmp_path / "policy.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_whole_file(tmp_path):
    signed = {
        "type": "signedBy",
        "keyType": "GPGKeys",
        "keyPath": "/key",
        "signedIdentity": {"type": "remapIdentity", "prefix": "a.io", "signedPrefix": "b.io"},
    }
    sigstore = {"type": "sigstoreSigned", "keyDatas": ["aGk=", "aG8="], "signedIdentity": {"type": "matchRepository"}}
    content = {
        "default": [{"type": "reject"}],
        "transports": {"docker": {"q.io": [signed, sigstore], "": ACCEPT}, "oci": {"/x": ACCEPT}},
    }
    policy = load_policy(write(tmp_path, content))
    assert [each.kind for each in policy.default] == ["reject"]
    first, second = policy.transports["docker"]["q.io"]
    assert first.identity == Identity("remapIdentity", "a.io", "b.io")
    assert second.keys.data == (b"hi", b"ho")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}',
        {},
        {"default": []},
        {"default": {}},
        {"default": [{}]},
        {"default": [{"type": "acceptEverything"}]},
        {"default": [{"type": "reject", "extra": 1}]},
        {"default": ACCEPT, "more": 1},
        {"default": ACCEPT, "transports": []},
        {"default": ACCEPT, "transports": {"docker": {"": []}}},
        {"default": ACCEPT, "transports": {"containers-storage": {"quay.io/evil": ACCEPT}}},
        {"default": ACCEPT, "transports": {"containers-storage": {"[overlay@relative]q.io/a": ACCEPT}}},
        {"default": ACCEPT, "transports": {"containers-storage": {"[overlay@/g]q.io/a@short": ACCEPT}}},
        {"default": ACCEPT, "transports": {"oci": {"relative": ACCEPT}}},
        {"default": ACCEPT, "transports": {"oci": {"/a/../b": ACCEPT}}},
        {"default": ACCEPT, "transports": {"docker-archive": {"/x.tar": ACCEPT}}},
        {"default": [{"type": "signedBy"}]},
        {"default": [{"type": "signedBy", "keyType": "GPGKeys"}]},
        {"default": [{"type": "signedBy", "keyType": "X.509Certificates", "keyPath": "/k"}]},
        {"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "keyData": "aGk="}]},
        {"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": "%%%"}]},
        {"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []}]},
        {"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "signedIdentity": {"type": "any"}}]},
        {"default": [{"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyPath": "/r"}]},
        {"default": [{"type": "sigstoreSigned", "fulcio": {}}]},
        {
            "default": [
                {
                    "type": "sigstoreSigned",
                    "keyPath": "/k",
                    "signedIdentity": {"type": "exactReference", "dockerReference": "a.io/b"},
                }
            ]
        },
        "[" * 100_000,
    ],
)
def test_anything_unknown_makes_the_whole_file_invalid(tmp_path, content):
    with pytest.raises(ConfigError) as caught:
        load_policy(write(tmp_path, content))
    assert caught.value.exit_status == 3


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_policy(tmp_path / "absent.json")
    assert "absent.json" in str(caught.value)


def test_the_users_files_come_first(tmp_path):
    environ = {"HOME": str(tmp_path / "home")}
    assert Places.of({}, environ, 0, tmp_path).policy == tmp_path / "etc/containers/policy.json"
    own = tmp_path / "home/.config/containers"
    own.mkdir(parents=True)
    (own / "policy.json").write_text("{}")
    assert Places.of({}, environ, 1000, tmp_path).policy == own / "policy.json"
    assert Places.of({"policy-json": "/p"}, environ, 1000, tmp_path).policy.as_posix() == "/p"
    with pytest.raises(ConfigError):
        Places.of({"policy": "/p"}, environ, 0)


# --- pinned digests --------------------------------------------------------------------------


def resolved(**name):
    image = build_image([{"a": "b"}])
    config = next(data for data in image.blobs.values() if b"rootfs" in data)
    named = reference("docker", "q.io/a", **name)
    return ResolvedImage(
        reference=named,
        canonical=named,
        manifest=parse_manifest(image.manifest),
        config=parse_config(config),
    )


def test_only_images_that_are_asked_for_by_digest():
    policy = DigestPinned.of({})
    by_tag = policy.judge(resolved(tag="1"), None)
    assert not by_tag.accepted
    assert "@sha256:" in by_tag.reason
    by_digest = policy.judge(resolved(digest=f"sha256:{HEX}"), None)
    assert by_digest.accepted
    assert by_digest.verified == (f"pinned to sha256:{HEX}",)


def test_only_digests_on_the_list():
    image = resolved(tag="1")
    assert DigestPinned.of({"digests": [str(image.manifest.digest)]}).judge(image, None).accepted
    assert not DigestPinned.of({"digests": [f"sha256:{HEX}"]}).judge(image, None).accepted
    assert DigestPinned.of({"digests": [f"sha256:{HEX}"]}).judge(resolved(digest=f"sha256:{HEX}"), None).accepted
    assert not DigestPinned.of({"digests": []}).judge(image, None).accepted


@pytest.mark.parametrize("settings", [{"digests": "x"}, {"digests": ["x"]}, {"digest": []}])
def test_mistakes_in_its_settings(settings):
    with pytest.raises(ConfigError):
        DigestPinned.of(settings)
