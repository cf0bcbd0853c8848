"""Broken plugins of every kind, really installed beside ours, and `cfs install` as a user runs it.

Each is reported with its distribution and version, and a run that does not need it succeeds.
"""

from __future__ import annotations

import pytest
from builders import bootable
from builders.distributions import Site

HEAD = """
from cfs_core.plugin import *
CFS_PLUGIN_API = (2, 0)
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


def edited(text, old, new):
    """Replace what stands in *text* exactly once, so that a plugin written anew does not test another thing."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in:\n{text}"
    return text.replace(old, new)


def loader(method, body, needs="Volume.ESP"):
    """The class of a loader with one method of its own."""
    code = edited(LOADER, "Volume.ESP", needs)
    return code + f"    {method}\n        {body}\n"


INSTALL, MENU = "def plan_install(self, target, facts):", "def plan_menu(self, target, current, wanted, facts):"

# --- the list --------------------------------------------------------------------------------------


def hook(name, body, arguments=""):
    return f"{HEAD}\nimport sys, time\n@hookimpl\ndef {name}({arguments}):\n    {body}\n"


def chosen(body):
    """A plugin whose loader cannot be made."""
    return plugin("bootloader", "def Bad():\n    " + body)


def used(method, body, needs="Volume.ESP"):
    return plugin("bootloader", loader(method, body, needs))


LOADER_BAD = ("--bootloader", "bad")
SAME = edited(plugin("bootloader", LOADER), "name='bad'", "name='grub'")
EVIL = "return [WriteFile(why='', location=Location(Volume.ROOT, '/evil'), data=b'')]"
PRINTS, SLEEPS = "prints to standard output: 'hello'", "took 1."

BROKEN = {  # kind, where: (module, options of the run that shows it, what is said, exit status of that run)
    "import error": ("import there_is_no_such_module", (), "cannot be imported: ModuleNotFoundError", 0),
    "wrong API": ("CFS_PLUGIN_API = (3, 0)", (), "needs plugin API 3.0, this cfs has 2.0", 0),
    "unknown hook": (hook("cfs_register_bootloaderz", "return []"), (), "cfs_register_bootloaderz", 0),
    "wrong return type, registering": (hook("cfs_register_transports", "return ['x']"), (), "returned str, not Tr", 0),
    "wrong return type, declaring": (
        hook("cfs_register_transports", "return TransportProvider(name='x', summary='', factory=print, schemes=7)"),
        (),
        "with schemes=7, which must be a tuple of str",
        0,
    ),
    "wrong return type, chosen": (chosen("return None"), LOADER_BAD, "made NoneType, not Bootloader", 4),
    "wrong return type, used": (used(INSTALL, "return ['x']"), LOADER_BAD, "returned str among others, not Action", 4),
    "raises when called, registering": (hook("cfs_register_bootloaders", "1 / 0"), (), "raised ZeroDivisionError", 0),
    "raises when called, observing": (hook("cfs_on_event", "1 / 0", "event"), (), "raised ZeroDivisionError", 0),
    "raises when called, used": (used(MENU, "1 / 0"), LOADER_BAD, "failed: ZeroDivisionError", 4),
    "raises when chosen": (chosen("1 / 0"), LOADER_BAD, "failed: ZeroDivisionError", 4),
    "same name as another": (SAME, (), "offers the bootloader 'grub', and so does grub (cfs-", 0),
    "writes outside its locations": (used(INSTALL, EVIL), LOADER_BAD, "writes to ROOT:/evil", 4),
    "prints, imported": (f"{hook('cfs_on_event', 'pass')}print('hello')", (), PRINTS, 0),
    "prints, registering": (hook("cfs_register_layouts", "print('hello')"), (), PRINTS, 0),
    "prints, contributing": (hook("cfs_check_plan", "print('hello')", "plan"), (), PRINTS, 0),
    "prints, observing": (hook("cfs_on_event", "print('hello')", "event"), (), PRINTS, 0),
    "calls sys.exit, imported": ("import sys; sys.exit(0)", (), "cannot be imported: SystemExit: 0", 0),
    "calls sys.exit, registering": (hook("cfs_register_layouts", "sys.exit(0)"), (), "raised SystemExit: 0", 0),
    "calls sys.exit, observing": (hook("cfs_on_event", "sys.exit(0)", "event"), (), "raised SystemExit: 0", 0),
    "calls sys.exit, chosen": (chosen("raise SystemExit(0)"), LOADER_BAD, "failed: SystemExit: 0", 4),
    "calls sys.exit, used": (used(INSTALL, "raise SystemExit(0)"), LOADER_BAD, "failed: SystemExit: 0", 4),
    "slow hook, registering": (hook("cfs_register_layouts", "time.sleep(1.1)"), (), SLEEPS, 0),
    "slow hook, contributing": (hook("cfs_kernel_arguments", "time.sleep(1.1)"), (), SLEEPS, 0),
    "slow hook, observing": (hook("cfs_on_event", "time.sleep(1.1)"), (), SLEEPS, 0),
}

