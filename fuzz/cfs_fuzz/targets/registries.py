"""What says where images come from and who may vouch for them: files of containers-image, headers of registries."""

from __future__ import annotations

import base64
import contextlib
import json
import re

from cfs_core.plugin import CfsError
from cfs_core.system.command import HostCommands
from cfs_fuzz import scratch
from cfs_fuzz.target import target
from cfs_policies.names import parse_named
from cfs_policies.policy_json import load_policy
from cfs_policies.simple_signing import parse_claim
from cfs_testkit.context import RecordedLog
from cfs_transport_containers_storage.places import Places
from cfs_transport_registry.answers import retry_after_seconds
from cfs_transport_registry.challenges import choose, parse_challenges, realm_of
from cfs_transport_registry.credentials import CredentialStore
from cfs_transport_registry.reference import Repository, parse
from cfs_transport_registry.registries_conf import RegistriesConf
from cfs_transport_registry.settings import Settings

_CONF = b"""unqualified-search-registries = ["example.com"]
credential-helpers = ["containers-auth.json"]
short-name-mode = "enforcing"
[[registry]]
prefix = "*.example.com"
location = "internal:5000/bar"
insecure = true
[[registry.mirror]]
location = "mirror.example.com/x"
pull-from-mirror = "digest-only"
[aliases]
"fedora" = "registry.fedoraproject.org/fedora"
"""
_NAMES = ("docker://a.example.com/foo/image:latest", f"docker://example.com/foo@sha256:{'0' * 64}", "docker://fedora")


@target(
    "registries-conf",
    lambda: [_CONF],
    (
        b"[[registry]]\n",
        b"[[registry.mirror]]\n",
        b"prefix = ",
        b"location = ",
        b"blocked = true\n",
        b"[" * 1000,
        b"a." * 1000,
        b"*.",
        b"1" * 5000,
        b"\\uD800",
    ),
    largest=8192,
)
def read_registries(data: bytes) -> None:
    """registries.conf, asked for three images."""
    settings = Settings(registries_conf=scratch.put("registries.conf", data), root=scratch.folder() / "none")
    conf = RegistriesConf.load(settings)
    for name in _NAMES:
        with contextlib.suppress(CfsError):
            reference = parse(name, conf.aliases)
            conf.endpoints(reference)
            conf.destination(reference)


def logins() -> list[bytes]:
    """Return credentials as podman and docker keep them."""
    auth = base64.b64encode(b"alice:secret").decode()
    auths = {"quay.io/a": {"auth": auth}, "https://index.docker.io/v1/": {"auth": auth, "identitytoken": "t"}}
    return [json.dumps({"auths": auths, "credHelpers": {"quay.io": "none"}, "credsStore": "none"}).encode(), b"{}"]


@target(
    "auth-json",
    logins,
    (b'"auths"', b'"auth"', b'"identitytoken"', b'"credHelpers"', b'"credsStore"', b"[" * 2000, b"\\ud800"),
    largest=8192,
)
def read_logins(data: bytes) -> None:
    """auth.json, asked for three registries; there are no helpers to run."""
    settings = Settings(authfile=scratch.put("auth.json", data), root=scratch.folder() / "none")
    for name in ("quay.io/a/b", "docker.io/library/fedora", "localhost:5000/x"):
        store = CredentialStore(settings, HostCommands({"PATH": "/nowhere"}), RecordedLog())
        found = store.find(Repository.of(name))
        if found is not None:
            found.secrets()


def policies() -> list[bytes]:
    """Return a policy with every kind of requirement."""
    key = base64.b64encode(b"key").decode()
    keys = {"type": "signedBy", "keyType": "GPGKeys", "keyData": key, "signedIdentity": {"type": "matchRepository"}}
    sigstore = {
        "type": "sigstoreSigned",
        "keyPath": "/x",
        "signedIdentity": {"type": "remapIdentity", "prefix": "a.b", "signedPrefix": "c.d"},
    }
    policy = {
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {"docker.io": [keys], "": [sigstore]},
            "oci": {"/x": [{"type": "insecureAcceptAnything"}]},
        },
    }
    claim = {
        "critical": {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": "sha256:0"},
            "identity": {"docker-reference": "a"},
        },
        "optional": {},
    }
    return [json.dumps(policy).encode(), json.dumps(claim).encode()]


@target(
    "policy-json",
    policies,
    (
        b'"default"',
        b'"transports"',
        b'"signedIdentity"',
        b'"exactReference"',
        b'"keyPaths"',
        b"[" * 2000,
        b'"type":',
        b"\\ud800",
        b"*.a",
    ),
    largest=8192,
)
def read_policy(data: bytes) -> None:
    """policy.json; the same bytes as what somebody signed, and as names."""
    with contextlib.suppress(CfsError):
        parse_claim(data, "atomic container signature")
    for word in re.findall(r'"([^"]*)"', data.decode("utf-8", "replace"))[:20]:
        with contextlib.suppress(CfsError):
            parse_named(word)
    policy = load_policy(scratch.put("policy.json", data))
    for requirement in (
        *policy.default,
        *(each for scopes in policy.transports.values() for every in scopes.values() for each in every),
    ):
        if requirement.keys is not None:
            with contextlib.suppress(CfsError):
                requirement.keys.read()


_HEADERS = [
    b'Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull"',
    b'Basic realm="x", Bearer realm="https://a"',
    b"Negotiate YWJj==, Digest a=b",
    b"120",
    b"Fri, 31 Dec 1999 23:59:59 GMT",
    b"docker://quay.io:443/a/b:c@sha256:" + b"0" * 64,
]


@target(
    "login-header",
    lambda: _HEADERS,
    (b"Bearer ", b"Basic ", b'realm="', b"://", b'\\"', b", ", b"[::1", b"%00", "٣".encode()),
    largest=16384,
)
def read_header(data: bytes) -> None:
    """WWW-Authenticate, Retry-After and the name of an image."""
    text = data.decode("latin-1")
    seconds = retry_after_seconds({"Retry-After": text})
    assert seconds is None or seconds >= 0, seconds
    with contextlib.suppress(CfsError):
        parse(data.decode("utf-8", "surrogateescape"), {})
    challenges = parse_challenges(text)
    for basic in (False, True):
        found = choose(challenges, basic=basic)
        if found is not None:
            realm_of(found, "example.com", scheme="https")


_STORAGE = b"""[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
[storage.options]
additionalimagestores = ["/usr/share/containers/storage"]
[storage.options.overlay]
mountopt = "nodev"
"""


@target(
    "storage-conf",
    lambda: [_STORAGE],
    (b"[storage]\n", b"rootless_storage_path = ", b"$HOME", b"[" * 1000, b"1" * 5000),
    largest=8192,
)
def read_storage(data: bytes) -> None:
    """storage.conf: where container stores are."""
    section = {"storage-conf": str(scratch.put("storage.conf", data))}
    Places.of(section, {"HOME": "/home/a"}, 1000, scratch.folder() / "none")
