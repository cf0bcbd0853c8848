"""`cfs seal`: one layer more, and an image that is sealed by its own digest."""

from __future__ import annotations

import json
import subprocess

import pytest
from builders import bootable
from builders.pe import pe_bytes
from builders.sealed import files_of, manifest_of

from cfs_core.model.content import BytesContent
from cfs_core.sealing import read_pe
from cfs_seal.authenticode import judge
from cfs_seal.signing import load_certificate
from cfs_testkit.builders.oci import Dir, File, Image, layer, write_layout

VERSION = bootable.KERNEL_VERSION
UKI = f"/boot/EFI/Linux/{VERSION}.efi"


def seal(cfs, source, out, *options):
    return json.loads(cfs.ok("seal", source, f"oci:{out}:sealed", *options, "--format", "json").stdout)


def test_a_sealed_image_is_one_layer_more_and_names_its_own_digest(cfs, source, key, tmp_path):
    reference = source()
    identity = cfs.ok("image", "digest", reference, "--bootable").stdout.strip()
    made = seal(cfs, reference, tmp_path / "out", *key.options, "--karg", "debug")
    assert made["image_id"] == identity
    assert made["uki"] == UKI
    assert made["kernel_arguments"] == ["quiet", "console=ttyS0", f"composefs={identity}", "rw", "debug"]
    assert cfs.ok("image", "digest", f"oci:{tmp_path}/out:sealed", "--bootable").stdout.strip() == identity
    before, after = manifest_of(tmp_path / "source", "latest"), manifest_of(tmp_path / "out", "sealed")
    assert after["layers"][:-1] == before["layers"]
    assert after["annotations"] == {"composefs.merged.bootable.erofs.v1.fsverity-sha512-12": identity}
    uki = files_of(tmp_path / "out", "sealed")[UKI[1:]]
    parts = read_pe(BytesContent(uki))
    assert parts.text(".uname") == VERSION
    assert "PRETTY_NAME" in parts.text(".osrel")
    assert parts.text(".sbat").startswith("sbat,1,")
    (verdict,) = judge(uki, [load_certificate(key.certificate)])
    assert verdict.trusted_by == "CN=owner"


def test_it_is_installed_as_a_sealed_image(cfs, source, key, tmp_path):
    made = seal(cfs, source(), tmp_path / "out", *key.options)
    found = cfs.plan(f"oci:{tmp_path}/out:sealed")
    assert found["image"]["image_id"] == made["image_id"]
    assert not [each for each in found["findings"] if each["severity"] == "error"]


def test_the_same_image_and_key_give_the_same_bytes(cfs, source, key, tmp_path):
    reference = source()
    one, two = (seal(cfs, reference, tmp_path / name, *key.options) for name in ("one", "two"))
    assert one == two
    blobs = [sorted(path.name for path in (tmp_path / name / "blobs/sha256").iterdir()) for name in ("one", "two")]
    assert blobs[0] == blobs[1]


def test_only_one_layer_is_pushed_where_the_others_are(cfs, source, key, tmp_path, registry_server):
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation="{registry_server.host}"\ninsecure=true\n')
    env = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
    reference = source()
    cfs.ok("image", "copy", reference, f"docker://{registry_server.host}/a/b:latest", env=env)
    before = len(registry_server.requests("/a/b/blobs/uploads/", "PUT"))
    cfs.ok("seal", reference, f"docker://{registry_server.host}/a/b:sealed", *key.options, env=env)
    after = len(registry_server.requests("/a/b/blobs/uploads/", "PUT"))
    assert after - before == 2, "one layer and the config"


@pytest.mark.parametrize(
    ("erofs", "algorithm"), [("v1", "sha512"), ("v2", "sha512"), ("v0", "sha256"), ("v1", "sha256")]
)
def test_every_form_can_be_sealed_and_is_installed(erofs, algorithm, cfs, source, key, tmp_path):
    made = seal(cfs, source(), tmp_path / "out", *key.options, "--erofs", erofs, "--hash", algorithm)
    assert cfs.plan(f"oci:{tmp_path}/out:sealed")["image"]["image_id"] == made["image_id"]


def test_the_directory_it_goes_into_keeps_its_attributes(cfs, base, key, tmp_path):
    odd = Dir(mode=0o700, uid=5, mtime="1600000000.25", xattrs={"user.a": b"b"})
    write_layout(tmp_path / "source", {"latest": base(boot=odd, **{"boot/EFI": Dir(mode=0o711)})})
    reference = f"oci:{tmp_path}/source:latest"
    identity = cfs.ok("image", "digest", reference, "--bootable").stdout.strip()
    seal(cfs, reference, tmp_path / "out", *key.options)
    assert cfs.ok("image", "digest", f"oci:{tmp_path}/out:sealed", "--bootable").stdout.strip() == identity


