"""The reference of hooks: exact signatures, who calls them when, and a diagram."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, NamedTuple

from cfs_core import hookspecs
from cfs_core.pluginhost import families
from generator import prose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Firing(NamedTuple):
    """When a hook is called: how often, in which step of an install, and what a fault in it costs."""

    step: str
    when: str
    fault: str


LOST = "The plugin's offers of this family are missing; a run that needs one of them ends with `plugin`."
STOPS = "The install is refused with the finding `plugin.fault`: a lost argument or check is not harmless."
ONCE = "Once in a run, when the first provider of the family is looked for."

STEPS = ("resolve", "judge", "fetch", "choose", "plan", "check", "write", "read back", "any time")
"""What an install does, in order; the diagram has a line for each."""

EVENTS = {
    "resolve": ("image.resolved",),
    "fetch": ("layer.stored", "image.committed"),
    "choose": ("plan.started",),
    "write": ("step.started", "disk.written"),
    "read back": ("disk.verified", "install.completed"),
}
"""What `cfs_on_event` is told in each step."""

FIRINGS = {
    "cfs_register_transports": Firing("resolve", ONCE, LOST),
    "cfs_register_bootloaders": Firing("resolve", ONCE, LOST),
    "cfs_register_policies": Firing("judge", f"{ONCE} Only if `policy.require` names a policy.", LOST),
    "cfs_register_storage_formats": Firing("fetch", ONCE, LOST),
    "cfs_register_filesystems": Firing("choose", ONCE, LOST),
    "cfs_register_initramfs": Firing("choose", ONCE, LOST),
    "cfs_kernel_arguments": Firing("plan", "Once for each plan, after the bootloader was chosen.", STOPS),
    "cfs_register_layouts": Firing("plan", ONCE, LOST),
    "cfs_check_plan": Firing("check", "Once for each plan, when all of it is known. Also in dry runs.", STOPS),
    "cfs_check_boot": Firing(
        "any time",
        "Once for each upgrade or switch, and when addons of a sealed deployment change. Not for installs.",
        "The machine starts what it started before: `plugin.fault`, as a lost check is not harmless.",
    ),
    "cfs_register_hashers": Firing(
        "any time", "Once in a process, when several blocks are hashed at once.", "hashlib is used: it gives the same."
    ),
    "cfs_register_commands": Firing(
        "any time", "When a command is looked for that core does not have, and for `cfs --help`.", LOST
    ),
    "cfs_on_event": Firing(
        "any time",
        "For each event, in the thread that emits it.",
        "None for the run. The plugin is not told of later events, and the run ends with a warning that names it.",
    ),
}


def every_hook() -> dict[str, Callable[..., object]]:
    """Return all hook specifications by name, in the order of their module."""
    return {
        name: function
        for name, function in vars(hookspecs).items()
        if name.startswith("cfs_") and hasattr(function, f"{hookspecs.PROJECT}_spec")
    }


def signature(function: Callable[..., object]) -> str:
    """Return name and signature as written in the module."""
    facts = inspect.signature(function)
    arguments = ", ".join(f"{item.name}: {item.annotation}" for item in facts.parameters.values())
    return f"{function.__name__}({arguments}) -> {facts.return_annotation}"


def page() -> str:
    """Return the page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield prose.HOOKS
    yield "```text"
    yield from diagram()
    yield "```"
    made = {family.hook: family for family in families.ALL}
    for name, function in every_hook().items():
        firing = FIRINGS[name]
        yield ""
        yield f"## `{signature(function)}`"
        yield ""
        yield inspect.cleandoc(function.__doc__ or "")
        yield ""
        yield f"- **When:** {firing.when}"
        if name in made:
            family = made[name]
            kind = family.makes.partition(":")[2]
            yield f"- **Offers:** `{family.kind.__name__}`, chosen by name; its factory makes a `{kind}`."
        yield f"- **A fault costs:** {firing.fault}"


def hooks_of(step: str) -> list[str]:
    """Return the hooks that fire in *step*, in order."""
    return [name for name, firing in FIRINGS.items() if firing.step == step]


def diagram() -> Iterator[str]:
    """Yield the lines of the diagram."""
    for number, step in enumerate(STEPS):
        names = hooks_of(step)
        told = ", ".join(EVENTS.get(step, ()))
        for index, name in enumerate(names or ["(no hook)"]):
            line = f"{step if not index else '':<11}{'──' if name in FIRINGS else '  '} {name}"
            yield f"{line:<45}{told if not index else ''}".rstrip()
        if number < len(STEPS) - len(("any time", "last step")):
            yield "   │"
        elif step == STEPS[-2]:
            yield ""
