"""Broken plugins, really installed: each is named with distribution and version, none stops who does not need it."""

import json

import pytest
from builders.distributions import Site

from cfs_core.errors import PluginError
from cfs_core.model.event import Event
from cfs_core.plugin import (
    BytesContent,
    Firmware,
    KernelArgument,
    NotFoundError,
    PolicyProvider,
    TransportProvider,
    hookimpl,
)
from cfs_core.pluginhost import families
from cfs_core.pluginhost.load import PluginHost
from cfs_core.pluginhost.registry import PluginId
from cfs_core.pluginhost.schemes import scheme_owners

HEAD = """
from cfs_core.plugin import *
CFS_PLUGIN_API = (2, 0)
"""

GOOD = (
    HEAD
    + """
class Good(Transport):
    def read_manifest(self, reference, accept):
        raise NotFoundError("nothing here")
    def open_blob(self, reference, descriptor, offset):
        raise NotFoundError("nothing here")

@hookimpl
def cfs_register_transports():
    return [TransportProvider(name="good", summary="works", factory=lambda context: Good(), schemes=("good",))]
"""
)


def transport(body, name="bad"):
    """A plugin whose transport is made by *body*, a function of the context."""
    return f"""{HEAD}
class Bad(Transport):
    def read_manifest(self, reference, accept):
        raise KeyError("wrong")
    def open_blob(self, reference, descriptor, offset):
        raise NotFoundError("nothing here")

def make(context):
    {body}

@hookimpl
def cfs_register_transports():
    return [TransportProvider(name="{name}", summary="s", factory=make, schemes=("{name}",))]
"""


BROKEN = {  # name: (source, what doctor says, whether the plugin still works)
    "import-error": ("import there_is_no_such_module", "there_is_no_such_module", False),
    "syntax-error": ("def", "SyntaxError", False),
    "exit-on-import": ("import sys; sys.exit(0)", "SystemExit", False),
    "no-api": ("x = 1", "states no usable CFS_PLUGIN_API", False),
    "wrong-api": (HEAD + "CFS_PLUGIN_API = (3, 0)", "needs plugin API 3.0, this cfs has 2.0", False),
    "newer-api": (HEAD + "CFS_PLUGIN_API = (2, 99)", "needs plugin API 2.99, this cfs has 2.0", False),
    "unknown-hook": (HEAD + "@hookimpl\ndef cfs_register_bootloaderz(): return []", "cfs_register_bootloaderz", False),
    "unknown-argument": (HEAD + "@hookimpl\ndef cfs_on_event(evnt): pass", "evnt", False),
    "wrong-type": (HEAD + "@hookimpl\ndef cfs_register_transports(): return ['bad']", "returned str", False),
    "wrong-family": (
        HEAD
        + "@hookimpl\ndef cfs_register_transports(): "
        + "return [PolicyProvider(name='x', summary='x', factory=print)]",
        "returned PolicyProvider, not TransportProvider",
        False,
    ),
    "not-a-list": (HEAD + "@hookimpl\ndef cfs_register_transports(): return 7", "returned int", False),
    "bad-name": (
        HEAD
        + "@hookimpl\ndef cfs_register_policies(): return [PolicyProvider(name='Bad Name', summary='', factory=print)]",
        "'Bad Name'",
        False,
    ),
    "raises": (HEAD + "@hookimpl\ndef cfs_register_transports(): raise ValueError('ouch')", "ValueError: ouch", False),
    "raises-late": (
        HEAD + "@hookimpl\ndef cfs_register_transports():\n    yield from ()\n    raise ValueError('ouch')",
        "ValueError: ouch",
        False,
    ),
    "exits": (HEAD + "import sys\n@hookimpl\ndef cfs_register_transports(): sys.exit(3)", "SystemExit: 3", False),
    "wrapper": (
        HEAD + "@hookimpl(wrapper=True)\ndef cfs_register_transports():\n    return (yield)",
        "uses wrapper on cfs_register_transports",
        False,
    ),
    "jumps-the-queue": (
        HEAD + "@hookimpl(tryfirst=True, specname='cfs_register_transports')\ndef x(): return []",
        "uses tryfirst on cfs_register_transports",
        False,
    ),
    "prints": (transport("return Bad()") + "\nprint('hello')", "prints to standard output: 'hello'", True),
    "slow": (
        transport("return Bad()")
        .replace("@hookimpl", "import time\n@hookimpl")
        .replace("    return [", "    time.sleep(1.1)\n    return ["),
        "took 1.",
        True,
    ),
}