def test_an_image_without_boot_gets_one_that_counts(cfs, base, key, tmp_path):
    write_layout(tmp_path / "source", {"latest": base(boot=None)})
    made = seal(cfs, f"oci:{tmp_path}/source:latest", tmp_path / "out", *key.options)
    digest = cfs.ok("image", "digest", f"oci:{tmp_path}/out:sealed", "--bootable").stdout.strip()
    assert made["image_id"] == digest
    assert f"composefs={digest}" in made["kernel_arguments"]


def test_split_kernel_takes_it_out_of_the_tree_and_out_of_the_digest(cfs, source, key, tmp_path):
    reference = source()
    made = seal(cfs, reference, tmp_path / "out", *key.options, "--split-kernel")
    assert cfs.ok("image", "digest", f"oci:{tmp_path}/out:sealed", "--bootable").stdout.strip() == made["image_id"]
    assert made["image_id"] != cfs.ok("image", "digest", reference, "--bootable").stdout.strip()
    dump = cfs.ok("image", "dump", f"oci:{tmp_path}/out:sealed").stdout
    assert "vmlinuz" not in dump
    assert "initramfs.img" not in dump


def test_the_loader_is_signed_when_asked_and_counts(cfs, source, key, tmp_path):
    stub = File((bootable_stub()).read_bytes())
    reference = source(**{"usr/lib/systemd/boot/efi/systemd-bootx64.efi": stub})
    made = seal(cfs, reference, tmp_path / "out", *key.options, "--sign-loader")
    files = files_of(tmp_path / "out", "sealed")
    (verdict,) = judge(
        files["usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed"], [load_certificate(key.certificate)]
    )
    assert verdict.trusted_by == "CN=owner"
    assert cfs.ok("image", "digest", f"oci:{tmp_path}/out:sealed", "--bootable").stdout.strip() == made["image_id"]


def bootable_stub():
    from pathlib import Path

    return Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")


def test_a_sealed_image_is_not_sealed_again_but_on_demand(cfs, source, key, stranger, tmp_path):
    seal(cfs, source(), tmp_path / "out", *stranger.options, "--name", "old")
    sealed = f"oci:{tmp_path}/out:sealed"
    cfs.refused("seal", sealed, f"oci:{tmp_path}/again:x", *key.options, status=5, code="refused")
    made = seal(cfs, sealed, tmp_path / "again", *key.options, "--replace", "--karg", "second")
    names = cfs.ok("image", "dump", f"oci:{tmp_path}/again:sealed").stdout
    assert "old.efi" not in names
    assert "second" in made["kernel_arguments"]
    assert cfs.plan(f"oci:{tmp_path}/again:sealed")["image"]["image_id"] == made["image_id"]


@pytest.mark.parametrize(
    ("files", "options", "status", "code"),
    [
        ({"usr/lib/systemd/boot/efi/linuxx64.efi.stub": None}, (), 8, "seal.no-stub"),
        ({f"usr/lib/modules/{VERSION}/initramfs.img": None}, (), 11, "boot.initramfs"),
        (
            {f"usr/lib/modules/{VERSION}/initramfs.img": File(bootable.initramfs(capable=False))},
            (),
            11,
            "boot.initramfs",
        ),
        ({f"usr/lib/modules/{VERSION}/vmlinuz": None}, (), 8, "image.no-kernel"),
        (
            {f"usr/lib/modules/{VERSION}/vmlinuz": File(pe_bytes([(".text", b"x")], 0xAA64))},
            (),
            11,
            "image.architecture",
        ),
        ({"etc/fstab": File("UUID=1 / ext4 defaults 0 1\n")}, (), 11, "boot.fstab-root"),
        ({}, ("--karg", "root=/dev/sda2"), 11, "boot.karg-root"),
        ({}, ("--karg", "rootfstype=xfs"), 11, "boot.karg-root"),
        ({}, ("--karg", "systemd.volatile=overlay"), 11, "boot.karg-volatile"),
        ({}, ("--karg", "composefs=" + "ab" * 64), 11, "boot.karg-composefs"),
        ({}, ("--karg", "x" * 2100), 11, "boot.cmdline-too-long"),
        ({}, ("--name", "../up"), 2, "usage"),
    ],
)
def test_what_would_not_boot_is_refused_with_what_to_change(files, options, status, code, cfs, source, key, tmp_path):
    cfs.refused("seal", source(**files), f"oci:{tmp_path}/out:x", *key.options, *options, status=status, code=code)
    assert not (tmp_path / "out").exists()


def test_an_advice_for_a_filesystem_without_verity_is_told(cfs, source, key, tmp_path):
    advice = {"usr/lib/bootc/install/10.toml": File('[install.filesystem.root]\ntype = "xfs"\n')}
    found = seal(cfs, source(**advice), tmp_path / "out", *key.options)["findings"]
    assert [(each["severity"], each["code"]) for each in found] == [("warning", "disk.no-verity")]