KINDS = {
    "import error",
    "wrong API",
    "unknown hook",
    "wrong return type",
    "raises when called",
    "raises when chosen",
    "same name as another",
    "writes outside its locations",
    "prints",
    "calls sys.exit",
    "slow hook",
}


def test_the_list_has_every_kind():
    assert {name.partition(",")[0] for name in BROKEN} == KINDS


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_reported_and_stops_no_run_that_does_not_need_it(site, install, kind):
    module, options, problem, status = BROKEN[kind]
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": module})
    done = install(*options)
    assert done.returncode == status, done.stderr
    report = [line for line in done.stderr.splitlines() if problem in line and "outsider" in line]
    assert len(report) == 1, done.stderr
    assert "outsider 3.14" in report[0] or ("distribution=outsider" in report[0] and "version=3.14" in report[0])
    assert "hello" not in done.stdout
    if options:
        unrelated = install()
        assert unrelated.returncode == 0, unrelated.stderr
        assert "kernel command line" in unrelated.stdout


@pytest.mark.parametrize("body", ["1 / 0", "return ['nonsense']"])
@pytest.mark.parametrize("name", ["cfs_kernel_arguments", "cfs_check_plan"])
def test_a_lost_argument_or_check_refuses_the_install_and_names_the_plugin(site, install, name, body):
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": hook(name, body, "facts")})
    done = install(dry=False)
    assert done.returncode == 11
    assert f"error: bad (outsider 3.14) in {name}: r" in done.stderr
    assert "[plugin.fault]" in done.stderr
    done = install(CFS_DISABLE_PLUGINS="bad")
    assert (done.returncode, "outsider" in done.stderr) == (0, False)


def test_the_reports_come_before_the_error_that_ends_the_run(site, install):
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": hook("cfs_on_event", "print('x')")})
    done = install("--bootloader", "none")
    assert [line[:26] for line in done.stderr.splitlines()][-2:-1] == ["error: no bootloader named"]
    assert "plugin.trouble" in done.stderr.partition("error: ")[0]


def test_a_check_of_a_disk_needs_neither_every_loader_nor_every_filesystem(cfs, site, source, tmp_path):
    disk = tmp_path / "disk.img"
    cfs.ok("install", "to-disk", "--source-imgref", source, disk)
    broken = only("Bootloader", "read_menu(self, target)", "return None")
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": plugin("bootloader", broken)})
    site.install("other", "1", {"worse": "worse"}, {"worse.py": plugin("filesystem", "def Bad():\n    1 / 0")})
    done = site.cfs("repo", "fsck", "--disk", str(disk), CFS_DISABLE_PLUGINS="")
    assert (done.returncode, done.stdout) == (0, "clean\n")
    assert "read_menu() returned NoneType, not BootMenu" in done.stderr
    assert "worse (other 1) failed: ZeroDivisionError" in done.stderr


def test_a_transport_that_cannot_tell_the_running_image_is_passed_over(site):
    source = edited(plugin("transport", "Bad = None"), "schemes=", "running_image=lambda: 7, schemes=")
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": source})
    done = site.cfs("install", "to-disk", "disk.img", CFS_DISABLE_PLUGINS="")
    assert done.returncode == 2
    assert "returned int, not RunningImage" in done.stderr
    assert "--source-imgref" in done.stderr.splitlines()[-1]


# --- where plugins write, and what they return -----------------------------------------------------

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
    action = edited(action, "LOCATION", f"why='', location=Location(Volume.{volume}, {path!r})")
    put(site, "bootloader", loader(method, f"return [{action}]", f"Volume.{needs}"))
    done = install("--bootloader", "bad", "--firmware", "both")
    assert (done.returncode, done.stdout) == (4, "")
    assert "error: the bootloader 'bad' of bad (outsider 3.14) " in done.stderr
    assert problem in done.stderr


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
    "read_manifest": (
        "transport",
        only("Transport", "read_manifest(self, reference, accept)", "return b'{}'"),
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
    "initramfs": {"CFS_DISABLE_PLUGINS": "initramfs", "dry": False},
    "transport": {"image": "bad:image"},
    "storage": {"CFS_INSTALL_STORAGE": "bad"},
}


@pytest.mark.parametrize("method", NONSENSE)
def test_a_provider_that_returns_nonsense_is_named(site, install, method):
    family, code, problem = NONSENSE[method]
    put(site, family, code)
    chosen = dict(CHOSEN[family])
    done = install(*chosen.pop("options", ()), **chosen)
    assert done.returncode == (11 if family == "initramfs" else 4)
    assert f"'bad' of bad (outsider 3.14) breaks its contract: {method}() {problem}" in done.stderr
    assert "outsider" in done.stderr.rpartition("hint: ")[2] or "--disable-plugin" in done.stderr


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
