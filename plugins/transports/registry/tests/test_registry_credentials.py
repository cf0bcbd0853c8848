"""Credentials are found where podman, docker and ostree keep them, and nowhere they do not apply."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import tempfile
import traceback
from pathlib import Path

import pytest

from cfs_core.plugin import ConfigError
from cfs_testkit.context import RecordedLog
from cfs_transport_registry.credentials import CredentialStore
from cfs_transport_registry.reference import Repository
from cfs_transport_registry.registries_conf import RegistriesConf
from cfs_transport_registry.settings import Settings


def entry(user="alice", password="s3cret-Passw0rd"):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class Places:
    """A root with files in it, and a store that looks there."""

    def __init__(self, tmp_path):
        self.root = tmp_path
        self.helpers = tmp_path / "bin"
        self.settings = {"root": tmp_path, "uid": 1000}
        self.log = RecordedLog()

    def put(self, path, content):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content if isinstance(content, str) else json.dumps(content))
        return target

    def helper(self, name, script):
        path = self.put(f"bin/docker-credential-{name}", f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def user(self, name, **settings):
        from cfs_core.system.command import HostCommands

        made = Settings(**{**self.settings, **settings})
        helpers = RegistriesConf.load(made).credential_helpers
        store = CredentialStore(made, HostCommands({"PATH": str(self.helpers)}), self.log, helpers)
        found = store.find(Repository.of(name))
        return None if found is None else found.user or f"token {found.identity_token}"


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path)


def auths(**keys):
    return {"auths": {key: entry(user) for key, user in keys.items()}}


def test_files_are_read_in_podmans_order(places):
    order = [
        ("run-user/containers/auth.json", {"runtime_dir": places.root / "run-user"}),
        ("run/containers/1000/auth.json", {}),
        ("home/.config/containers/auth.json", {"config_home": places.root / "home/.config"}),
        ("home/.docker/config.json", {"home": places.root / "home"}),
        ("etc/ostree/auth.json", {}),
    ]
    everything = {key: value for _, settings in order for key, value in settings.items()}
    assert places.user("quay.io/a/b") is None
    for path, _ in reversed(order):
        places.put(path, auths(**{"quay.io": path}))
        assert places.user("quay.io/a/b", **everything) == path
    assert (
        places.user("quay.io/a/b", **everything, docker_config=places.put("d/config.json", "{}").parent) == order[0][0]
    )
    named = places.put("named.json", auths(**{"quay.io": "named"}))
    assert places.user("quay.io/a/b", **everything, authfile=named) == "named"
    assert places.user("other.io/a", **everything, authfile=named) is None


def test_the_longest_matching_namespace_wins(places):
    keys = {"quay.io": "host", "quay.io/org": "org", "quay.io/org/app": "app", "quay.io/or": "no"}
    places.put("etc/ostree/auth.json", auths(**keys))
    assert places.user("quay.io/other/app") == "host"
    assert places.user("quay.io/org/other") == "org"
    assert places.user("quay.io/org/app") == "app"
    assert places.user("quay.io/org/app/sub") == "app"
    assert places.user("quay.io/organic") == "host"
    assert places.user("evil-quay.io/org/app") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://docker.io"])
def test_docker_hub_has_several_names(places, key):
    places.put("etc/ostree/auth.json", auths(**{key: "hub"}))
    assert places.user("docker.io/library/fedora") == "hub"


@pytest.mark.parametrize("key", ["https://quay.io", "http://quay.io/", "quay.io/v1/", "https://quay.io/v2/"])
def test_urls_as_keys_of_old_files(places, key):
    places.put("etc/ostree/auth.json", auths(**{key: "old"}))
    assert places.user("quay.io/a") == "old"


def test_helpers_are_asked_for_their_registries(places):
    places.helper("one", 'read server; echo "{\\"Username\\": \\"$server-user\\", \\"Secret\\": \\"x\\"}"')
    places.helper("tok", 'echo \'{"Username": "<token>", "Secret": "refresh"}\'')
    places.put("etc/ostree/auth.json", {"credHelpers": {"quay.io": "one", "azurecr.io": "tok", "docker.io": "one"}})
    assert places.user("quay.io/a") == "quay.io-user"
    assert places.user("azurecr.io/a") == "token refresh"
    assert places.user("docker.io/library/a") == "https://index.docker.io/v1/-user"
    assert places.user("other.io/a") is None


def test_helpers_are_for_whole_hosts(places):
    places.helper("one", 'echo \'{"Username": "helper", "Secret": "x"}\'')
    helpers = {"quay.io/org": "one", "https://quay.io": "one", "other.io/": "one", "docker.io/library": "one"}
    places.put("etc/ostree/auth.json", {"credHelpers": helpers, **auths(**{"quay.io": "own"})})
    assert places.user("quay.io/org/app") == "own"
    assert places.user("other.io/a") is None
    assert places.user("docker.io/library/a") is None


def test_a_helper_may_keep_the_hub_under_either_name(places):
    places.helper("podman", 'read s; [ "$s" = docker.io ] || exit 1; echo \'{"Username": "hub", "Secret": "x"}\'')
    places.put("etc/ostree/auth.json", {"credHelpers": {"docker.io": "podman"}})
    assert places.user("docker.io/library/a") == "hub"


def test_helpers_of_registries_conf_are_asked_in_their_order(places):
    places.helper("one", 'read s; [ "$s" = quay.io ] || exit 1; echo \'{"Username": "one", "Secret": "x"}\'')
    places.put("etc/ostree/auth.json", auths(**{"quay.io": "file", "other.io": "file"}))
    conf = "etc/containers/registries.conf"
    places.put(conf, 'credential-helpers = ["one", "containers-auth.json"]')
    assert places.user("quay.io/a") == "one"
    assert places.user("other.io/a") == "file"
    places.put(conf, 'credential-helpers = ["containers-auth.json", "one"]')
    assert places.user("quay.io/a") == "file"
    places.put(conf, 'credential-helpers = ["one"]')
    assert places.user("other.io/a") is None
    places.put("etc/containers/registries.conf.d/50.conf", 'credential-helpers = ["containers-auth.json"]')
    assert places.user("other.io/a") == "file"
    assert places.user("quay.io/a", authfile=places.put("named.json", auths(**{"quay.io": "named"}))) == "named"


def test_a_helper_of_registries_conf_that_fails_matters_only_if_nobody_else_knows(places):
    places.put("etc/containers/registries.conf", 'credential-helpers = ["absent", "containers-auth.json"]')
    places.put("etc/ostree/auth.json", auths(**{"quay.io": "file"}))
    assert places.user("quay.io/a") == "file"
    assert [(level, event) for level, event, _ in places.log.records] == [("debug", "registry.helper-failed")]
    with pytest.raises(ConfigError) as caught:
        places.user("other.io/a")
    assert "docker-credential-absent" in str(caught.value)


@pytest.mark.parametrize("value", ['"one"', "[1]", '[""]', '["../../evil"]'])
def test_senseless_helpers_are_errors_of_the_configuration(places, value):
    places.put("etc/containers/registries.conf", f"credential-helpers = {value}")
    with pytest.raises(ConfigError):
        places.user("quay.io/a")


@pytest.fixture
def ordinary():
    """A world for which this process is not root, and a file of somebody else in it."""
    world = Places(Path(tempfile.mkdtemp()))
    world.root.chmod(0o755)
    world.put("etc/ostree/auth.json", auths(**{"quay.io": "root"})).chmod(0)
    world.put("closed/auth.json", "{}").parent.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield world
    if root:
        os.seteuid(0)
    (world.root / "closed").chmod(0o700)
    shutil.rmtree(world.root)


def test_a_file_of_root_alone_does_not_keep_users_from_pulling(ordinary):
    assert ordinary.user("quay.io/a") is None
    (record,) = ordinary.log.records
    assert record[:2] == ("debug", "registry.authfile-unreadable")
    with pytest.raises(ConfigError) as caught:
        ordinary.user("quay.io/a", authfile=ordinary.root / "etc/ostree/auth.json")
    assert "--authfile" in caught.value.hint


def test_files_behind_the_one_that_knows_are_not_read(places):
    places.put("run/containers/1000/auth.json", auths(**{"quay.io": "own"}))
    places.put("etc/ostree/auth.json", "not json")
    assert places.user("quay.io/a") == "own"
    with pytest.raises(ConfigError):
        places.user("other.io/a")


def test_a_named_file_in_a_closed_folder_is_an_error_of_the_configuration(ordinary):
    with pytest.raises(ConfigError) as caught:
        Settings.of({"authfile": str(ordinary.root / "closed/auth.json")}, {}, 1000)
    assert "Permission denied" in str(caught.value)


def test_the_store_is_asked_last_and_may_know_nothing(places):
    places.helper(
        "store",
        'read s; [ "$s" = quay.io ] || { echo credentials not found; exit 1; }; echo \'{"Username":"s","Secret":"x"}\'',
    )
    places.put("etc/ostree/auth.json", {"credsStore": "store", **auths(**{"own.io": "own"})})
    assert places.user("own.io/a") == "own"
    assert places.user("quay.io/a") == "s"
    assert places.user("other.io/a") is None


@pytest.mark.parametrize(
    ("content", "script"),
    [
        ("not json", None),
        ("[]", None),
        ({"auths": []}, None),
        ({"auths": {"quay.io": "x"}}, None),
        ({"auths": {"quay.io": {"auth": "%%%"}}}, None),
        ({"auths": {"quay.io": {"auth": base64.b64encode(b"nocolon").decode()}}}, None),
        ({"credHelpers": {"quay.io": "../../evil"}}, None),
        ({"credHelpers": {"quay.io": "missing"}}, None),
        ({"credHelpers": {"quay.io": "broken"}}, "exit 7"),
        ({"credHelpers": {"quay.io": "broken"}}, "echo hello"),
        ("[" * 100_000, None),
    ],
)
def test_a_broken_file_or_helper_is_an_error_of_the_configuration(places, content, script):
    places.put("etc/ostree/auth.json", content)
    if script:
        places.helper("broken", script)
    with pytest.raises(ConfigError) as caught:
        places.user("quay.io/a")
    assert caught.value.exit_status == 3


def test_a_named_file_that_is_missing_is_an_error(make_transport, tmp_path):
    with pytest.raises(ConfigError) as caught:
        make_transport(authfile=str(tmp_path / "absent.json"))
    assert "absent.json" in str(caught.value)
    with pytest.raises(ConfigError):
        make_transport(environ={"REGISTRY_AUTH_FILE": str(tmp_path / "absent.json")})
    with pytest.raises(ConfigError):
        make_transport(no_such_setting=1)


@pytest.mark.parametrize(
    ("content", "script"),
    [
        ({"credsStore": "alice:hidden-s3cret"}, None),
        ({"credsStore": {"password": "hidden-s3cret"}}, None),
        ({"credHelpers": {"quay.io": "hidden-s3cret/../x"}}, None),
        ({"credHelpers": {"quay.io": "chatty"}}, "echo using hidden-s3cret >&2; exit 3"),
        ({"credHelpers": {"quay.io": "chatty"}}, "echo 'Username: hidden-s3cret'"),
    ],
)
def test_what_helpers_and_files_hold_is_not_shown(places, content, script):
    places.put("etc/ostree/auth.json", content)
    if script:
        places.helper("chatty", script)
    with pytest.raises(ConfigError) as caught:
        places.user("quay.io/a")
    shown = "".join(traceback.format_exception(caught.value))
    assert "hidden-s3cret" not in f"{shown} {caught.value.hint} {caught.value.facts} {places.log.records}"


def test_the_settings_that_are_declared_are_those_that_are_read():
    from cfs_transport_registry.plugin import cfs_register_transports
    from cfs_transport_registry.settings import _KNOWN

    (provider,) = cfs_register_transports()
    assert {setting.name for setting in provider.settings} == _KNOWN