def test_docker_images_become_oci_and_keep_their_blobs(cfs, base, key, tmp_path):
    made = base()
    docker = Image([layer(each.tar, docker=True) for each in made.layers], docker=True)
    write_layout(tmp_path / "source", {"latest": docker})
    seal(cfs, f"oci:{tmp_path}/source:latest", tmp_path / "out", *key.options)
    after = manifest_of(tmp_path / "out", "sealed")
    assert after["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert after["layers"][0] == docker.layers[0].descriptor | {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"
    }


# --- signing elsewhere ----------------------------------------------------------------------------------------------


def sign_elsewhere(folder, name, key):
    from cfs_core.system.command import HostCommands
    from cfs_seal.signing import load_signers, sign_file

    sign_file(
        folder / "unsigned" / name, load_signers([str(key.key)], [key.certificate]), HostCommands({}), folder / name
    )


def test_two_hosts_sign_what_is_handed_to_them(cfs, source, key, stranger, tmp_path):
    import shutil

    reference = source()
    cfs.ok("seal", reference, "--unsigned-to", tmp_path / "handover", "--addon", "german=rd.vconsole.keymap=de")
    names = sorted(path.name for path in (tmp_path / "handover/unsigned").iterdir())
    assert names == [f"{VERSION}.efi", "german.addon.efi"]
    for host, signer in (("a", key), ("b", stranger)):
        shutil.copytree(tmp_path / "handover", tmp_path / host)
        for name in names:
            sign_elsewhere(tmp_path / host, name, signer)
    shutil.rmtree(tmp_path / "handover")
    made = seal(cfs, reference, tmp_path / "out", "--signed-from", tmp_path / "a", "--signed-from", tmp_path / "b")
    assert made["signed_by"] == ["CN=owner", "CN=stranger"]
    files = files_of(tmp_path / "out", "sealed")
    for place in (UKI[1:], f"{UKI[1:]}.extra.d/german.addon.efi"):
        verdicts = judge(files[place], [load_certificate(stranger.certificate)])
        assert [verdict.trusted_by for verdict in verdicts] == [None, "CN=stranger"]
    digest = cfs.ok("image", "digest", f"oci:{tmp_path}/out:sealed", "--bootable").stdout.strip()
    assert digest == made["image_id"]


def test_what_comes_back_wrong_is_refused(cfs, source, key, tmp_path):
    reference, folder = source(), tmp_path / "handover"
    name = f"{VERSION}.efi"
    cfs.ok("seal", reference, "--unsigned-to", folder)
    again = ("seal", reference, f"oci:{tmp_path}/out:x", "--signed-from", folder)
    assert "sign unsigned" in cfs.refused(*again, status=2, code="usage")
    (folder / name).write_bytes((folder / "unsigned" / name).read_bytes())
    cfs.refused(*again, status=7, code="verification")
    sign_elsewhere(folder, name, key)
    signed = bytearray((folder / name).read_bytes())
    signed[0x4000] ^= 1
    (folder / name).write_bytes(signed)
    cfs.refused(*again, status=7, code="verification")
    sign_elsewhere(folder, name, key)
    other = ("seal", source(**{"etc/hostname": File("other\n")}), *again[2:])
    cfs.refused(*other, status=7, code="verification")
    assert not (tmp_path / "out").exists()


def test_sbverify_agrees(cfs, source, key, stranger, tmp_path):
    import shutil

    if not shutil.which("sbverify"):
        pytest.skip("sbverify is not installed; scripts/test-setup installs sbsigntool")
    seal(cfs, source(), tmp_path / "out", *key.options)
    (tmp_path / "uki.efi").write_bytes(files_of(tmp_path / "out", "sealed")[UKI[1:]])
    said = [
        subprocess.run(["sbverify", "--cert", each.certificate, tmp_path / "uki.efi"], check=False).returncode
        for each in (key, stranger)
    ]
    assert said == [0, 1]


@pytest.mark.judge
def test_composefs_rs_computes_what_is_in_the_uki(cfs, source, key, tmp_path):
    from composefs_builders.judges import CFSCTL

    if CFSCTL is None:
        pytest.skip("cfsctl is not installed (see tests/install-judges)")
    made = seal(cfs, source(), tmp_path / "out", *key.options, "--split-kernel")

    def cfsctl(*argv):
        done = subprocess.run([CFSCTL, *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    repository = tmp_path / "theirs"
    cfsctl("--repo", repository, "init", "--insecure", "--algorithm", "fsverity-sha512-12")
    cfsctl("--repo", repository, "oci", "pull", f"oci:{tmp_path}/out:sealed", "x")
    said = cfsctl("--repo", repository, "oci", "compute-id", "--bootable", "x")
    assert made["image_id"] in said
