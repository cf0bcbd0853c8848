"""The text of our grub.cfg, user.cfg and stub files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import uki_name
from cfs_grub.order import Sorting
from cfs_grub.words import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "# Written by cfs, which writes it again when the menu changes. Own commands belong into custom.cfg beside it.\n"
"""First line of a grub.cfg that is ours."""

BLS_MARK = "# boot-loader-entries: "
"""Starts the line of our grub.cfg that says how this GRUB sorts entries, if it can read them by itself."""

ROOT_MARK = "# volume-root: "
"""Starts the line of our grub.cfg that says how GRUB sees the root of the volume that boot files are on."""

DEFAULT_TIMEOUT = 5
USER_CFG_HEAD = """
if [ -f ${config_directory}/efiuuid.cfg ]; then
        source ${config_directory}/efiuuid.cfg
fi
"""
"""How bootc begins user.cfg (formats F.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptEntry:
    """A menu entry we write out where GRUB reads none itself. ``words`` and ``initrds`` are spelled for its script."""

    id: str
    title: str
    linux: str
    words: tuple[str, ...]
    initrds: tuple[str, ...]
    efi: tuple[str, ...] = ()
    """Words for ``chainloader``, where the kernel is to be started as an EFI program of the ESP, whose UUID this is."""

    efi_uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A choice of the menu and the variable that counts its tries, None where it is not counted."""

    id: str
    variable: str | None = None


def stub(uuid: str, grub_path: str) -> str:
    """Return a grub.cfg for the ESP that goes on where GRUB's directory is (the form grub-install writes)."""
    return f"search.fs_uuid {uuid} root\nset prefix=($root)'{grub_path}'\nconfigfile $prefix/grub.cfg\n"


def early_config(uuid: str, grub_path: str) -> str:
    """Return the first commands of a program we make. GRUB's ``normal`` then reads grub.cfg by itself."""
    return f"search.fs_uuid {uuid} root\nset prefix=($root)'{grub_path}'\n"


def grub_cfg(
    *,
    choices: Sequence[Counted],
    entries: Sequence[ScriptEntry | str] | None,
    entries_path: str,
    prefix: str,
    sorting: Sorting | None,
    has_user: bool,
    user_first: bool,
    timeout: int | None,
    most_tries: int,
) -> str:
    """Return our grub.cfg. *entries* None: GRUB reads the entry files itself, sorting them by *sorting*.

    *choices* are all entries in the order of preference. Menu entries of UKIs are text, as they stand in user.cfg.
    """
    parts = [MARK]
    if sorting is not None:
        parts.append(f"{BLS_MARK}{sorting}\n")
    if prefix:
        parts.append(f"{ROOT_MARK}{prefix}\n")
    parts.append(f'set timeout={DEFAULT_TIMEOUT if timeout is None else timeout}\nset cfs_boot="$root"\nload_env\n')
    parts.append(_default(choices, most_tries))
    if entries is None and sorting:
        body = _bls(entries_path, sorting)
    else:
        body = "".join(entry if isinstance(entry, str) else _entry(entry) for entry in entries or ())
        if any(isinstance(entry, str) for entry in entries or ()):
            body = USER_CFG_HEAD.lstrip() + body
    user = [_source("user.cfg")] if has_user else []
    parts += [*user, body] if user_first else [body, *user]
    parts.append(_source("custom.cfg"))
    return "".join(parts)


def _source(name: str) -> str:
    return f'if [ -f "${{config_directory}}/{name}" ]; then\n  source "${{config_directory}}/{name}"\nfi\n'


def marked(text: str, mark: str) -> str | None:
    """Return what the line that starts with *mark* says."""
    return next((line[len(mark) :] for line in text.splitlines()[:8] if line.startswith(mark)), None)


def _default(choices: Sequence[Counted], most_tries: int) -> str:
    """Return the commands that choose the default: once, saved, the first with tries left, the first.

    Whichever of them it is, a try of it is counted. A saved one that has none left is passed over.
    """
    counted = [(quote(choice.id), choice.variable) for choice in choices if choice.variable]
    lines = ["set default=0"]
    for name, variable in counted:
        lines.append(f'if [ "${{{variable}}}" = "0" ]; then')
        lines.append(f'  if [ "${{saved_entry}}" = {name} ]; then set saved_entry=; fi')
        lines.append("fi")
    lines += [
        # Forgotten before it is tried: if it does not come up, the next boot is an ordinary one again.
        'if [ "${next_entry}" ]; then',
        '  set default="${next_entry}"',
        "  set next_entry=",
        "  save_env next_entry",
        'elif [ "${saved_entry}" ]; then',
        '  set default="${saved_entry}"',
    ]
    for choice in choices if counted else ():
        if choice.variable is None:
            lines += ["else", f"  set default={quote(choice.id)}"]
            break
        lines += [f'elif [ "${{{choice.variable}}}" != "0" ]; then', f"  set default={quote(choice.id)}"]
    lines.append("fi")
    return "\n".join(lines + _counting(counted, most_tries)) + "\n"


def _counting(counted: Sequence[tuple[str, str]], most_tries: int) -> list[str]:
    """Return the commands that take a try from the default. GRUB cannot calculate: each number has its predecessor."""
    if not (counted and most_tries):
        return []
    lines = ["set cfs_left=", "function cfs_count_down {"]
    lines += [
        f'  {"if" if number == 1 else "elif"} [ "$1" = "{number}" ]; then set cfs_left={number - 1}'
        for number in range(1, most_tries + 1)
    ]
    lines += ["  fi", "}"]
    for name, variable in counted:
        lines += [
            f'if [ "${{default}}" = {name} ]; then',
            f'  cfs_count_down "${{{variable}}}"',
            '  if [ "${cfs_left}" ]; then',
            f'    set {variable}="${{cfs_left}}"',
            f"    save_env {variable}",
            "  fi",
            "fi",
        ]
    return lines


def _bls(entries_path: str, sorting: Sorting) -> str:
    if sorting is Sorting.FILEVERCMP:
        return f"blscfg --path {quote(entries_path)}\n"
    # Fedora's reader calls load_video in every entry; firmware and kernel set the display up by themselves. The body
    # must not be empty, and not every GRUB has `true`.
    return f"function load_video {{\n  set cfs_video=\n}}\nset blsdir={quote(entries_path)}\nblscfg\n"


def _entry(entry: ScriptEntry) -> str:
    initrd = f"  initrd {' '.join(entry.initrds)}\n" if entry.initrds else ""
    linux = f"  linux {' '.join((quote(entry.linux), *entry.words))}\n{initrd}" if entry.linux else ""
    # An entry that was tried before, and failed, may have left another root.
    body = f'  set root="$cfs_boot"\n{linux}'
    if entry.efi:
        other = f"else\n{body}" if linux else ""
        body = 'if [ "$grub_platform" = "efi" ]; then\n'
        body += f"  search --no-floppy --set=root --fs-uuid {entry.efi_uuid}\n"
        body += f"  chainloader {' '.join(entry.efi)}\n{other}fi\n"
    return f"menuentry {quote(entry.title)} --id {quote(entry.id)} {{\n{body}}}\n"


def uki_title(title: str, deployment_id: str) -> str:
    """Return the title of a UKI's menu entry, by which it is known too. It stands in double quotes."""
    return f"{''.join(' ' if char in _TITLE_REFUSED else char for char in title)}: ({deployment_id})"


_TITLE_REFUSED = frozenset('"\\$>\n')


def uki_entry(title: str, deployment_id: str) -> str:
    """Return the menu entry of a UKI, as bootc writes it (formats F.5)."""
    return (
        f'menuentry "{uki_title(title, deployment_id)}" {{\n'
        "insmod fat\n"
        "insmod chain\n"
        'search --no-floppy --set=root --fs-uuid "${EFI_PART_UUID}"\n'
        f"chainloader /EFI/Linux/bootc/{uki_name(deployment_id)}\n"
        "}\n"
    )


def efiuuid_cfg(uuid: str) -> str:
    """Return efiuuid.cfg, which user.cfg reads."""
    return f'set EFI_PART_UUID="{uuid}"'
