"""What a chosen plugin may plan and return: everything else is refused in its name, before anything is written."""

from __future__ import annotations

import pytest
from builders import bootable
from builders.distributions import Site

HEAD = """
from cfs_core.plugin import *
CFS_PLUGIN_API = (1, 0)
"""

LOADER = """
class Bad(Bootloader):
    def needs(self, facts):
        return [VolumeNeed(volume=Volume.ESP, bytes_needed=1 << 20, filesystems=("vfat",), why="test")]
    def check(self, facts):
        return []
    def plan_install(self, target, facts):
        return []
    def read_menu(self, target):
        return BootMenu(entries=())
    def plan_menu(self, target, current, wanted, facts):
        return []
"""

OFFERS = {  # family: (hook, provider, what it declares)
    "bootloader": (
        "cfs_register_bootloaders",
        "BootloaderProvider",
        "firmware=frozenset(Firmware), entries=frozenset(EntryKind)",
    ),
    "layout": ("cfs_register_layouts", "LayoutProvider", ""),
    "filesystem": ("cfs_register_filesystems", "FilesystemProvider", "verity=True"),
    "policy": ("cfs_register_policies", "PolicyProvider", ""),
    "initramfs": ("cfs_register_initramfs", "InitramfsProvider", ""),
    "transport": ("cfs_register_transports", "TransportProvider", "schemes=('bad',)"),
    "storage": ("cfs_register_storage_formats", "StorageProvider", ""),
}


def plugin(family, code):
    """A plugin whose provider ``bad`` of *family* is the class Bad in *code*."""
    hook, kind, declared = OFFERS[family]
    offer = f"{kind}(name='bad', summary='bad', factory=lambda context: Bad(), {declared})"
    return f"{HEAD}\n{code}\n@hookimpl\ndef {hook}():\n    return [{offer}]\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return bootable.layout(tmp_path_factory.mktemp("image") / "oci", latest=bootable.image()) + ":latest"


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


@pytest.fixture
def install(site, source, tmp_path):
    """Plan an install with the plugins of this project and those of the site."""

    def run(*options, image=source, dry=True, **environ):
        environ = {"CFS_DISABLE_PLUGINS": "", "XDG_CACHE_HOME": str(tmp_path / "cache"), **environ}
        dry_run = ["--dry-run"] if dry else []
        disk = str(tmp_path / "disk.img")
        return site.cfs("install", "to-disk", "--source-imgref", image, *dry_run, *options, disk, **environ)

    return run


def put(site, family, code):
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": plugin(family, code)})


def loader(method, body, needs="Volume.ESP"):
    """The class of a loader with one method of its own."""
    code = LOADER.replace("Volume.ESP", needs)
    return code + f"    {method}\n        {body}\n"


INSTALL, MENU = "def plan_install(self, target, facts):", "def plan_menu(self, target, current, wanted, facts):"

