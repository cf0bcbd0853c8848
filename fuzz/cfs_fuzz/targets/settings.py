"""Settings: of who runs cfs, and what an image advises or asks for."""

from __future__ import annotations

import contextlib

from cfs_core.config.advice import image_advice
from cfs_core.config.settings import load
from cfs_core.deploy.bootable.fstab import examine_fstab
from cfs_core.image.kernel_arguments import collect_arguments, image_arguments
from cfs_core.lifecycle.etc import etc_mode
from cfs_core.plugin import Architecture, CfsError
from cfs_fuzz import scratch
from cfs_fuzz.target import target
from cfs_initramfs.contents import Contents
from cfs_initramfs.examine import _config_problem
from cfs_initramfs.handlers import HANDLERS
from cfs_testkit.trees import image_of

_WORDS = (
    b"[install]\n",
    b"[transport.registry]\n",
    b"kargs = ",
    b"match-architectures = ",
    b'"x86_64"',
    b"[" * 1000,
    b"{a=" * 1000,
    b"a." * 1000,
    b"1" * 5000,
    b"0x" + b"f" * 5000,
    b"1979-05-27T07:32:00",
    b"inf",
    b"\\uD800",
    b"\0",
)
_SETTINGS = [
    b'[install]\nbootloader = "grub"\nkargs = ["quiet"]\ntimeout = 5\n',
    b'[transport.registry]\ntls-verify = false\nauthfile = "/x"\n',
]


@target("settings", lambda: _SETTINGS, _WORDS, largest=8192)
def read_settings(data: bytes) -> None:
    """A file of settings, as the operator's and as the vendor's; and as text of variables."""
    nowhere = scratch.folder() / "nowhere"
    environ = {}
    for word in data.decode("utf-8", "replace").replace("\0", "").split()[:4]:
        name, _, value = word.partition("=")
        environ[f"CFS_{name.upper()}"] = value
    with contextlib.suppress(CfsError):
        load(environ, root=nowhere)
    scratch.put("root/usr/lib/cfs/a.toml", data)
    with contextlib.suppress(CfsError):
        load({}, root=scratch.folder() / "root")
    settings = load({}, file=scratch.put("cfs.toml", data), root=nowhere)
    for _name, _setting in settings.listing():
        pass


_ADVICE = [
    b'[install]\nkargs = ["quiet", "a=b c"]\nmatch-architectures = ["x86_64"]\nroot-fs-type = "ext4"\n',
    b'kargs = ["console=ttyS0", "rootflags=subvol=@"]\nmatch-architectures = ["aarch64"]\n',
    b'[etc]\nmount = "overlay"\n[root]\ntransient = true\n[var]\nmount = "bind"\n',
    b"UUID=deadbeef / ext4 defaults 0 1\n/dev/sda9 none swap sw\nLABEL=x\\040y /mnt ext4 nofail 0 0\n",
]


@target("image-advice", lambda: _ADVICE, (*_WORDS, b'"\\"', b"composefs=", b"root=", b"init=", b"\\777"), largest=8192)
def read_advice(data: bytes) -> None:
    """The same bytes as bootc's install configuration, ours, kargs.d, the label and fstab."""
    text = data.decode("utf-8", "replace")
    image = image_of(
        {
            "usr/lib/composefs/setup-root-conf.toml": data,
            "usr/lib/bootc/install/10-a.toml": data,
            "usr/lib/cfs/install.d/b.toml": data,
            "usr/lib/bootc/kargs.d/c.toml": data,
            "etc/fstab": data,
        }
    )
    for labels in ({}, {"containers.bootc.kargs": text, "org.cfs.kargs": text}):
        with contextlib.suppress(CfsError):
            image_arguments(image, labels, Architecture.AMD64)
        with contextlib.suppress(CfsError):
            collect_arguments(image, labels, Architecture.AMD64, deleted=text.split()[:3])
    etc_mode(image)
    for handler in HANDLERS:
        _config_problem(handler, Contents(), image)
    list(examine_fstab(image, (), lambda _device, _partition: None))
    image_advice(image, "amd64")
