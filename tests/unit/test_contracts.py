"""What made providers return is looked at before core believes it."""

import collections.abc
import contextlib
import copy
import inspect
import pathlib
import types
import typing
from dataclasses import dataclass

import pytest

import cfs_core.plugin
from cfs_core.errors import PluginError
from cfs_core.plugin import Finding, Policy, PolicyVerdict, Repository, Severity, StorageFormat
from cfs_core.pluginhost import families
from cfs_core.pluginhost.contracts import RETURNS, UNCHECKED, Group, Many, hold
from cfs_core.pluginhost.registry import PluginId

OWNER = PluginId(name="bad", distribution="outsider", version="3.14")
INTERFACES = {family.interface().__name__: family.interface() for family in families.ALL if family.name != "command"}
INTERFACES |= {"Repository": Repository}


NAMES = {
    **vars(collections.abc),
    **{name: getattr(contextlib, name) for name in ("AbstractContextManager",)},
    **{name: getattr(cfs_core.plugin, name) for name in cfs_core.plugin.__all__},
    "Any": typing.Any,
    "BinaryIO": typing.BinaryIO,
    "Path": pathlib.Path,
    "Self": typing.Self,
    "InitramfsVerdict": cfs_core.plugin.InitramfsVerdict,
}
"""What annotations of interfaces may name: interfaces import it for type checkers only."""


def returning(interface):
    """Names of an interface's methods that return something, with the type that they promise."""
    return {
        name: promised
        for base in interface.__mro__
        if base.__module__.startswith("cfs_core")
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("__")
        if (promised := typing.get_type_hints(value, localns=NAMES)["return"]) is not types.NoneType
    }


def classes_of(promised):
    """The classes that a type names, those inside it where it is a container."""
    origin, arguments = typing.get_origin(promised), typing.get_args(promised)
    if origin is None:
        return (promised,)
    if origin in {typing.Union, types.UnionType}:
        return tuple(kind for argument in arguments for kind in classes_of(argument)[:1])
    if origin in {tuple, contextlib.AbstractContextManager} and Ellipsis not in arguments:
        return arguments if origin is tuple else (origin,)
    return tuple(argument for argument in arguments if argument is not Ellipsis)


@pytest.mark.parametrize("name", INTERFACES)
def test_every_method_that_returns_something_is_looked_at_or_excused(name):
    looked_at, excused = set(RETURNS[name]), UNCHECKED.get(name, set())
    assert set(returning(INTERFACES[name])) == looked_at | excused
    assert not looked_at & excused


@pytest.mark.parametrize("name", INTERFACES)
def test_the_table_says_what_the_interface_says(name):
    promised = returning(INTERFACES[name])
    for method, promise in RETURNS[name].items():
        kinds = promise.kinds if isinstance(promise, Group) else promise.kind
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        found = tuple(getattr(kind, "__supertype__", kind) for kind in classes_of(promised[method]))
        assert found == kinds, (method, promised[method])
        origin = typing.get_origin(promised[method])
        several = isinstance(origin, type) and issubclass(origin, collections.abc.Iterable) and origin is not tuple
        assert several == isinstance(promise, Many) or origin is tuple, method


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