@pytest.fixture
def site(tmp_path):
    """An installed plugin that works, beside which others are installed."""
    return Site(tmp_path / "site").install("cfs-good", "1.0", {"good": "good_plugin"}, {"good_plugin.py": GOOD})


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_named_and_costs_only_itself(site, name):
    source, problem, usable = BROKEN[name]
    site.install("outsider", "3.14", {name: "outsider_plugin"}, {"outsider_plugin.py": source})
    report, done = site.json("plugins", "doctor")
    assert done.returncode == (0 if usable else 4)
    troubles = [t for t in report["troubles"] if t["plugin"] == name]
    assert {(t["distribution"], t["version"]) for t in troubles} == {("outsider", "3.14")}
    assert {t["fatal"] for t in troubles if problem in t["problem"]} == {not usable}
    listing, done = site.json("plugins", "list")
    assert done.returncode == 0
    names = {p["name"] for p in listing["providers"]}
    assert names == ({"good", "bad"} if usable else {"good"})


def test_what_is_logged_while_a_plugin_loads_leaves_the_output_alone(site):
    slow = "import time\ntime.sleep(1.2)\n" + BROKEN["wrong-type"][0]
    site.install("outsider", "3.14", {"slow": "slow"}, {"slow.py": slow})
    listing, done = site.json("plugins", "list")
    assert {each["name"] for each in listing["providers"]} == {"good"}
    assert "took 1" in done.stderr
    assert "returned str" in done.stderr


def test_a_run_that_needs_the_broken_one_fails_with_its_cause(site):
    site.install("outsider", "3.14", {"bad": "bad"}, {"bad.py": BROKEN["raises"][0]})
    done = site.cfs("image", "pull", "bad:x")
    assert done.returncode == 2
    assert "outsider 3.14" in done.stderr
    assert "ValueError: ouch" in done.stderr
    done = site.cfs("image", "pull", "good:x")
    assert done.returncode == 6
    assert "nothing here" in done.stderr


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ValueError('ouch')", "ValueError: ouch"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("return None", "made NoneType, not Transport"),
    ],
)
def test_one_that_fails_when_chosen_is_named(site, body, problem):
    site.install("outsider", "3.14", {"bad": "bad"}, {"bad.py": transport(body)})
    done = site.cfs("image", "pull", "bad:x")
    assert done.returncode == 4
    assert f"the transport 'bad' of bad (outsider 3.14) {'made' if 'made' in problem else 'failed'}" in done.stderr
    assert problem in done.stderr
    assert "authors of outsider" in done.stderr
    assert site.cfs("plugins", "list").returncode == 0


@pytest.mark.parametrize(("what", "text"), [("KeyError('wrong')", "KeyError: 'wrong'"), ("SystemExit(0)", "Exit: 0")])
def test_one_that_fails_in_use_is_named(site, what, text):
    source = transport("return Bad()").replace('KeyError("wrong")', what)
    site.install("outsider", "3.14", {"bad": "bad"}, {"bad.py": source})
    done = site.cfs("image", "pull", "bad:x")
    assert done.returncode == 4
    assert f"the plugin bad (outsider 3.14) failed: {text if 'Key' in text else 'SystemExit: 0'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_printing_when_chosen_does_not_spoil_results(site):
    site.install("outsider", "3.14", {"bad": "bad"}, {"bad.py": transport("print('noise'); return Bad()")})
    done = site.cfs("image", "pull", "bad:x")
    assert done.stdout == ""
    assert "noise" in done.stderr


