"""Kernel arguments on their way through GRUB: its script language, its ``linux`` command, its BLS reader."""

from __future__ import annotations

import re

from cfs_core.bls import join_arguments
from cfs_core.plugin import BootError

_PLAIN = re.compile(r"[A-Za-z0-9_.,:=/@%+-]+")
"""Words that mean the same to the script language, to the BLS reader and to the kernel."""

_WHOLE = re.compile(r'"[^"\\\']* [^"\\\']*"')
"""A word that GRUB's ``linux`` command puts into quotes, as it is written here."""

_QUOTED = re.compile(r'([^"]*)"([^"]*)"')


def quote(text: str) -> str:
    """Return *text* as one word of GRUB's script language (in single quotes nothing is special)."""
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "'\\''") + "'"


def is_plain(arguments: tuple[str, ...]) -> bool:
    """Return whether GRUB's BLS reader hands *arguments* over unchanged."""
    return all(_PLAIN.fullmatch(argument) for argument in arguments)


def is_exact(arguments: tuple[str, ...]) -> bool:
    """Return whether GRUB's ``linux`` command hands *arguments* over in the very spelling they have."""
    return all(_WHOLE.fullmatch(argument) or not re.search(r"[\"'\\\s]", argument) for argument in arguments)


def linux_words(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words for GRUB's ``linux`` command that make the kernel see *arguments*.

    That command (grub-core/lib/cmdline.c) puts a backslash before every quote and backslash, and quotes around a word
    with a space. Quoted arguments are therefore handed over without their quotes: ``a="b c"`` reaches the kernel as
    ``"a=b c"``, which it reads as the same thing (lib/cmdline.c, next_arg).

    Raises:
        BootError: an argument that would reach the kernel with another meaning.
    """
    join_arguments(arguments)
    return tuple(map(_word, arguments))


def _word(argument: str) -> str:
    text = argument
    quoted = _QUOTED.fullmatch(argument)
    if quoted is not None and not re.search(r"\s", quoted[1]):
        text = quoted[1] + quoted[2]
    if re.search(r"[\\'\"]", text):
        message = f"GRUB would put a backslash before each quote and backslash in the kernel argument {argument!r}"
        hint = 'use UEFI without BIOS, systemd-boot or a UKI; name="two words" is the only form GRUB hands over'
        raise BootError(message, hint=hint, facts={"argument": argument})
    if text == argument and re.search(r"\s", text):
        message = f"kernel argument {argument!r} has white space outside quotes"
        raise BootError(message, hint='put double quotes around it: name="two words"', facts={"argument": argument})
    if "\t" in text or text == "":
        message = f"GRUB cannot hand the kernel argument {argument!r} over"
        raise BootError(
            message, hint="use a space instead of a tab, and no empty arguments", facts={"argument": argument}
        )
    return text


def kernel_view(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return *arguments* without the spellings that a script and an entry file may differ in, for comparing them."""
    return tuple(
        re.sub(r'"|\$\{([A-Za-z0-9_]+)\}', lambda found: f"${found[1]}" if found[1] else "", text) for text in arguments
    )
