"""registries.conf: mirrors, other locations, blocked and insecure registries, aliases."""

from __future__ import annotations

import pytest

from cfs_core.plugin import (
    BlockedError,
    ConfigError,
    ForbiddenError,
    NotFoundError,
    TransportError,
    UnauthorizedError,
    VerificationError,
)
from cfs_testkit import faults
from cfs_testkit.images import build_image
from cfs_testkit.registry import RegistryServer
from cfs_transport_registry.reference import parse
from cfs_transport_registry.registries_conf import RegistriesConf
from cfs_transport_registry.settings import Settings

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def conf(tmp_path):
    def load(text, **settings):
        path = tmp_path / "registries.conf"
        path.write_text(text)
        return RegistriesConf.load(Settings(registries_conf=path, root=tmp_path, **settings))

    return load


def places(conf, text):
    return [f"{endpoint}{'!' if endpoint.insecure else ''}" for endpoint in conf.endpoints(parse(text, conf.aliases))]


def test_the_example_of_the_manual_page(conf):
    loaded = conf("""
        unqualified-search-registries = ["example.com"]
        [[registry]]
        prefix = "example.com/foo"
        insecure = false
        blocked = false
        location = "internal-registry-for-example.com/bar"
        [[registry.mirror]]
        location = "example-mirror-0.local/mirror-for-foo"
        [[registry.mirror]]
        location = "example-mirror-1.local/mirrors/foo"
        insecure = true
        [[registry]]
        location = "registry.com"
        [[registry.mirror]]
        location = "mirror.registry.com"
    """)
    assert places(loaded, "docker://example.com/foo/image:latest") == [
        "example-mirror-0.local/mirror-for-foo/image",
        "example-mirror-1.local/mirrors/foo/image!",
        "internal-registry-for-example.com/bar/image",
    ]
    assert places(loaded, "docker://registry.com/image") == ["mirror.registry.com/image", "registry.com/image"]
    assert places(loaded, "docker://example.com/food/image") == ["example.com/food/image"]


def test_the_longest_prefix_wins_and_wildcards_match_whole_labels(conf):
    loaded = conf("""
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry]]
        prefix = "*.sub.example.com"
        location = "internal.local/sub"
        [[registry]]
        location = "a.example.com/private"
        blocked = true
    """)
    assert places(loaded, "docker://x.example.com/i") == ["x.example.com/i!"]
    assert places(loaded, "docker://x.example.com:5000/i") == ["x.example.com:5000/i!"]
    assert places(loaded, "docker://a.b.sub.example.com/n/i") == ["internal.local/sub/n/i"]
    assert places(loaded, "docker://example.com/i") == ["example.com/i"]
    assert places(loaded, "docker://xexample.com/i") == ["xexample.com/i"]
    assert places(loaded, "docker://y.org/x.example.com/i") == ["y.org/x.example.com/i"]
    with pytest.raises(BlockedError) as caught:
        places(loaded, "docker://a.example.com/private/x")
    assert (caught.value.code, caught.value.exit_status) == ("transport.blocked", 6)
    assert "registries.conf" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "mirror", "by_tag", "by_digest"),
    [
        ("", "", True, True),
        ("mirror-by-digest-only = true", "", False, True),
        ("", 'pull-from-mirror = "digest-only"', False, True),
        ("", 'pull-from-mirror = "tag-only"', True, False),
        ("", 'pull-from-mirror = "all"', True, True),
    ],
)
def test_mirrors_by_tag_or_digest(conf, setting, mirror, by_tag, by_digest):
    loaded = conf(f'[[registry]]\nlocation="a.io"\n{setting}\n[[registry.mirror]]\nlocation="m.io"\n{mirror}\n')
    assert ("m.io/x" in places(loaded, "docker://a.io/x:1")) is by_tag
    assert ("m.io/x" in places(loaded, f"docker://a.io/x@{DIGEST}")) is by_digest


