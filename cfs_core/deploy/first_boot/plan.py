"""Settings of first boot as files of a deployment's /etc, which is the machine's own state and not the image's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.deploy.first_boot.accounts import read_accounts
from cfs_core.deploy.first_boot.request import given, origin
from cfs_core.deploy.first_boot.system import FileWriter, System
from cfs_core.image.etc_mount import CONFIG, etc_mount
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cfs_core.config.settings import Settings
    from cfs_core.deploy.first_boot.accounts import Accounts
    from cfs_core.deploy.first_boot.request import FirstBootRequest, UserAccount
    from cfs_core.image.reader import ImageReader
    from cfs_core.model.action import PlacingAction

_HOMES = "/var/home"
_NOT_SHOWN = "(not shown)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBootLine:
    """A setting as the plan shows it; a secret's value is never in it."""

    setting: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBootPlan:
    """What is put into /etc in place of the image's files, by path from /etc (``/hostname``)."""

    files: dict[str, PlacingAction]
    lines: tuple[FirstBootLine, ...] = ()
    findings: tuple[Finding, ...] = ()


def plan_first_boot(settings: Settings, request: FirstBootRequest, image: ImageReader, etc: str) -> FirstBootPlan:
    """Plan the files of settings; *image* is the deployed tree, *etc* the path of the deployment's /etc on the root.

    What the image cannot follow is a finding, and leaves nothing behind.
    """
    files = FileWriter(image, etc)
    lines: list[FirstBootLine] = []
    findings: list[Finding] = []
    system = System(image, files)
    makers: dict[str, Callable[[str, str], Iterator[Finding]]] = {
        "hostname": system.hostname,
        "locale": system.locale,
        "timezone": system.timezone,
        "keymap": system.keymap,
    }
    for name, make in makers.items():
        setting = given(settings, name)
        if setting is not None:
            where = origin(setting, name)
            findings += make(str(setting.value), where)
            lines.append(FirstBootLine(setting=name, value=str(setting.value), origin=where))
    if request.machine_id is not None:
        files.write("/machine-id", f"{request.machine_id}\n".encode(), mode=0o444)
        lines.append(FirstBootLine(setting="machine-id", value=request.machine_id, origin="--machine-id"))
    if request.root_password_hash is not None or request.users:
        made, found = _accounts(request, image, files)
        lines += made
        findings += found
    if lines and (problem := _forgotten(image)):
        findings.append(problem)
    return FirstBootPlan(files=files.made, lines=tuple(lines), findings=tuple(findings))


def _accounts(
    request: FirstBootRequest, image: ImageReader, files: FileWriter
) -> tuple[list[FirstBootLine], list[Finding]]:
    accounts = read_accounts(image)
    lines: list[FirstBootLine] = []
    findings: list[Finding] = []
    if request.root_password_hash is not None:
        findings += accounts.set_root_password(request.root_password_hash)
        name = "root-password-hash"
        lines.append(FirstBootLine(setting=name, value=_NOT_SHOWN, origin=f"--{name}"))
    homes = _homes(image)
    shell = _shell(image)
    for user in request.users:
        found = list(accounts.add_user(user, f"{homes}/{user.name}", shell))
        findings += found
        lines.append(_line(user, accounts, homes))
    for name in sorted(accounts.changed):
        files.write(f"/{name}", accounts.text(name), mode=0o640 if name.endswith("shadow") else 0o644)
    if request.users:
        findings += _make_homes(request.users, homes, image, files)
    return lines, findings


def _line(user: UserAccount, accounts: Accounts, homes: str) -> FirstBootLine:
    groups = f", groups {', '.join(user.groups)}" if user.groups else ""
    password = "no password fits" if user.password_hash in {"!", "*"} else f"password {_NOT_SHOWN}"
    value = f"{user.name}: number {accounts.number(user.name)}, {password}{groups}, home {homes}/{user.name}"
    return FirstBootLine(setting="user", value=value, origin="--user")


def _homes(image: ImageReader) -> str:
    """Return where homes can be made in a running system, whose root is read-only: below /var, by what name ever."""
    return "/home" if _linked(image) else _HOMES


def _linked(image: ImageReader) -> str | None:
    """Return the directory below /var that /home is a link to."""
    target = os.fsdecode(getattr(image.root.entries.get(b"home"), "target", b""))
    path = os.path.normpath(f"/{target}")
    return path if path.startswith("/var/") else None


def _make_homes(users: Sequence[UserAccount], homes: str, image: ImageReader, files: FileWriter) -> Iterator[Finding]:
    """Let systemd-tmpfiles make them at first boot: it labels them, and /var may be a mount of its own by then."""
    if not any(image.exists(f"{folder}/systemd-tmpfiles") for folder in ("/usr/bin", "/bin")):
        names = " and ".join(f"{homes}/{user.name}" for user in users)
        hint = "make them in a service of the image, or install systemd-tmpfiles in it"
        yield Finding.warning(
            "first-boot.home", f"nothing in the image makes {names}: it has no systemd-tmpfiles", hint
        )
        return
    skeleton = image.names("/etc/skel")
    # Rules are carried out in the order of their paths, and /home comes before what it is a link to.
    place = _linked(image) or homes
    text = f"d {place} 0755 root root -\n"
    for user in users:
        where = f"{place}/{user.name} 0700 {user.name} {user.name} -"
        text += f"C {where} /etc/skel\n" if skeleton else f"d {where}\n"
    files.write("/tmpfiles.d/cfs-homes.conf", text.encode())  # noqa: S108 - a configuration directory


def _shell(image: ImageReader) -> str:
    """Return the shell of new users: what useradd(8) would take, if it is there."""
    for line in (image.read("/etc/default/useradd") or b"").decode("utf-8", "replace").splitlines():
        if line.startswith("SHELL=") and image.exists(line[6:].strip()):
            shell = line[6:].strip()
            return shell if shell != "/bin/sh" or not image.exists("/bin/bash") else "/bin/bash"
    return "/bin/bash" if image.exists("/bin/bash") else "/bin/sh"


def _forgotten(image: ImageReader) -> Finding | None:
    """Say why files of the deployment's /etc would not be seen: the image mounts its own (setup-root-conf.toml)."""
    if etc_mount(image) == "bind":
        return None
    message = f"settings of first boot would not be seen: {CONFIG} of the image does not mount the deployment's /etc"
    return Finding.error(
        "first-boot.etc", message, "leave out [etc] there, or the options; put the settings into the image"
    )
