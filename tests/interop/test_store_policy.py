"""What policy.json says about images of a container store: the same answer as skopeo's for the same image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess

import pytest

from cfs_core.image.resolve import resolve
from cfs_core.interfaces.fetcher import Fetcher
from cfs_core.plugin import ConfigError, NotFoundError
from cfs_core.system.command import HostCommands
from cfs_policies.containers_policy import ContainersPolicy
from cfs_policies.places import Places as PolicyPlaces
from cfs_testkit.builders.oci import Image, layer, write_layout
from cfs_transport_containers_storage.places import Places
from cfs_transport_containers_storage.transport import StorageTransport

pytestmark = [
    pytest.mark.judge,
    pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="makes a store of root"),
]

NAMES = {"quay.io/evil/app:1": "evil", "quay.io/good/tool:1": "good", "localhost/mine:1": "mine"}


class Store:
    """A store that skopeo filled, asked by skopeo and by us under one policy."""

    def __init__(self, folder, driver="overlay"):
        self.folder = folder
        self.root = folder / "st"
        self.conf = folder / "storage.conf"
        self.configure(f'graphroot="{self.root}"\n', driver)
        self.ids = {}
        for name, text in NAMES.items():
            image = Image([layer({"who": text})])
            write_layout(folder / text, {"1": image})
            self.skopeo("--insecure-policy", "copy", "-q", f"oci:{folder / text}:1", f"containers-storage:{name}")
            self.ids[text] = hashlib.sha256(image.config).hexdigest()

    def configure(self, graph, driver="overlay", options=""):
        text = f'[storage]\ndriver="{driver}"\nrunroot="{self.folder}/run"\n{graph}[storage.options]\n{options}'
        self.conf.write_text(f'{text}[storage.options.overlay]\nskip_mount_home="true"\n')

    def skopeo(self, *argv, check=True):
        env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(self.conf)}
        return subprocess.run(["skopeo", *argv], env=env, check=check, capture_output=True, text=True, timeout=60)

    def require(self, scopes):
        table = {scope: [{"type": kind}] for scope, kind in scopes.items()}
        policy = {"default": [{"type": "reject"}], "transports": {"containers-storage": table}}
        self.policy = self.folder / "policy.json"
        self.policy.write_text(json.dumps(policy))

    def skopeo_accepts(self, rest):
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        argv = ["--policy", str(self.policy), "copy", "-q", f"containers-storage:{rest}", f"oci:{out}:1"]
        done = self.skopeo(*argv, check=False)
        assert done.returncode == 0 or "rejected" in done.stderr, done.stderr
        return done.returncode == 0

    def cfs_accepts(self, rest):
        commands = HostCommands(os.environ)
        environ = {"CONTAINERS_STORAGE_CONF": str(self.conf)}
        transport = Fetcher(StorageTransport(Places.of({}, environ, 0), commands))
        image = resolve(transport, transport.parse(f"containers-storage:{rest}"))
        places = PolicyPlaces(policy=self.policy, registries_d=self.folder, lookaside=self.folder)
        return ContainersPolicy(places, commands, self.folder).judge(image, transport).accepted


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def store(filled):
    filled.configure(f'graphroot="{filled.root}"\n')
    return filled


ACCEPT, REJECT = "insecureAcceptAnything", "reject"
STORE = "[overlay@{root}]"
POLICIES = [
    {"": ACCEPT, STORE: REJECT},
    {"": ACCEPT, "[{root}]": REJECT},
    {"": ACCEPT, f"{STORE}quay.io/evil": REJECT},
    {"": ACCEPT, f"{STORE}quay.io/evil/app:1": REJECT},
    {"": ACCEPT, f"{STORE}quay.io/evil/app:1@{{evil}}": REJECT},
    {"": ACCEPT, f"{STORE}@{{evil}}": REJECT},
    {STORE: REJECT, f"{STORE}quay.io": ACCEPT},
    {STORE: ACCEPT, f"{STORE}localhost": REJECT},
    {f"{STORE}docker.io": ACCEPT, f"{STORE}docker.io/library/app:1": ACCEPT},
    {"": REJECT, f"{STORE}quay.io/good": ACCEPT},
]
REFERENCES = [
    "quay.io/evil/app:1",
    "quay.io/good/tool:1",
    "localhost/mine:1",
    "{evil}",
    "@{good}",
    "quay.io/evil/app:1@{evil}",
    "[overlay@{root}+{run}:overlay.skip_mount_home=true]quay.io/evil/app:1",
    "[overlay@{root}+{run}:overlay.skip_mount_home=true]quay.io/good/tool:1",
    "[overlay@{root}+{run}:overlay.skip_mount_home=true]{evil}",
]


@pytest.mark.parametrize("policy", POLICIES, ids=range(len(POLICIES)))
def test_the_same_verdict_as_skopeo(store, policy):
    values = {"root": store.root, "run": store.folder / "run", **store.ids}
    store.require({scope.format(**values): kind for scope, kind in policy.items()})
    asked = [rest.format(**values) for rest in REFERENCES]
    assert {rest: store.cfs_accepts(rest) for rest in asked} == {rest: store.skopeo_accepts(rest) for rest in asked}


def test_a_short_name_is_judged_as_what_it_leads_to(store):
    """skopeo knows no such short names (they mean docker.io to it): what is read decides."""
    store.require({"": ACCEPT, f"[overlay@{store.root}]quay.io/evil": REJECT})
    assert not store.cfs_accepts("app:1")
    assert not store.cfs_accepts("evil/app:1")
    assert not store.cfs_accepts(f"app:1@{store.ids['evil']}")
    assert store.cfs_accepts("tool:1")
    store.require({"": REJECT, f"[overlay@{store.root}]docker.io/library/app:1": ACCEPT})
    assert not store.cfs_accepts("app:1")


def test_a_name_does_not_lend_itself_to_the_id_of_another_image(store):
    store.require({"": REJECT, f"[overlay@{store.root}]quay.io/good": ACCEPT})
    borrowed = f"quay.io/good/tool:1@{store.ids['evil']}"
    with pytest.raises(NotFoundError):
        store.cfs_accepts(borrowed)
    with pytest.raises(AssertionError, match="image"):
        store.skopeo_accepts(borrowed)


@pytest.mark.parametrize("named", ["st", "link"])
def test_a_root_behind_a_link(store, named):
    link = store.folder / "link"
    link.unlink(missing_ok=True)
    link.symlink_to("st")
    store.configure(f'graphroot="{link}"\n')
    store.require({"": ACCEPT, f"[overlay@{store.folder / named}]": REJECT})
    assert store.cfs_accepts("quay.io/evil/app:1") == store.skopeo_accepts("quay.io/evil/app:1")
    typed = f"[overlay@{link}]quay.io/evil/app:1"
    assert not store.cfs_accepts(typed), "we look behind the link, too"


def test_an_additional_store_goes_by_the_root_of_the_first(store, tmp_path):
    (tmp_path / "front").mkdir()
    more = f'additionalimagestores=["{store.root}"]\n'
    store.configure(f'graphroot="{tmp_path}/front"\n', options=more)
    for root, accepted in ((tmp_path / "front", False), (store.root, True)):
        store.require({"": ACCEPT, f"[overlay@{root}]quay.io/evil": REJECT})
        assert store.skopeo_accepts("quay.io/evil/app:1") is accepted
        assert store.cfs_accepts("quay.io/evil/app:1") is accepted


def test_a_policy_with_scopes_that_no_stored_image_has_is_invalid_to_both(store):
    store.require({"": ACCEPT, "quay.io/evil": REJECT})
    with pytest.raises(AssertionError, match="Unknown key"):
        store.skopeo_accepts("quay.io/good/tool:1")
    with pytest.raises(ConfigError):
        store.cfs_accepts("quay.io/good/tool:1")