def test_the_same_provider_name_twice_is_withheld_from_both(site):
    for name in ("one", "two"):
        site.install(name, "1", {name: f"{name}_plugin"}, {f"{name}_plugin.py": transport("return Bad()")})
    report, done = site.json("plugins", "doctor")
    assert done.returncode == 4
    problems = {t["distribution"]: t["problem"] for t in report["troubles"] if t["fatal"]}
    assert set(problems) == {"one", "two"}
    assert "two (two 1)" in problems["one"]
    listing, _ = site.json("plugins", "list")
    assert {(p["name"], p["status"]) for p in listing["providers"]} == {("good", "usable"), ("bad", "withheld")}
    assert site.cfs("--disable-plugin", "one", "image", "pull", "bad:x").returncode == 4  # the other one, which fails
    listing, _ = site.json("--disable-plugin", "one", "plugins", "list")
    assert {p["status"] for p in listing["providers"]} == {"usable"}


def test_the_same_entry_point_name_twice_loads_neither_whatever_the_order(site):
    for name in ("one", "two"):
        site.install(name, "1", {"bad": f"{name}_plugin"}, {f"{name}_plugin.py": transport("return Bad()", name)})
    report, done = site.json("plugins", "doctor")
    assert done.returncode == 4
    assert {t["distribution"]: "neither is loaded" in t["problem"] for t in report["troubles"] if t["fatal"]} == {
        "one": True,
        "two": True,
    }
    listing, _ = site.json("plugins", "list")
    assert {p["name"] for p in listing["providers"]} == {"good"}


@pytest.mark.parametrize("handle", ["bad", "outsider"])
def test_a_plugin_is_switched_off_by_its_name_or_its_distribution(site, handle):
    site.install("outsider", "3.14", {"bad": "bad"}, {"bad.py": "import there_is_no_such_module"})
    report, done = site.json("--disable-plugin", handle, "plugins", "doctor")
    assert [t for t in report["troubles"] if t["plugin"] == "bad"] == []
    _, done = site.json("plugins", "list")
    assert "outsider" in done.stderr  # a warning where it is not switched off
    assert done.returncode == 0


def test_switching_off_what_is_not_there_is_pointed_out(site, tmp_path):
    settings = tmp_path / "cfs.toml"
    settings.write_text('[plugins]\ndisabled = ["absent", "cfs-good"]\n')
    done = site.cfs("--config", settings, "plugins", "list", CFS_DISABLE_PLUGINS="")
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "setting.ignored" in line]
    assert [name for name in ("absent", "cfs-good") if any(repr(name) in line for line in lines)] == ["absent"]
    assert str(settings) in lines[0]


DEPRECATING = """
from cfs_core import hookspecs
from cfs_core.cli.main import main
hookspecs.cfs_on_event.cfs_spec["{option}"] = {value}
main()
"""


@pytest.mark.parametrize("python", [(), ("-W", "error::DeprecationWarning")])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("warn_on_impl", "DeprecationWarning('use cfs_watch')"),
        ("warn_on_impl_args", "dict(event=DeprecationWarning('use cfs_watch'))"),
    ],
)
def test_a_deprecated_hook_or_argument_is_told_to_who_implements_it(site, option, value, python):
    source = HEAD + "@hookimpl\ndef cfs_on_event(event): pass"
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": source})
    code = DEPRECATING.format(option=option, value=value)
    done = site.python(code, "plugins", "doctor", "--format", "json", options=python)
    problems = [trouble for trouble in json.loads(done.stdout)["troubles"] if trouble["distribution"] == "outsider"]
    slow = "took "  # seconds, on a machine that is busy
    assert [(t["problem"][:-2], t["fatal"]) for t in problems if not t["problem"].startswith(slow)] == [
        ("implements what is deprecated: use cfs_watch (bad_plugin.py:", False)
    ]
    assert site.python(code, "plugins", "list", options=python).stderr.count("use cfs_watch") == 1


