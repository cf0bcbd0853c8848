"""What the generated pages say around their tables."""

from __future__ import annotations

COMMANDS = """\
# Commands

Each command has a man page too (`man cfs-image-digest`). Results go to standard output, all else to standard error.
Exit statuses are those of [errors](errors.md).
"""

SETTINGS = """\
# Settings

Origins, weakest first: {ranks}. `cfs config show --origin` says which one decided.

Files are TOML: `/usr/lib/cfs/cfs.toml` and `/usr/lib/cfs/cfs.toml.d/*.toml` (vendor), the same below `/etc/cfs`,
`~/.config/cfs/cfs.toml` (user), and `cfs --config FILE`. A file in `/etc/cfs` masks the vendor's of the same name; an
empty one switches it off. `install.root-size` is `root-size` in the table `[install]`. An unknown key is an error in
files the operator writes, and a warning in vendor files and images.

An image advises in `/usr/lib/cfs/install.d/*.toml`, and in bootc's `/usr/lib/bootc/install/*.toml`; only the keys that
are marked may be advised.
"""

ENVIRONMENT = """
Lists in the environment are separated by commas. `CFS_DISABLE_PLUGINS` is short for `CFS_PLUGINS_DISABLED`;
`CFS_LOG` sets the level of the log, `SOURCE_DATE_EPOCH` every time that is not the image's.
"""

EVENTS = """\
# Events, findings, problems

## Events

Plugins see them in `cfs_on_event`, programs as JSON lines on `--progress-fd` (`"type": "event"`), people in the log at
level info. The unit of a number is in the name of the fact.
"""

CODES = """
## Codes of findings and problems

A *finding* is made before anything is written; one of severity error ends the install, and its code is the code of the
error. A *problem* is made when a repository or a disk is read back.
"""

LOGS = """
## Log lines

Besides events, these are in the log; no program should wait for one.
"""

ERRORS = """\
# Errors and exit statuses

An error is printed as `error: MESSAGE [CODE]`, and `hint: WHAT TO DO` where there is something to do. Codes and exit
statuses are stable; messages are not.

## Exit statuses
"""

INTERFACES = """\
# Interfaces

Everything in `cfs_core.plugin`, plugin API {api}; `cfs plugins docs NAME` prints the same where cfs is installed. What
else may be imported: [other modules](modules.md). How it may change: [API policy](../../api-policy.md).
"""

OTHER_MODULES = """\
# Other modules

`cfs_core.bls` and `cfs_core.tar` are for plugins, `cfs_core.testing` is for their tests. Nothing else of core is
stable: [API policy](../../api-policy.md).
"""

KIT = """\
# The kit for tests

`cfs-plugin-testkit`: contracts that say whether a plugin is right, and simulators instead of mocks. A *check* is a test
of a contract: it runs in your subclass.
"""

HOOKS = """\
# Hooks

A plugin implements any of these functions with `@hookimpl` from `cfs_core.plugin`. An implementation may leave out
arguments. Implementations are called one at a time; wrappers are refused everywhere, `tryfirst` and `trylast` on
registration hooks. What a hook prints, raises or takes too long for is a warning (`plugin.trouble`) at the end of the
run in which it did, with the plugin's name, distribution and version. `cfs plugins doctor` loads every plugin and calls
the registration hooks, so it shows that of them; the other hooks are called by an install only. `--log-level debug`
adds the traceback.

## When each fires

In the order of `cfs install to-disk`; on the right, what `cfs_on_event` is told in that step. Other commands
call the registration hooks of what they need.
"""
