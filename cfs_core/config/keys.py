"""Every setting there is: its type, its default, and whether an image may advise it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Kind(enum.Enum):
    """What a value must be."""

    TEXT = "a string"
    TEXTS = "a list of strings"
    FLAG = "true or false"
    NUMBER = "a whole number"
    SIZE = "a size such as 512M or 10G"
    TABLE = "a table"
    CHOICE = "one of a few words"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. ``image`` keys are those an image may advise; others in an image are ignored with a warning."""

    name: str
    kind: Kind
    default: object
    summary: str
    image: bool = False
    choices: tuple[str, ...] = ()
    """The words of a `Kind.CHOICE`."""

    least: int = 0
    most: int | None = None
    """Bounds of a `Kind.NUMBER` or `Kind.SIZE`, both included; sizes in bytes."""


MIB: Final = 1 << 20
TIB: Final = 1 << 40
MOST_DEPTH: Final = 500
"""Trees are walked by functions that call themselves, and Python's stack ends."""

KEYS: Final[tuple[Key, ...]] = (
    Key("repo", Kind.TEXT, None, "repository that images are kept in; the user's cache by default"),
    Key(
        "repo.trust",
        Kind.CHOICE,
        "own",
        "which repositories are used: only those that nobody else can write to, or any",
        choices=("own", "any"),
    ),
    Key("plugins.disabled", Kind.TEXTS, (), "plugins that are not loaded"),
    Key(
        "install.bootloader", Kind.TEXT, None, "bootloader; by default the one that fits image and firmware", image=True
    ),
    Key("install.filesystem", Kind.TEXT, "ext4", "root filesystem", image=True),
    Key("install.layout", Kind.TEXT, "gpt", "disk layout", image=True),
    Key("install.storage", Kind.TEXT, None, "storage format of the installed system", image=True),
    Key(
        "install.root-size",
        Kind.SIZE,
        None,
        "size of the root partition; by default what the image needs",
        image=True,
        least=MIB,
        most=1024 * TIB,
    ),
    # FAT32 counts sectors of 512 bytes in 32 bits.
    Key(
        "install.esp-size",
        Kind.SIZE,
        None,
        "size of the EFI system partition",
        image=True,
        least=MIB,
        most=2 * TIB - 512,
    ),
    Key("install.kargs", Kind.TEXTS, (), "kernel arguments; those of all sources add up", image=True),
    Key(
        "install.karg-deletes",
        Kind.TEXTS,
        (),
        "kernel arguments of the image that are taken out, by KEY or KEY=VALUE; those of all sources add up",
        image=True,
    ),
    Key(
        "install.firmware",
        Kind.CHOICE,
        None,
        "what will start the disk; by default what the bootloader needs",
        image=True,
        choices=("uefi", "bios", "both", "u-boot"),
    ),
    Key(
        "install.early-boot",
        Kind.CHOICE,
        "auto",
        "whether early boot is added to the image's initramfs: where it has none, never, or in any case",
        choices=("auto", "never", "always"),
    ),
    Key("install.hostname", Kind.TEXT, None, "host name of installed machines; by default what the image says"),
    Key("install.locale", Kind.TEXT, None, "locale of installed machines, such as de_DE.UTF-8"),
    Key("install.timezone", Kind.TEXT, None, "time zone of installed machines, such as Europe/Berlin"),
    Key("install.keymap", Kind.TEXT, None, "keymap of the consoles of installed machines, such as de-latin1"),
    Key("install.hash", Kind.CHOICE, "sha512", "fs-verity hash of new repositories", choices=("sha256", "sha512")),
    Key("install.erofs", Kind.CHOICE, "v1", "EROFS layout of new repositories", choices=("v0", "v1", "v2")),
    Key("install.host-tools", Kind.FLAG, default=True, summary="whether plans may run tools of this host"),
    Key(
        "install.timeout",
        Kind.NUMBER,
        None,
        "seconds the boot menu is shown; by default the loader's own",
        image=True,
        most=86_400,
    ),
    Key("deployments.keep", Kind.NUMBER, 2, "deployments that an upgrade leaves in the boot menu", least=2, most=64),
    Key(
        "boot.tries",
        Kind.NUMBER,
        3,
        "boots that a new deployment gets to come up before the loader goes back; 0: it is not counted",
        most=9,
    ),
    Key(
        "boot.trial-timeout",
        Kind.NUMBER,
        10,
        "minutes after which a boot on trial that did not come up is ended",
        least=1,
        most=1440,
    ),
    Key(
        "loader.update",
        Kind.CHOICE,
        "auto",
        "whether upgrades bring the loader of the image to the boot volumes",
        choices=("auto", "never"),
    ),
    Key(
        "upgrade.etc-conflicts",
        Kind.CHOICE,
        "fail",
        "who wins where /etc cannot be merged",
        choices=("fail", "local", "image"),
    ),
    Key(
        "upgrade.restart",
        Kind.CHOICE,
        "never",
        "whether the machine restarts by itself into what is staged, in its window",
        choices=("never", "auto"),
    ),
    Key(
        "upgrade.window",
        Kind.TEXTS,
        (),
        "when it may: calendar expressions of systemd that name minutes, such as Sat,Sun 02..04:*; by default any time",
    ),
    Key("upgrade.spread", Kind.NUMBER, 60, "minutes over which machines with the same window restart", most=1440),
    Key(
        "upgrade.restart-command",
        Kind.TEXTS,
        (),
        "command with its arguments that says whether the machine may restart now: anything but exit status 0 is no",
    ),
    Key(
        "image.contradictions",
        Kind.CHOICE,
        "refuse",
        "what to do with a layer that takes away what it has itself; composefs-rs applies such whiteouts",
        choices=("refuse", "apply"),
    ),
    Key(
        "pull.workers",
        Kind.NUMBER,
        None,
        "processes that import layers, 1: none but cfs itself; by default as many as there are processors, if worth it",
        least=1,
        most=64,
    ),
    Key("limits.layer-size", Kind.SIZE, 64 << 30, "most bytes of a layer as it is transferred"),
    Key("limits.layer-unpacked-size", Kind.SIZE, 128 << 30, "most bytes of a layer when it is uncompressed"),
    Key("limits.layer-trailer", Kind.SIZE, 64 * MIB, "most bytes behind the end of a layer's archive"),
    Key(
        "limits.compression-ratio",
        Kind.NUMBER,
        1000,
        "how many times larger an uncompressed layer may be, beyond 256 MiB",
        least=1,
    ),
    Key("limits.layer-entries", Kind.NUMBER, 1_000_000, "most entries of one layer", least=1),
    Key("limits.image-entries", Kind.NUMBER, 2_000_000, "most entries of all layers of an image together", least=1),
    Key("limits.file-size", Kind.SIZE, TIB, "most bytes of one file of an image"),
    Key("limits.path-bytes", Kind.NUMBER, 65_535, "most bytes of one path of an image", least=1),
    Key(
        "limits.path-depth", Kind.NUMBER, 256, "most directories below each other in an image", least=1, most=MOST_DEPTH
    ),
    Key("limits.extension-bytes", Kind.SIZE, MIB, "most bytes of extension headers of one entry of a layer"),
    Key("limits.xattr-count", Kind.NUMBER, 256, "most extended attributes of one entry of a layer"),
    Key("limits.xattr-bytes", Kind.SIZE, 64 << 10, "most bytes of extended attributes of one entry of a layer"),
    Key("policy.require", Kind.TEXTS, (), "policies that must accept an image"),
    Key("policy.settings", Kind.TABLE, None, "settings of policies, a table each"),
    Key("transport", Kind.TABLE, None, "settings of transports, a table each"),
    Key("bootloader", Kind.TABLE, None, "settings of bootloaders, a table each"),
    Key("command", Kind.TABLE, None, "settings of commands that plugins bring, a table each"),
    Key("filesystem", Kind.TABLE, None, "settings of filesystems, a table each"),
    Key("hasher", Kind.TABLE, None, "settings of plugins that hash blocks, a table each"),
    Key("initramfs", Kind.TABLE, None, "settings of plugins for early boot, a table each"),
    Key("layout", Kind.TABLE, None, "settings of disk layouts, a table each"),
    Key("storage", Kind.TABLE, None, "settings of storage formats, a table each"),
)

OTHER_NAMES: Final = {"repo.path": "repo"}
"""In TOML ``repo`` cannot be a string and a table: with ``repo.trust`` in the same file the path is ``repo.path``."""

BY_NAME: Final = {key.name: key for key in KEYS}