def test_drop_ins_replace_tables_and_aliases(tmp_path):
    system = tmp_path / "etc/containers"
    (system / "registries.conf.d").mkdir(parents=True)
    user = tmp_path / "config/containers/registries.conf.d"
    user.mkdir(parents=True)
    (system / "registries.conf").write_text(
        '[[registry]]\nlocation="a.io"\nblocked=true\n[aliases]\none="x.io/one"\ntwo="x.io/two"\n'
    )
    (system / "registries.conf.d/50-b.conf").write_text('[[registry]]\nlocation="a.io"\ninsecure=true\n')
    (system / "registries.conf.d/50-b.txt").write_text("not read")
    (user / "60.conf").write_text('[aliases]\none="y.io/one"\ntwo=""\n')
    loaded = RegistriesConf.load(Settings(root=tmp_path, config_home=tmp_path / "config"))
    assert places(loaded, "docker://a.io/x") == ["a.io/x!"]
    assert loaded.aliases == {"one": "y.io/one"}
    (tmp_path / "config/containers/registries.conf").write_text("")
    alone = RegistriesConf.load(Settings(root=tmp_path, config_home=tmp_path / "config"))
    assert places(alone, "docker://a.io/x") == ["a.io/x"]
    assert alone.aliases == {"one": "y.io/one"}


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "[registries.search]\nregistries = ['a.io']",
        "registry = 5",
        "[[registry]]\nblocked = true",
        '[[registry]]\nprefix = "a.io"',
        '[[registry]]\nprefix = "a.*.io"\nlocation = "b.io"',
        '[[registry]]\nprefix = "*.a.io/x"\nlocation = "b.io"',
        '[[registry]]\nlocation = "https://a.io"',
        '[[registry]]\nlocation = "a.io"\nblocked = "yes"',
        '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\ninsecure = true',
        '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = "b.io"\npull-from-mirror = "never"',
        '[aliases]\nx = "y"',
        "[aliases]\nx = 1",
    ],
)
def test_mistakes_name_the_file(conf, text):
    with pytest.raises(ConfigError) as caught:
        conf(text)
    assert "registries.conf" in str(caught.value)


# --- against servers -------------------------------------------------------------------------


@pytest.fixture
def pair():
    with RegistryServer() as mirror, RegistryServer() as primary:
        yield mirror, primary


@pytest.fixture
def mirrored(pair, make_transport, tmp_path):
    mirror, primary = pair
    path = tmp_path / "registries.conf"
    path.write_text(
        f'[[registry]]\nprefix="example.com/x"\nlocation="{primary.host}/real"\n'
        f'[[registry.mirror]]\nlocation="{mirror.host}/copy"\n'
    )
    return make_transport(registries_conf=str(path))


@pytest.fixture
def image():
    return build_image([{"a": "b"}])


def layer(image):
    from cfs_core.plugin import Descriptor, Digest

    data = image.blobs[image.layers[0]]
    return Descriptor(media_type="", digest=Digest.of(data), size=len(data)), data


def test_what_the_mirror_has_comes_from_the_mirror(pair, mirrored, image):
    mirror, primary = pair
    image.publish(mirror, "copy/app", "1")
    reference = mirrored.parse("docker://example.com/x/app:1")
    assert mirrored.fetch_manifest(reference)[1] == image.manifest
    descriptor, data = layer(image)
    assert b"".join(mirrored.iter_blob(reference, descriptor)) == data
    assert not primary.seen[1:]  # one probe at most


def test_what_the_mirror_lacks_comes_from_the_registry(pair, mirrored, image, log):
    mirror, primary = pair
    image.publish(primary, "real/app", "1")
    reference = mirrored.parse("docker://example.com/x/app:1")
    assert mirrored.fetch_manifest(reference)[1] == image.manifest
    descriptor, data = layer(image)
    assert b"".join(mirrored.iter_blob(reference, descriptor)) == data
    assert len(mirror.requests("/copy/app/")) == 1
    assert [event for _, event, _ in log.records] == ["registry.place-failed"]


