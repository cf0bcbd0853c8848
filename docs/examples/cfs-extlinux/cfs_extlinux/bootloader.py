"""extlinux.conf as a bootloader of cfs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cfs_core.bls import bytes_on_fat
from cfs_core.plugin import (
    Action,
    Bootloader,
    ConfigError,
    Finding,
    Firmware,
    Severity,
    Volume,
    VolumeNeed,
    WriteFile,
)
from cfs_extlinux.menu import CONFIG, HEADER, MenuPlan, read_menu, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfs_core.plugin import BootFacts, BootMenu, Content, TargetView


@dataclass(frozen=True, slots=True)
class Extlinux(Bootloader):
    """U-Boot's menu on a boot volume. *devicetree* is a path among the image's device trees."""

    devicetree: str | None = None

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Self:
        """Read the table ``bootloader.extlinux``.

        Raises:
            ConfigError: no relative path.
        """
        value = settings.get("devicetree")
        if value is not None and (not isinstance(value, str) or value.startswith("/") or ".." in value.split("/")):
            msg = f"bootloader.extlinux.devicetree is {value!r}"
            raise ConfigError(msg, hint='a path such as "rockchip/rk3399-rock-pi-4b.dtb"')
        return cls(value)

    def needs(self, facts: BootFacts) -> Sequence[VolumeNeed]:
        """Ask for a boot volume with room for one deployment's boot files."""
        artifacts = facts.artifacts
        files = [*(artifacts.contents if artifacts is not None else ()), self._tree(facts)]
        size = bytes_on_fat(file.size for file in files if file is not None)
        why = "extlinux.conf, kernels and initrds, which U-Boot reads"
        return [VolumeNeed(volume=Volume.BOOT, bytes_needed=size, filesystems=("vfat", "ext4"), why=why)]

    def check(self, facts: BootFacts) -> Sequence[Finding]:
        """Check firmware, and that the device tree is there."""
        findings = []
        if facts.firmware != {Firmware.UBOOT}:
            message = "extlinux.conf is read by U-Boot, not by UEFI or BIOS"
            findings.append(Finding.error("boot.firmware-unsupported", message, "use --firmware u-boot"))
        if self.devicetree and facts.image is not None and facts.artifacts is not None and self._tree(facts) is None:
            message = f"the image has no device tree {self.devicetree} for its kernel {facts.artifacts.kernel_version}"
            findings.append(Finding.error("boot.devicetree-missing", message, "name one below /usr/lib/modules/VERSION/dtb"))
        return findings

    def plan_install(self, target: TargetView, facts: BootFacts) -> Sequence[Action]:
        """Write an extlinux.conf without labels; U-Boot itself is the board's."""
        del facts
        if read_text(target):
            return []
        return [WriteFile(location=CONFIG, data=HEADER, why="menu of U-Boot")]

    def read_menu(self, target: TargetView) -> BootMenu:
        """Read extlinux.conf."""
        return read_menu(target)

    def plan_menu(self, target: TargetView, current: BootMenu, wanted: BootMenu, facts: BootFacts) -> Sequence[Action]:
        """Plan boot files, extlinux.conf, then removals.

        Raises:
            BootError: see `Bootloader.plan_menu`.
        """
        del current  # extlinux.conf is read again, because what it says besides the menu is kept
        return MenuPlan(target, wanted, self._tree(facts)).actions()

    def _tree(self, facts: BootFacts) -> Content | None:
        if self.devicetree is None or facts.image is None or facts.artifacts is None:
            return None
        version = facts.artifacts.kernel_version
        places = (f"/usr/lib/modules/{version}/dtb", f"/usr/lib/linux-image-{version}")
        found = (facts.image.content(f"{place}/{self.devicetree}") for place in places)
        return next((content for content in found if content is not None), None)