OUTSIDE = {  # name: (method, action, volume that was asked for, options, what is said)
    "a file of the root": (INSTALL, "WriteFile(LOCATION, data=b'x')", "ROOT:/evil", "ESP", "did not ask for"),
    "the repository": (MENU, "WriteFile(LOCATION, data=b'x')", "ROOT:/composefs/meta.json", "ROOT", "/boot only"),
    "no such volume": (INSTALL, "WriteFile(LOCATION, data=b'x')", "XBOOTLDR:/evil", "ESP", "did not ask for"),
    "upwards": (INSTALL, "WriteFile(LOCATION, data=b'x')", "ESP:/../evil", "ESP", "normalised path"),
    "the disk": (MENU, "WriteBlocks(LOCATION, offset=440, data=b'x')", "DISK:/", "ESP", "do not fit DISK"),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_a_loader_that_writes_elsewhere_is_refused_by_name(site, install, what):
    method, action, where, needs, problem = OUTSIDE[what]
    volume, _, path = where.partition(":")
    action = action.replace("LOCATION", f"why='', location=Location(Volume.{volume}, {path!r})")
    put(site, "bootloader", loader(method, f"return [{action}]", f"Volume.{needs}"))
    done = install("--bootloader", "bad", "--firmware", "both")
    assert (done.returncode, done.stdout) == (4, "")
    assert "error: the bootloader 'bad' of bad (outsider 3.14) " in done.stderr
    assert problem in done.stderr
    assert install().returncode == 0


def only(interface, signature, body):
    """The class of a provider that has one method and lacks the others."""
    return f"class Bad({interface}):\n    def {signature}: {body}\nBad.__abstractmethods__ = frozenset()\n"


NONSENSE = {  # method: (family, class, what is said)
    "needs": (
        "bootloader",
        loader("def needs(self, facts):", "return None"),
        "returned NoneType, not several VolumeNeed",
    ),
    "check": ("bootloader", loader("def check(self, facts):", "return None"), "returned NoneType, not several Finding"),
    "plan_install": ("bootloader", loader(INSTALL, "return ['nonsense']"), "returned str among others, not Action"),
    "plan_menu": ("bootloader", loader(MENU, "return {'no': 'menu'}"), "returned str among others, not Action"),
    "plan": (
        "layout",
        only("DiskLayout", "plan(self, request)", "return [1]"),
        "returned int among others, not Partition",
    ),
    "bytes_needed": (
        "filesystem",
        only("Filesystem", "bytes_needed(self, contents)", "return '1M'"),
        "returned str, not int",
    ),
    "judge": (
        "policy",
        only("Policy", "judge(self, image, transport)", "return True"),
        "returned bool, not PolicyVerdict",
    ),
    "examine": (
        "initramfs",
        only("Initramfs", "examine(self, artifacts, image, storage)", "return True"),
        "returned bool, not InitramfsVerdict",
    ),
    "_fetch_manifest": (
        "transport",
        only("Transport", "_fetch_manifest(self, reference, accept)", "return b'{}'"),
        "returned bytes, not a tuple (str, bytes)",
    ),
    "open": (
        "storage",
        only("StorageFormat", "open(self, path, *, create=False, options=None)", "return path"),
        "returned PosixPath, not Repository",
    ),
}

CHOSEN = {
    "bootloader": {"options": ("--bootloader", "bad")},
    "layout": {"CFS_INSTALL_LAYOUT": "bad"},
    "filesystem": {"options": ("--filesystem", "bad")},
    "policy": {"CFS_POLICY_REQUIRE": "bad"},
    "initramfs": {"CFS_DISABLE_PLUGINS": "initramfs"},
    "transport": {"image": "bad:image"},
    "storage": {"CFS_INSTALL_STORAGE": "bad"},
}


@pytest.mark.parametrize("method", NONSENSE)
def test_a_provider_that_returns_nonsense_is_named(site, install, method):
    family, code, problem = NONSENSE[method]
    put(site, family, code)
    chosen = dict(CHOSEN[family])
    done = install(*chosen.pop("options", ()), **chosen)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"'bad' of bad (outsider 3.14) breaks its contract: {method}() {problem}" in done.stderr
    assert "report it to the authors of outsider" in done.stderr


def test_a_policy_that_fails_is_named(site, install):
    put(site, "policy", "class Bad(Policy):\n    def judge(self, image, transport): raise KeyError(1)")
    done = install(CFS_POLICY_REQUIRE="bad")
    assert done.returncode == 7
    assert "policy bad of bad (outsider 3.14) could not judge oci:" in done.stderr
    assert "KeyError: 1" in done.stderr
    assert install().returncode == 0


def test_a_policy_accepts_with_true_and_nothing_else(site, install):
    verdict = "PolicyVerdict(accepted='no', reason='because')"
    put(site, "policy", f"class Bad(Policy):\n    def judge(self, image, transport): return {verdict}")
    done = install(CFS_POLICY_REQUIRE="bad")
    assert done.returncode == 7
    assert "refuses" in done.stderr
