"""What made providers return is looked at before core believes it."""

import copy
import inspect
from dataclasses import dataclass

import pytest

from cfs_core.errors import PluginError
from cfs_core.plugin import Finding, Policy, PolicyVerdict, Repository, Severity, StorageFormat
from cfs_core.pluginhost import families
from cfs_core.pluginhost.contracts import RETURNS, UNCHECKED, Group, hold
from cfs_core.pluginhost.registry import PluginId

OWNER = PluginId(name="bad", distribution="outsider", version="3.14")
INTERFACES = {family.interface().__name__: family.interface() for family in families.ALL if family.name != "command"}
INTERFACES |= {"Repository": Repository}


def returning(interface):
    """Names of an interface's methods that return something, with the annotation."""
    return {
        name: inspect.signature(value).return_annotation
        for base in interface.__mro__
        if base.__module__.startswith("cfs_core")
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("__")
        if inspect.signature(value).return_annotation != "None"
    }


@pytest.mark.parametrize("name", INTERFACES)
def test_every_method_that_returns_something_is_looked_at_or_excused(name):
    looked_at, excused = set(RETURNS[name]), UNCHECKED.get(name, set())
    assert set(returning(INTERFACES[name])) == looked_at | excused
    assert not looked_at & excused


@pytest.mark.parametrize("name", INTERFACES)
def test_the_table_says_what_the_interface_says(name):
    annotations = returning(INTERFACES[name])
    for method, promise in RETURNS[name].items():
        kinds = promise.kinds if isinstance(promise, Group) else promise.kind
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            word = {"NoneType": "None", "str": ("str", "ImageId")}.get(kind.__name__, kind.__name__)
            words = word if isinstance(word, tuple) else (word,)
            assert any(word in annotations[method] for word in words), (method, annotations[method])


def made(*judgements):
    class Judge(Policy):
        def judge(self, image, transport):
            return judgements[0]

    return hold(Judge(), Policy, OWNER, "the policy 'x'")


def test_what_is_right_passes_unchanged():
    verdict = PolicyVerdict(accepted=True, reason="")
    policy = made(verdict)
    assert policy.judge(None, None) is verdict
    assert isinstance(policy, Policy)


def test_what_is_wrong_is_an_error_that_names_the_owner():
    with pytest.raises(PluginError, match=r"^the policy 'x' of bad \(outsider 3\.14\) breaks its contract: judge\(\)"):
        made(None).judge(None, None)


def test_an_object_that_is_made_twice_is_held_once():
    policy = made(None)
    assert hold(policy, Policy, OWNER, "the policy 'x'") is policy


def test_frozen_slotted_and_copied_objects_work():
    @dataclass(frozen=True, slots=True)
    class Judge(Policy):
        verdict: object

        def judge(self, image, transport):
            return self.verdict

    policy = hold(Judge("nonsense"), Policy, OWNER, "the policy 'x'")
    for one in (policy, copy.copy(policy)):
        with pytest.raises(PluginError, match="returned str, not PolicyVerdict"):
            one.judge(None, None)


def test_sequences_stay_what_they_are_and_generators_become_tuples():
    finding = Finding(severity=Severity.NOTE, code="x", message="x")
    promise = RETURNS["Bootloader"]["check"]
    given = [finding]
    assert promise.check(given, None) is given
    assert promise.check((item for item in given), None) == (finding,)


def test_streams_are_looked_at_while_they_are_read():
    def complain(problem):
        raise ValueError(problem)

    stream = RETURNS["Repository"]["plan_export"].check(iter(["nonsense"]), complain)
    with pytest.raises(ValueError, match="returned str among others, not Action"):
        next(stream)


def test_a_repository_is_held_too():
    class Empty(Repository):
        def has_layer(self, diff_id):
            return "perhaps"

        def close(self):
            pass

    Empty.__abstractmethods__ = frozenset()

    class Format(StorageFormat):
        def open(self, path, *, create=False, options=None):
            return Empty()

    Format.__abstractmethods__ = frozenset()
    with (
        hold(Format(), StorageFormat, OWNER, "the storage format 'x'").open("x") as repository,
        pytest.raises(PluginError, match=r"has_layer\(\) returned str, not bool"),
    ):
        repository.has_layer("x")