def test_doctor_says_what_a_working_plugin_does_wrong_and_calls_no_broken_one_ok(site):
    clash = transport("return Bad()").replace("schemes=('bad',)", "schemes=('good',)").replace('("bad",)', '("good",)')
    site.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": clash})
    site.install("empty", "1", {"empty": "empty_plugin"}, {"empty_plugin.py": HEAD})
    done = site.cfs("plugins", "doctor")
    assert done.returncode == 4
    assert "ok       empty (empty 1)" in done.stdout
    assert "warning  empty (empty 1): implements no hook; functions need @hookimpl" in done.stdout
    assert "ok       bad" not in done.stdout
    assert "the transport 'bad' claims good:, and so does good of good (cfs-good 1.0)" in done.stdout
    assert done.stderr == ""


def test_a_distribution_with_damaged_metadata_is_reported_all_the_same(site):
    site.install("outsider", "3.14", {"bad": "bad"}, {"bad.py": "import there_is_no_such_module"})
    (site.folder / "outsider-3.14.dist-info" / "METADATA").write_text("")
    report, _ = site.json("plugins", "doctor")
    assert {t["distribution"] for t in report["troubles"] if t["plugin"] == "bad"} == {"unknown"}


# --- the host itself ----------------------------------------------------------------------------


def owner(name):
    return PluginId(name=name, distribution=f"cfs-{name}", version="1")


class Plugin:
    """A plugin as an object; hook functions are given by name."""

    CFS_PLUGIN_API = (2, 0)

    def __init__(self, **hooks):
        for name, function in hooks.items():
            setattr(self, name, hookimpl(function))


def a_policy(name):
    return PolicyProvider(name=name, summary=name, factory=print)


def test_registries_keep_names_sorted_and_say_whose_they_are():
    host = PluginHost()
    host.add(Plugin(cfs_register_policies=lambda: [a_policy("zebra"), a_policy("ant")]), owner("one"))
    registry = host.collect(families.POLICIES)
    assert [p.name for p in registry] == ["ant", "zebra"]
    assert registry.owner("ant") == owner("one")
    assert host.collect(families.POLICIES) is registry


def test_unknown_names_list_what_is_known_and_what_is_broken():
    host = PluginHost()
    host.add(Plugin(cfs_register_policies=lambda: [a_policy("ant")]), owner("one"))
    with pytest.raises(PluginError, match=r"no policy named 'bee'; known: ant$"):
        host.collect(families.POLICIES).get("bee")
    host.add(Plugin(cfs_register_policies=lambda: 1 / 0), owner("two"))
    with pytest.raises(PluginError, match=r"not working: two \(cfs-two 1\) in cfs_register_policies: raised Zero"):
        host.collect(families.POLICIES).get("bee")


def test_three_offers_of_one_name_name_all_three():
    host = PluginHost()
    for name in ("one", "two", "three"):
        host.add(Plugin(cfs_register_policies=lambda: [a_policy("ant")]), owner(name))
    with pytest.raises(PluginError) as caught:
        host.collect(families.POLICIES).get("ant")
    assert all(f"cfs-{name} 1" in caught.value.message for name in ("one", "two", "three"))
    assert caught.value.hint


def test_a_generator_without_end_stops():
    def endless():
        while True:
            yield a_policy("ant")

    host = PluginHost()
    host.add(Plugin(cfs_register_policies=endless), owner("one"))
    assert "ant" in host.collect(families.POLICIES).withheld


def test_observers_cannot_hurt_and_are_asked_once_after_a_fault():
    calls = []

    def observe(event):
        calls.append(event.name)
        raise SystemExit(0)

    host = PluginHost()
    host.add(Plugin(cfs_on_event=observe), owner("one"))
    host.notify(Event(name="a.done"))
    host.notify(Event(name="b.done"))
    assert calls == ["a.done"]
    assert [str(t) for t in host.trouble] == ["one (cfs-one 1) in cfs_on_event: raised SystemExit: 0"]


