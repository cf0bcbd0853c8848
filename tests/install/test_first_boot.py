"""Settings of first boot: what is asked for stands in the deployment's /etc on the disk, or is refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from builders import bootable

from cfs_core.config.settings import Settings, options_layer
from cfs_core.deploy.first_boot.plan import plan_first_boot
from cfs_core.deploy.first_boot.request import FirstBootRequest
from cfs_core.image.reader import ImageReader
from cfs_core.model.tree import Directory, RegularFile
from cfs_core.plugin import Region, Volume
from cfs_disk.ext4.read import Ext4Reader
from cfs_disk.gpt.layout import GptLayout
from cfs_testkit.builders.oci import File, Link
from cfs_testkit.programs import program

SALT = "saltsaltsaltsalt"
HASH = f"$6${SALT}$" + "a" * 86
YESCRYPT = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$" + "X" * 43
MACHINE_ID = "0123456789abcdef0123456789abcdef"
ZONE = b"TZif2" + bytes(39)
ACCOUNTS = {
    "etc/passwd": File("root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:/bin/sh\n"),
    "etc/group": File("root:x:0:\nsudo:x:27:old\nadm:x:4:\nother:x:1001:\n"),
    "etc/shadow": File("root:*:1:0:99999:7:::\nold:!:1::::::\n", mode=0o640, gid=42),
    "etc/gshadow": File("root:*::\nsudo:*::old\n", mode=0o640, gid=42),
    "etc/skel/.profile": File("# yours\n"),
    "usr/bin/systemd-tmpfiles": File(program(), mode=0o755),
    "usr/bin/bash": File(program(), mode=0o755),
    "bin": Link("usr/bin"),
    "usr/lib/sysusers.d/a.conf": File('u! daemonuser - "x"\ng daemons -\n'),
}
WORLD = {
    "usr/share/zoneinfo/Europe/Berlin": File(ZONE),
    "usr/lib/locale/de_DE.utf8/LC_CTYPE": File("x"),
    "usr/share/keymaps/i386/qwertz/de.map.gz": File("x"),
    "etc/localtime": Link("/usr/share/zoneinfo/UTC"),
    "etc/timezone": File("Etc/UTC\n"),
    "etc/vconsole.conf": File("FONT=eurlatgr\nKEYMAP=us\n"),
    "etc/default/locale": File("LANG=C\n"),
}


def source(tmp_path, **files):
    tree = bootable.image(**{**ACCOUNTS, **WORLD, **files})
    return bootable.layout(tmp_path / "oci", t=tree) + ":t"


def words(image, *options):
    return ("install", "to-disk", "--source-imgref", image, "--seed", "x", *options)


class Etc:
    """The /etc of the deployment on a disk."""

    def __init__(self, disk: Path, identity: str) -> None:
        self.top = f"/state/deploy/{identity}/etc"
        root = next(part for part in GptLayout().read(disk) if part.volume is Volume.ROOT)
        self.region = Region(path=disk, offset=root.start, size=root.size)

    def read(self, name: str) -> str:
        with Ext4Reader(self.region) as reader, reader.open(f"{self.top}/{name}") as file:
            return file.read().decode()

    def attributes(self, name: str):
        with Ext4Reader(self.region) as reader:
            return reader.attributes(f"{self.top}/{name}")

    def link(self, name: str) -> str:
        with Ext4Reader(self.region) as reader:
            return reader.read_link(f"{self.top}/{name}")


@pytest.fixture
def installed(cli, tmp_path):
    def install(*options, **files):
        disk = tmp_path / "disk.img"
        status, out, err = cli(*words(source(tmp_path, **files), *options, "--yes", "--format", "json", disk))
        assert status == 0, err
        assert "$6$" not in out + err
        return Etc(disk, json.loads(out)["image_id"]), out

    return install


def test_what_is_asked_for_is_in_the_deployments_etc(installed, cli, tmp_path):
    etc, _ = installed(
        "--hostname", "box.example.org", "--locale", "de_DE.UTF-8", "--timezone", "Europe/Berlin", "--keymap", "de",
        "--machine-id", MACHINE_ID, "--root-password-hash", HASH, "--user", f"anna:{YESCRYPT}:sudo,adm",
        "--user", "bob:!",
    )  # fmt: skip
    assert etc.read("hostname") == "box.example.org\n"
    assert etc.read("locale.conf") == etc.read("default/locale") == "LANG=de_DE.UTF-8\n"
    assert etc.read("timezone") == "Europe/Berlin\n"
    assert etc.link("localtime") == "../usr/share/zoneinfo/Europe/Berlin"
    assert etc.read("vconsole.conf") == "FONT=eurlatgr\nKEYMAP=de\n"
    assert etc.read("machine-id") == f"{MACHINE_ID}\n"
    assert etc.attributes("machine-id").mode == 0o444
    passwd = etc.read("passwd").splitlines()
    assert passwd[:2] == ["root:x:0:0:root:/root:/bin/bash", "old:x:1000:1000::/home/old:/bin/sh"]
    assert passwd[2:] == ["anna:x:1002:1002::/var/home/anna:/bin/bash", "bob:x:1003:1003::/var/home/bob:/bin/bash"]
    shadow = etc.read("shadow").splitlines()
    assert shadow == [
        f"root:{HASH}:1:0:99999:7:::", "old:!:1::::::", f"anna:{YESCRYPT}::0:99999:7:::", "bob:!::0:99999:7:::",
    ]  # fmt: skip
    attributes = etc.attributes("shadow")
    assert (attributes.mode, attributes.gid) == (0o640, 42), "as in the image"
    assert etc.read("group").splitlines() == [
        "root:x:0:", "sudo:x:27:old,anna", "adm:x:4:anna", "other:x:1001:", "anna:x:1002:", "bob:x:1003:",
    ]  # fmt: skip
    assert etc.read("gshadow").splitlines() == ["root:*::", "sudo:*::old,anna", "anna:!::", "bob:!::"]
    assert etc.read("tmpfiles.d/cfs-homes.conf").splitlines() == [
        "d /var/home 0755 root root -",
        "C /var/home/anna 0700 anna anna - /etc/skel",
        "C /var/home/bob 0700 bob bob - /etc/skel",
    ]
    assert cli("repo", "fsck", "--disk", tmp_path / "disk.img")[1] == "clean\n"


def test_the_plan_has_a_line_of_each_and_no_secret(cli, tmp_path):
    options = ("--hostname", "box", "--root-password-hash", HASH, "--user", f"anna:{HASH}:sudo")
    image = source(tmp_path)
    status, out, err = cli(*words(image, *options, "--dry-run", tmp_path / "d.img"))
    assert status == 0, err
    assert SALT not in out + err
    for line in (
        "  hostname            box    (--hostname)",
        "  root-password-hash  (not shown)    (--root-password-hash)",
        "  user                anna: number 1002, password (not shown), groups sudo, home /var/home/anna    (--user)",
    ):
        assert line in out
    for name in ("hostname", "shadow", "passwd", "group", "gshadow"):
        assert f"…/etc/{name}\n" in out
    status, out, err = cli(*words(image, *options, "--dry-run", "--format", "json", tmp_path / "d.img"))
    assert SALT not in out + err
    assert [line["setting"] for line in json.loads(out)["first_boot"]] == ["hostname", "root-password-hash", "user"]
    identity = json.loads(out)["image"]["image_id"]
    status, out, err = cli(
        *words(image, *options, "--show", f"ROOT:/state/deploy/{identity}/etc/shadow", tmp_path / "d.img")
    )
    assert status == 2
    assert "may hold a secret" in err
    assert SALT not in out + err


def test_the_identity_is_the_same_and_so_is_every_other_file(installed, cli, tmp_path):
    etc, out = installed("--hostname", "box")
    digest = cli("image", "digest", f"oci:{tmp_path}/oci:t", "--bootable")[1].strip()
    assert json.loads(out)["image_id"] == digest
    assert etc.read("passwd") == "root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:/bin/sh\n"


def test_hashes_come_from_files_too(installed, tmp_path):
    (tmp_path / "hash").write_text(f"{HASH}\n")
    etc, _ = installed("--root-password-hash", f"@{tmp_path}/hash", "--user", f"anna:@{tmp_path}/hash:adm")
    assert etc.read("shadow").count(HASH) == 2


def test_settings_files_say_it_for_many_machines(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("CFS_INSTALL_TIMEZONE", "Europe/Berlin")
    monkeypatch.setenv("CFS_INSTALL_HOSTNAME", "other")
    etc, _ = installed("--hostname", "box")
    assert etc.read("hostname") == "box\n"
    assert etc.read("timezone") == "Europe/Berlin\n"


def test_homes_are_where_the_image_has_them(installed):
    etc, _ = installed("--user", "anna:!", home=Link("var/home"))
    assert ":/home/anna:" in etc.read("passwd")
    assert etc.read("tmpfiles.d/cfs-homes.conf").splitlines() == [
        "d /var/home 0755 root root -",
        "C /var/home/anna 0700 anna anna - /etc/skel",
    ]


EARLY = {
    "a password": (("--root-password-hash", "hunter2"), "no password hash"),
    "an empty hash": (("--root-password-hash", ""), "no password hash"),
    "a hash that is cut off": (("--root-password-hash", HASH[:-1]), "a part of it is missing"),
    "what a shell left of a hash": (("--root-password-hash", "$6"), "a part of it is missing"),
    "MD5": (("--user", "anna:$1$abcdefgh$abcdefghijklmnopqrstuv"), "broken in hours"),
    "a user without a hash": (("--user", "anna"), "there is no password hash"),
    "a password of a user": (("--user", "anna:hunter2:sudo"), "no password hash"),
    "a colon too many": (("--user", "anna:!:sudo:hunter2"), "a colon too many"),
    "a name with capitals": (("--user", "Anna:!"), "can be no user's name"),
    "a group's name": (("--user", "anna:!:su do"), "can be no group's name"),
    "one user twice": (("--user", "anna:!", "--user", "anna:!:sudo"), "is there twice"),
    "a file that is not there": (("--root-password-hash", "@/nonexistent"), "cannot be read"),
    "a host's name": (("--hostname", "my box"), "no host's name"),
    "a long host's name": (("--hostname", "a" * 64 + ".b"), "no host's name"),
    "localhost": (("--hostname", "localhost"), "name for itself"),
    "a locale's name": (("--locale", "../x"), "no locale's name"),
    "a path as time zone": (("--timezone", "../../etc/shadow"), "no time zone's name"),
    "a path as keymap": (("--keymap", "a/b"), "no keymap's name"),
    "a short machine id": (("--machine-id", "abc"), "no machine id"),
    "a machine id of zeros": (("--machine-id", "0" * 32), "no machine id"),
}


@pytest.mark.parametrize(("options", "said"), EARLY.values(), ids=EARLY)
def test_what_can_be_nothing_is_refused_before_anything_is_fetched(options, said, cli, tmp_path):
    status, out, err = cli(*words("oci:/nonexistent:t", *options, tmp_path / "d.img"))
    assert status == 2
    assert said in err
    assert "hunter2" not in out + err
    assert not (tmp_path / "cache").exists()


LATE = {
    "a time zone": (("--timezone", "Mars/Olympus"), {}, "first-boot.timezone", "no time zone Mars/Olympus"),
    "a time zone that is no file": (("--timezone", "Europe"), {}, "first-boot.timezone", "no time zone Europe"),
    "a locale": (("--locale", "fr_FR.UTF-8"), {}, "first-boot.locale", "no locale fr_FR.UTF-8"),
    "a keymap": (("--keymap", "dvorak"), {}, "first-boot.keymap", "no keymap dvorak"),
    "a user who is there": (("--user", "old:!"), {}, "first-boot.user", "has a user old"),
    "a user whose name a group has": (("--user", "adm:!"), {}, "first-boot.user", "has a group adm"),
    "a user whom systemd-sysusers makes": (("--user", "daemonuser:!"), {}, "first-boot.user", "a user daemonuser"),
    "a group": (("--user", "anna:!:sudo,wheel"), {}, "first-boot.group", "no group wheel in /etc/group"),
    "no accounts": (("--user", "anna:!"), {"etc/passwd": None}, "first-boot.accounts", "does not keep accounts"),
    "no shadow file": (("--root-password-hash", HASH), {"etc/shadow": None}, "first-boot.accounts", "not keep"),
    "an /etc of its own": (
        ("--hostname", "box"),
        {"usr/lib/composefs/setup-root-conf.toml": File('[etc]\nmount = "transient"\n')},
        "first-boot.etc",
        "would not be seen",
    ),
    "an /etc that is of a transient root": (
        ("--hostname", "box"),
        {"usr/lib/composefs/setup-root-conf.toml": File("[root]\ntransient = true\n")},
        "first-boot.etc",
        "would not be seen",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "files", "code", "said"), LATE.values(), ids=LATE)
def test_what_the_image_cannot_follow_is_refused_before_anything_is_written(options, files, code, said, cli, tmp_path):
    status, _, err = cli(*words(source(tmp_path, **files), *options, tmp_path / "d.img"))
    assert status == 11
    assert f"[{code}]" in err
    assert said in err
    assert not (tmp_path / "d.img").exists()


def test_without_systemd_tmpfiles_somebody_must_make_homes(cli, tmp_path):
    image = source(tmp_path, **{"usr/bin/systemd-tmpfiles": None})
    status, _, err = cli(*words(image, "--user", "anna:!", "--dry-run", tmp_path / "d.img"))
    assert status == 0, err
    out = cli(*words(image, "--user", "anna:!", "--dry-run", tmp_path / "d.img"))[1]
    assert "nothing in the image makes /var/home/anna" in out


def test_debians_console_setup_gets_the_layout(installed):
    etc, _ = installed(
        "--keymap", "de",
        **{"usr/share/keymaps/i386/qwertz/de.map.gz": None, "usr/share/X11/xkb/symbols/de": File("x"),
           "etc/default/keyboard": File('XKBMODEL="pc105"\nXKBLAYOUT="us"\n'), "etc/vconsole.conf": None},
    )  # fmt: skip
    assert etc.read("default/keyboard") == 'XKBMODEL="pc105"\nXKBLAYOUT="de"\n'


@pytest.mark.skipif(
    not Path("/usr/share/i18n/locales/de_DE").exists(), reason="no sources of locales (package locales)"
)
def test_locales_are_found_in_an_archive_that_glibc_made(tmp_path):
    (tmp_path / "usr/lib/locale").mkdir(parents=True)
    subprocess.run(
        [shutil.which("localedef"), "--prefix", tmp_path, "-i", "de_DE", "-f", "UTF-8", "de_DE.UTF-8"], check=True
    )
    archive = RegularFile(0o644)
    archive.data = (tmp_path / "usr/lib/locale/locale-archive").read_bytes()
    archive.size = len(archive.data)
    root = Directory(0o755)
    folder = root
    for name in (b"usr", b"lib", b"locale"):
        folder.entries[name] = Directory(0o755)
        folder = folder.entries[name]
    folder.entries[b"locale-archive"] = archive
    image = ImageReader(root, lambda _: pytest.fail("all content is inline"))

    def found(name):
        settings = Settings().with_layer(options_layer({"install.locale": name}))
        return [each.code for each in plan_first_boot(settings, FirstBootRequest(), image, "/etc").findings]

    assert found("de_DE.UTF-8") == []
    assert found("de_AT.UTF-8") == ["first-boot.locale"]