def test_a_blob_that_the_mirror_loses_comes_from_the_registry(pair, mirrored, image):
    mirror, primary = pair
    image.publish(mirror, "copy/app", "1")
    image.publish(primary, "real/app", "1")
    mirror.fault("/blobs/", faults.Status(404), forever=True)
    reference = mirrored.parse("docker://example.com/x/app:1")
    mirrored.fetch_manifest(reference)
    descriptor, data = layer(image)
    assert b"".join(mirrored.iter_blob(reference, descriptor)) == data


def test_a_lying_mirror_is_not_passed_over_silently(pair, mirrored, image):
    mirror, primary = pair
    other = build_image([{"evil": "x"}])
    image.publish(primary, "real/app", "1")
    mirror.manifests["copy/app", image.digest] = ("application/vnd.oci.image.manifest.v1+json", other.manifest)
    with pytest.raises(VerificationError):
        mirrored.fetch_manifest(mirrored.parse(f"docker://example.com/x/app@{image.digest}"))


def test_nobody_has_it(mirrored):
    with pytest.raises(NotFoundError):
        mirrored.fetch_manifest(mirrored.parse("docker://example.com/x/app:1"))


@pytest.mark.parametrize("fault", [faults.Status(503), faults.Silence(), faults.Status(429)])
@pytest.mark.parametrize(("status", "error"), [(404, NotFoundError), (401, UnauthorizedError), (403, ForbiddenError)])
def test_the_registrys_own_answer_counts_where_the_mirror_is_dead(pair, mirrored, fault, status, error):
    mirror, primary = pair
    mirror.fault("/manifests/", fault, forever=True)
    primary.fault("/manifests/", faults.Status(status), forever=True)
    with pytest.raises(error) as caught:
        mirrored.fetch_manifest(mirrored.parse("docker://example.com/x/app:1"))
    assert len(primary.requests("/manifests/")) == 1
    assert list(caught.value.facts["mirrors_failed"]) == [f"{mirror.host}/copy/app"]
    assert mirror.host in caught.value.hint
    assert caught.value.facts["host"] == primary.host


def test_a_mirror_that_stumbles_is_tried_again(pair, mirrored, image):
    mirror, _primary = pair
    image.publish(mirror, "copy/app", "1")
    reference = mirrored.parse("docker://example.com/x/app:1")
    mirrored.fetch_manifest(reference)
    mirror.fault("/blobs/", faults.Status(503))
    descriptor, data = layer(image)
    assert b"".join(mirrored.iter_blob(reference, descriptor)) == data


def test_a_dead_mirror_is_passed_over(make_transport, image, tmp_path):
    with RegistryServer() as gone:
        dead = gone.host
    with RegistryServer() as primary:
        image.publish(primary, "app", "1")
        path = tmp_path / "registries.conf"
        path.write_text(f'[[registry]]\nlocation="{primary.host}"\n[[registry.mirror]]\nlocation="{dead}"\n')
        transport = make_transport(registries_conf=str(path))
        assert transport.fetch_manifest(transport.parse(f"docker://{primary.host}/app:1"))[1] == image.manifest


def test_insecure_comes_from_the_file_and_is_not_assumed(make_transport, image, tmp_path):
    with RegistryServer() as server:
        image.publish(server, "app", "1")
        strict = make_transport(tls_verify=None)
        with pytest.raises(TransportError) as caught:
            strict.fetch_manifest(strict.parse(f"docker://{server.host}/app:1"))
        assert caught.value.code in ("transport.tls", "transport.unreachable")
        path = tmp_path / "registries.conf"
        path.write_text(f'[[registry]]\nlocation="{server.host}"\ninsecure=true\n')
        transport = make_transport(tls_verify=None, registries_conf=str(path))
        assert transport.fetch_manifest(transport.parse(f"docker://{server.host}/app:1"))[1] == image.manifest