def test_contributions_come_with_their_owner_and_faults_are_kept():
    host = PluginHost()
    argument = KernelArgument(text="quiet", origin="x")
    host.add(Plugin(cfs_kernel_arguments=lambda facts: [argument]), owner("one"))
    host.add(Plugin(cfs_kernel_arguments=lambda facts: ["quiet"]), owner("two"))
    assert host.contribute("cfs_kernel_arguments", KernelArgument, facts=None) == [(owner("one"), argument)]
    assert [str(t) for t in host.trouble] == [
        "two (cfs-two 1) in cfs_kernel_arguments: returned str, not KernelArgument"
    ]


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        (families.POLICIES, "name", 7),
        (families.POLICIES, "name", "Bad"),
        (families.POLICIES, "summary", None),
        (families.POLICIES, "factory", "print"),
        (families.TRANSPORTS, "schemes", "bad"),
        (families.TRANSPORTS, "schemes", None),
        (families.TRANSPORTS, "schemes", (1,)),
        (families.BOOTLOADERS, "firmware", None),
        (families.BOOTLOADERS, "firmware", [Firmware.UEFI]),
        (families.BOOTLOADERS, "entries", frozenset({"bls"})),
        (families.BOOTLOADERS, "kernels", frozenset({"efi"})),
        (families.BOOTLOADERS, "marker_paths", "/usr/lib/loader"),
    ],
)
def test_a_provider_with_a_wrong_declaration_is_no_offer(family, field, value):
    right = {"name": "bad", "summary": "", "factory": print}
    right |= {"schemes": ("bad",)} if family is families.TRANSPORTS else {}
    right |= {"firmware": frozenset(), "entries": frozenset()} if family is families.BOOTLOADERS else {}
    host = PluginHost()
    host.add(Plugin(**{family.hook: lambda: [family.kind(**{**right, field: value})]}), owner("one"))
    assert list(host.collect(family)) == []
    (trouble,) = host.trouble
    assert (trouble.hook, trouble.fatal) == (family.hook, True)
    assert str(field) in trouble.problem


def test_what_a_run_can_do_without_is_attempted():
    def refuses():
        raise NotFoundError(str(host))

    host = PluginHost()
    assert host.attempt(owner("one"), "method", divmod, 7, 2) == (3, 1)
    assert host.attempt(owner("one"), "method", divmod, 7, 0) is None
    assert [str(t) for t in host.trouble] == [
        "one (cfs-one 1) in method: raised ZeroDivisionError: integer division or modulo by zero"
    ]
    with pytest.raises(NotFoundError):
        host.attempt(owner("one"), "method", refuses)
    assert len(host.trouble) == 1


def test_a_plugin_that_comes_later_is_asked_and_troubles_are_kept_once():
    host = PluginHost()
    host.add(Plugin(cfs_register_policies=lambda: ["nonsense"]), owner("one"))
    host.collect(families.POLICIES)
    host.add(Plugin(cfs_register_policies=lambda: [a_policy("ant")]), owner("two"))
    assert "ant" in host.collect(families.POLICIES)
    assert len(host.trouble) == 1


def test_a_scheme_claimed_twice_belongs_to_nobody():
    def make(name):
        return TransportProvider(name=name, summary="", factory=print, schemes=("x", name))

    host = PluginHost()
    host.add(Plugin(cfs_register_transports=lambda: [make("one"), make("two"), make("three")]), owner("p"))
    owners, contested = scheme_owners(host.collect(families.TRANSPORTS))
    assert owners == {"one": "one", "two": "two", "three": "three"}
    assert sorted(contested["x"]) == ["one", "three", "two"]


def test_two_hosts_know_nothing_of_each_other():
    one, two = PluginHost(), PluginHost()
    one.add(Plugin(cfs_register_policies=lambda: [a_policy("ant")]), owner("one"))
    assert "ant" not in two.collect(families.POLICIES)


def test_slowness_is_measured_with_the_given_clock():
    now = iter([0.0, 5.0])
    host = PluginHost(clock=lambda: next(now))
    host.add(Plugin(cfs_register_policies=lambda: [a_policy("ant")]), owner("one"))
    registry = host.collect(families.POLICIES)
    assert "ant" in registry
    (trouble,) = registry.trouble
    assert (trouble.problem, trouble.fatal) == ("took 5.0 seconds", False)


def test_a_fault_of_core_is_not_blamed_on_a_plugin():
    host = PluginHost()
    host.add(Plugin(), owner("one"))
    with pytest.raises(TypeError) as caught:
        assert BytesContent(1).size
    assert host.blame(caught.value) is None
