"""Real OpenPGP signatures by skopeo, and signatures in cosign's form: accepted, and refused in every other case."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
import tracemalloc
import zlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from cfs_core.image.resolve import resolve
from cfs_core.plugin import CfsError, Fetcher
from cfs_core.system.command import HostCommands
from cfs_policies.containers_policy import ContainersPolicy
from cfs_policies.places import Places
from cfs_policies.simple_signing import Keyring, SignatureInvalidError
from cfs_testkit import faults
from cfs_testkit.images import MANIFEST_TYPE, build_image, sha256
from cfs_testkit.registry.transport import RegistryTransport

NAME = "quay.example/team/app"


class Setting:
    """A registry with one image, a policy that is being written, and the judgement."""

    def __init__(self, tmp_path, server, transport):
        self.root = tmp_path
        self.server = server
        self.transport = transport
        self.image = build_image([{"a": "b"}])
        self.image.publish(server, "team/app", "1")
        self.name = f"{server.host}/team/app"
        self.lookaside = tmp_path / "lookaside"
        self.places = Places(
            policy=tmp_path / "policy.json", registries_d=tmp_path / "registries.d", lookaside=self.lookaside
        )

    def require(self, *requirements):
        self.places.policy.write_text(
            json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {self.server.host: requirements}}})
        )

    def judge(self, rest=":1"):
        commands = HostCommands(os.environ)
        image = resolve(self.transport, self.transport.parse(f"docker://{self.name}{rest}"))
        verdict = ContainersPolicy(self.places, commands, self.root).judge(image, self.transport)
        assert not list(self.root.glob("gpg-*"))
        return verdict


@pytest.fixture
def setting(tmp_path, registry_server):
    return Setting(tmp_path, registry_server, Fetcher(RegistryTransport()))


def test_reject_and_accept(setting):
    setting.require({"type": "insecureAcceptAnything"})
    assert setting.judge().accepted
    setting.require({"type": "insecureAcceptAnything"}, {"type": "reject"})
    refused = setting.judge()
    assert not refused.accepted
    assert "policy.json" in refused.reason
    setting.places.policy.write_text('{"default": [{"type": "reject"}]}')
    assert not setting.judge().accepted
    setting.places.policy.unlink()
    with pytest.raises(CfsError):
        setting.judge()


# --- simple signing --------------------------------------------------------------------------

needs_gpg = pytest.mark.skipif(not (shutil.which("gpg") and shutil.which("skopeo")), reason="needs gpg and skopeo")


class Signer:
    def __init__(self, home):
        self.home = home
        home.mkdir(mode=0o700)
        self.keys = {}

    def run(self, *argv):
        env = {**os.environ, "GNUPGHOME": str(self.home)}
        return subprocess.run(argv, env=env, check=True, capture_output=True).stdout

    def key(self, name, *more):
        base = ("gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "")
        self.run(*base, "--quick-generate-key", f"{name}@example.com", "ed25519", "sign", *more)
        listing = self.run("gpg", "--with-colons", "--list-keys", f"{name}@example.com").decode()
        self.keys[name] = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))
        return self.run("gpg", "--export", self.keys[name])

    def sign(self, name, manifest, reference, out):
        out.parent.mkdir(parents=True, exist_ok=True)
        source = self.home / "manifest.json"
        source.write_bytes(manifest)
        self.run("skopeo", "standalone-sign", "-o", str(out), str(source), reference, self.keys[name])


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    made = Signer(tmp_path_factory.mktemp("signer") / "gnupg")
    made.public = {name: made.key(name) for name in ("alice", "mallory")}
    yield made
    subprocess.run(["gpgconf", "--homedir", str(made.home), "--kill", "all"], check=False)


def signed_by(key, **more):
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": base64.b64encode(key).decode(), **more}


def place(setting, number=1):
    return setting.lookaside / f"team/app@{setting.image.digest.replace(':', '=')}" / f"signature-{number}"


@needs_gpg
def test_a_good_signature_is_accepted_and_named(setting, signer):
    signer.sign("alice", setting.image.manifest, f"{setting.name}:1", place(setting))
    setting.require(signed_by(signer.public["alice"]))
    verdict = setting.judge()
    assert verdict.accepted, verdict.reason
    assert verdict.verified == (f"signed by OpenPGP key {signer.keys['alice']} as {setting.name}:1",)
    assert setting.judge(f"@{setting.image.digest}").accepted
    path = setting.root / "alice.gpg"
    path.write_bytes(signer.public["alice"])
    setting.require({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [str(path)]})
    assert setting.judge().accepted


@needs_gpg
def test_no_signature_or_another_key_is_refused(setting, signer):
    setting.require(signed_by(signer.public["alice"]))
    assert "there is none" in setting.judge().reason
    signer.sign("mallory", setting.image.manifest, f"{setting.name}:1", place(setting))
    verdict = setting.judge()
    assert not verdict.accepted
    assert "not signed by a trusted key" in verdict.reason
    signer.sign("alice", setting.image.manifest, f"{setting.name}:1", place(setting, 2))
    assert setting.judge().accepted


@needs_gpg
def test_a_signature_for_something_else_is_refused(setting, signer):
    setting.require(signed_by(signer.public["alice"]))
    signer.sign("alice", build_image([{"other": "x"}]).manifest, f"{setting.name}:1", place(setting))
    assert "not for this manifest" in setting.judge().reason
    signer.sign("alice", setting.image.manifest, f"{setting.name}:2", place(setting))
    assert not setting.judge().accepted
    setting.require(signed_by(signer.public["alice"], signedIdentity={"type": "matchRepository"}))
    assert setting.judge().accepted
    signer.sign("alice", setting.image.manifest, "quay.example/other:1", place(setting))
    assert not setting.judge().accepted
    exact = {"type": "exactReference", "dockerReference": "quay.example/other:1"}
    setting.require(signed_by(signer.public["alice"], signedIdentity=exact))
    assert setting.judge().accepted


@needs_gpg
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "garbage", "unsigned", "detached", "armored text"])
def test_a_damaged_or_odd_signature_is_refused(setting, signer, damage):
    path = place(setting)
    signer.sign("alice", setting.image.manifest, f"{setting.name}:1", path)
    good = path.read_bytes()
    claim = json.dumps(
        {
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": setting.image.digest},
                "identity": {"docker-reference": f"{setting.name}:1"},
            },
            "optional": {},
        }
    ).encode()
    text = setting.root / "claim"
    text.write_bytes(claim)
    as_alice = ("gpg", "--batch", "-u", signer.keys["alice"], "-o", "-")
    bad = {
        "flipped": lambda: good[:60] + bytes([good[60] ^ 1]) + good[61:],
        "cut": lambda: good[:-20],
        "empty": lambda: b"",
        "garbage": lambda: os.urandom(300),
        "unsigned": lambda: claim,
        "detached": lambda: signer.run(*as_alice, "--detach-sign", str(text)),
        "armored text": lambda: b"-----BEGIN PGP SIGNED MESSAGE-----\n\n" + claim + b"\n",
    }[damage]()
    path.write_bytes(bad)
    setting.require(signed_by(signer.public["alice"]))
    assert not setting.judge().accepted


@needs_gpg
@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        b'{"critical": {"type": "atomic container signature"}, "optional": {}}',
        b'{"critical": %s, "optional": {}, "more": 1}',
        b'{"critical": %s, "critical": {}, "optional": {}}',
    ],
)
def test_a_signed_claim_of_another_form_is_refused(setting, signer, payload):
    critical = json.dumps(
        {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": setting.image.digest},
            "identity": {"docker-reference": f"{setting.name}:1"},
        }
    ).encode()
    text = setting.root / "claim"
    text.write_bytes(payload.replace(b"%s", critical))
    path = place(setting)
    path.parent.mkdir(parents=True)
    path.write_bytes(signer.run("gpg", "--batch", "-u", signer.keys["alice"], "-o", "-", "--sign", str(text)))
    setting.require(signed_by(signer.public["alice"]))
    assert not setting.judge().accepted


@needs_gpg
def test_keys_that_are_none_are_errors(setting, signer):
    setting.require(signed_by(b"not a key"))
    with pytest.raises(CfsError):
        setting.judge()
    setting.require({"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(setting.root / "absent")})
    with pytest.raises(CfsError):
        setting.judge()


@needs_gpg
def test_a_lookaside_server_and_registries_d(setting, signer):
    served = setting.root / "served"
    target = served / "sigs" / place(setting).relative_to(setting.lookaside)
    signer.sign("alice", setting.image.manifest, f"{setting.name}:1", target)
    handler = functools.partial(_Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        setting.places.registries_d.mkdir()
        config = setting.places.registries_d / "x.yaml"
        base = f"http://127.0.0.1:{server.server_address[1]}"
        config.write_text(
            f"docker:\n  {setting.name}:\n    lookaside: {base}/sigs\ndefault-docker:\n  sigstore: file:///no\n"
        )
        setting.require(signed_by(signer.public["alice"]))
        assert setting.judge().accepted
        config.write_text(f"docker:\n  {setting.name}:\n    lookaside: {base}/wrong\n")
        assert not setting.judge().accepted
        server.shutdown()
    for text in (
        f"docker:\n  {setting.name}:\n    lookaside: {base}/sigs\n",
        "docker: 5\n",
        "default-docker:\n  lookaside: ftp://x\n",
        "{",
    ):
        config.write_text(text)
        with pytest.raises(CfsError):
            setting.judge()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


# --- cosign's form ---------------------------------------------------------------------------


def make_key(kind):
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key({"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}[kind]())


def sign(key, payload):
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.sign(payload)
    elif isinstance(key, rsa.RSAPrivateKey):
        raw = key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    else:
        raw = key.sign(payload, ec.ECDSA(hashes.SHA256()))  # for every curve, as cosign does
    return base64.b64encode(raw).decode()


def public(key):
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(pem).decode()


def claim(setting, name=None, digest=None):
    critical = {
        "identity": {"docker-reference": name or setting.name},
        "image": {"docker-manifest-digest": digest or setting.image.digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def attach(setting, key, *, name=None, digest=None, payload=None, signature=None):
    payload = payload or claim(setting, name, digest)
    setting.server.put_blob("team/app", payload)
    layer = {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": sha256(payload),
        "size": len(payload),
        "annotations": {"dev.cosignproject.cosign/signature": signature or sign(key, payload)},
    }
    config = setting.server.put_blob("team/app", b"{}")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [layer],
        }
    ).encode()
    setting.server.put_manifest("team/app", raw, tag=setting.image.digest.replace(":", "-") + ".sig")


def sigstore(*keys, identity="matchRepository"):
    return {"type": "sigstoreSigned", "keyDatas": [public(key) for key in keys], "signedIdentity": {"type": identity}}


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa"])
def test_a_good_attached_signature_is_accepted(setting, kind):
    key, other = make_key(kind), make_key("p256")
    attach(setting, key)
    setting.require(sigstore(other, key))
    verdict = setting.judge()
    assert verdict.accepted, verdict.reason
    assert verdict.verified[0].startswith("signed by sigstore key sha256:")
    setting.require(sigstore(other))
    assert not setting.judge().accepted


def test_a_curve_does_not_choose_another_hash(setting):
    """containers/image verifies with SHA-256 alone: what it refuses is refused."""
    key = make_key("p384")
    setting.require(sigstore(key))
    payload = claim(setting)
    signature = base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA384()))).decode()
    attach(setting, key, payload=payload, signature=signature)
    assert not setting.judge().accepted
    attach(setting, key, payload=payload)
    assert setting.judge().accepted


def test_refused_attached_signatures(setting):
    key = make_key("p256")
    setting.require(sigstore(key))
    assert "there is none" in setting.judge().reason
    for wrong in (
        {"digest": "sha256:" + "0" * 64},
        {"name": "quay.example/other"},
        {"signature": "***"},
        {"signature": base64.b64encode(bytes(70)).decode()},
        {"payload": b"{}"},
        {"payload": b"not json"},
    ):
        attach(setting, key, **wrong)
        assert not setting.judge().accepted, wrong
    attach(setting, key)
    assert setting.judge().accepted
    setting.require(sigstore(key, identity="matchRepoDigestOrExact"))
    assert not setting.judge().accepted
    attach(setting, key, name=f"{setting.name}:1")
    assert setting.judge().accepted


def test_errors_on_the_way_mean_no(setting):
    key = make_key("p256")
    attach(setting, key)
    setting.require(sigstore(key))
    setting.server.fault(r"\.sig$", faults.Status(500), forever=True)
    with pytest.raises(CfsError):
        setting.judge()


@pytest.mark.parametrize("raw", [b"{}", b'{"layers": 5}', b'{"layers": [5]}', b'{"layers": [{"mediaType": "x"}]}'])
def test_attached_nonsense(setting, raw):
    key = make_key("p256")
    setting.require(sigstore(key))
    setting.server.put_manifest(
        "team/app", raw, tag=setting.image.digest.replace(":", "-") + ".sig", media_type=MANIFEST_TYPE
    )
    with contextlib.suppress(CfsError):
        assert not setting.judge().accepted


def test_both_kinds_may_be_demanded_together(setting):
    key = make_key("p256")
    attach(setting, key)
    setting.require({"type": "insecureAcceptAnything"}, sigstore(key), sigstore(make_key("p256")))
    assert not setting.judge().accepted


def packet(tag, body):
    """Return an OpenPGP packet with a four-byte length (RFC 9580, 4.2.1)."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def test_small_signature_that_unpacks_to_much(setting):
    literal = packet(11, b"b\x00" + bytes(4) + bytes(256 << 20))
    bomb = literal
    for _ in range(2):
        bomb = packet(8, b"\x02" + zlib.compress(bomb, 9))
    del literal
    assert len(bomb) < 4096
    with Keyring([], HostCommands(os.environ), setting.root) as keyring:
        tracemalloc.start()
        with pytest.raises(SignatureInvalidError):
            keyring.verify(bomb)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 << 20
