"""Small images that cfs takes for bootable: real structure, programs that only wait."""

from __future__ import annotations

from builders.pe import addon_bytes, pe_bytes, uki_bytes
from cfs_testkit.builders.oci import Dir, File, Image, Link, layer, write_layout
from cfs_testkit.programs import PE_MACHINES, program
from cfs_testkit.programs import kernel as kernel_file

KERNEL_VERSION = "6.12.1-test"
MODULES = f"usr/lib/modules/{KERNEL_VERSION}"
EFI = {"amd64": "x64", "arm64": "aa64"}


def cpio(files: dict[str, bytes | str]) -> bytes:
    """Return a newc archive; text values are symbolic links."""
    out = bytearray()
    for number, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        mode = 0o120777 if isinstance(data, str) else 0o100755
        body = data.encode() if isinstance(data, str) else data
        fields = (number, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + body
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(architecture: str = "amd64", *, capable: bool = True) -> bytes:
    """Return an initramfs with bootc's early-boot code, or without any."""
    files: dict[str, bytes | str] = {"init": program(architecture)}
    if capable:
        files["usr/lib/bootc/initramfs-setup"] = program(architecture)
        files["usr/lib/systemd/system/bootc-root-setup.service"] = b"[Service]\nExecStart=/bin/true\n"
        files["usr/lib/systemd/system/initrd-root-fs.target.wants/bootc-root-setup.service"] = (
            "../bootc-root-setup.service"
        )
    return cpio(files)


def tree(architecture: str = "amd64", *, capable: bool = True, loader: bool = True, kernel: str | None = None, **files):
    """Return what is in the image; *files* add to it or, as None, take away."""
    content = {
        f"{MODULES}/vmlinuz": File(kernel_file(kernel or architecture, KERNEL_VERSION)),
        f"{MODULES}/initramfs.img": File(initramfs(architecture, capable=capable)),
        f"{MODULES}/modules.builtin": File(
            "kernel/fs/erofs/erofs.ko\nkernel/fs/overlayfs/overlay.ko\nkernel/fs/ext4/ext4.ko\n"
        ),
        "usr/lib/os-release": File('ID=test\nPRETTY_NAME="Test OS 1"\nVERSION_ID=1\n'),
        "usr/lib/bootc/kargs.d/10-test.toml": File('kargs = ["quiet", "console=ttyS0"]\n'),
        "usr/bin/tool": File(
            b"\x7fELF" + b"tool" * 2000, mode=0o4755, xattrs={"security.capability": b"\1\0\0\2" + bytes(16)}
        ),
        "usr/bin/empty": File(b""),
        "usr/sbin/init": File(program(architecture), mode=0o755),
        "sbin": Link("usr/sbin"),
        "etc/hostname": File("box\n"),
        "etc/shadow": File("root:*:1::::::\n", mode=0o640, gid=42),
        "etc/os-release": Link("../usr/lib/os-release"),
        "etc/.updated": File("x"),
        "var/lib/state": File(b"state" * 100, uid=7, gid=8),
        "boot": Dir(),
        "sysroot": Dir(),
        "run": Dir(),
        "proc": Dir(),
        "sys": Dir(),
        "dev": Dir(),
        "tmp": Dir(mode=0o1777),
    }
    if loader:
        name = f"usr/lib/systemd/boot/efi/systemd-boot{EFI[architecture]}.efi"
        content[name] = File(
            pe_bytes(
                [(".text", b"loader" * 50), (".sdmagic", b"#### LoaderInfo: systemd-boot 257.1 ####\0")],
                PE_MACHINES[architecture],
            )
        )
    content.update(files)
    return {path: what for path, what in content.items() if what is not None}


def image(
    architecture: str = "amd64", *, labels: dict[str, str] | None = None, compression: str = "gzip", **choices
) -> Image:
    """Return a bootable image of one layer."""
    return Image([layer(tree(architecture, **choices), compression)], architecture=architecture, labels=labels or {})


def with_uki(base: Image, cmdline: str, *addons: str) -> Image:
    """Return *base* with a UKI in a layer of its own, and addons with these command lines."""
    folder = "boot/EFI/Linux/test.efi"
    linux = kernel_file(version=KERNEL_VERSION)
    files = {folder: File(uki_bytes(cmdline, version=KERNEL_VERSION, linux=linux, initrd=initramfs()))}
    for number, text in enumerate(addons):
        files[f"{folder}.extra.d/{number}.addon.efi"] = File(addon_bytes(text))
    return Image([*base.layers, layer(files, parents=True)], architecture=base.architecture, labels=base.labels)


def layout(directory, **images) -> str:
    """Write images by tag and return the directory's reference up to the tag."""
    write_layout(directory, dict(images))
    return f"oci:{directory}"
