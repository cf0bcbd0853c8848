"""Machines that start sealed images: from one to the next and back, what is refused, and addons of one machine."""

from __future__ import annotations

import json

import pytest
from builders.lifecycle_kit import Versions, copied, finalized, run, staged, upgraded, version
from builders.machines import digest_of, install_below
from builders.sealed import SHA256, X509, Owner, signature_list, signed_addon, with_signed, write_variables

from cfs_core.errors import CfsError, RefusedError, StateError, UsageError, VerificationError
from cfs_core.model.content import BytesContent
from cfs_core.sealing import read_pe
from cfs_seal.pe_signatures import digest


@pytest.fixture(scope="module")
def owner():
    return Owner.named("owner")


@pytest.fixture(scope="module")
def stranger():
    return Owner.named("stranger")


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    """Return a function that gives the identity of a version, each measured once."""
    folder, known = tmp_path_factory.mktemp("measured"), {}

    def measure(number):
        if number not in known:
            known[number] = digest_of(folder, version(number))
        return known[number]

    return measure


@pytest.fixture(scope="module")
def sealed(identity, owner):
    """Return a function that makes a sealed version; *addons* are command lines by name."""

    def make(number, *signers, cmdline="rw composefs={}", **addons):
        signers = signers or (owner,)
        made = {name: signed_addon(text, *signers) for name, text in addons.items()}
        return with_signed(version(number), cmdline.format(identity(number)), *signers, addons=made)

    return make


@pytest.fixture(scope="module")
def template(tmp_path_factory, sealed, owner):
    folder = tmp_path_factory.mktemp("sealed")
    versions = Versions(folder / "oci")
    versions.publish(sealed(1, de="keymap=de", us="keymap=us"))
    made = install_below(folder, versions.reference)
    write_variables(made.root / "sys/firmware/efi/efivars", db=[owner])
    return made


@pytest.fixture
def versions(template):
    return Versions(template.folder / "oci")


@pytest.fixture
def machine(template, versions, tmp_path, sealed):
    versions.publish(sealed(1, de="keymap=de", us="keymap=us"))
    return copied(template, tmp_path)


def reboot(machine):
    """Start what the loader would; what runs then has the command line of its UKI and addons."""
    booted = machine.reboot()
    words = [word.partition("  (")[0] for word in run(machine, "kargs", "list").output.splitlines()]
    (machine.root / "proc/cmdline").write_text(" ".join(words) + "\n")
    return booted


def next_words(machine):
    return json.loads(run(machine, "kargs", "list", "--format", "json").output)["next"]


def addons_on(machine):
    """Return the addons on the ESP: names by the start of the deployment's id."""
    found = {}
    for folder in (machine.root / "boot/EFI/Linux/bootc").glob("*.extra.d"):
        found[folder.name.removeprefix("bootc_composefs-")[:8]] = sorted(path.name for path in folder.iterdir())
    return found


def own_addon(tmp_path, name, text, *owners):
    path = tmp_path / f"{name}.addon.efi"
    path.write_bytes(signed_addon(text, *owners))
    return path


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_sealed_system_goes_to_the_next_and_back(machine, versions, sealed, identity):
    reboot(machine)
    versions.publish(sealed(2))
    plan = staged(machine, dry_run=True).plan
    assert plan["kernel_arguments"]["after"] == ("rw", f"composefs={identity(2)}")
    assert f"composefs={identity(1)}" in plan["kernel_arguments"]["before"]
    assert staged(machine).result == "staged"
    finalized(machine)
    assert reboot(machine) == identity(2)
    run(machine, "rollback")
    assert reboot(machine) == identity(1)
    assert run(machine, "fsck").output.startswith("clean")


def test_an_image_with_the_wrong_digest_is_refused_when_it_is_staged(machine, versions, sealed, identity):
    versions.publish(sealed(2, cmdline="rw composefs=" + "ab" * 64))
    with pytest.raises(VerificationError) as caught:
        staged(machine)
    assert caught.value.facts["found"] == identity(2)
    assert machine.read().running.staged is None
    assert machine.reboot() == identity(1)


def test_an_image_that_is_not_sealed_is_refused_unless_that_is_said(machine, versions, sealed, identity):
    versions.publish(version(2))
    with pytest.raises(RefusedError) as caught:
        staged(machine)
    assert (caught.value.code, "--allow-weaker" in caught.value.hint) == ("state.weaker", True)
    assert upgraded(machine, allow_weaker=True) == identity(2)
    versions.publish(sealed(3))
    assert upgraded(machine) == identity(3), "and from there to a sealed one nothing is weaker"


def test_verity_may_not_become_optional_but_may_stay_so(machine, versions, sealed, identity):
    versions.publish(sealed(2, cmdline="rw composefs=?{}"))
    with pytest.raises(RefusedError, match="sealed"):
        staged(machine)
    staged(machine, allow_weaker=True)
    finalized(machine)
    reboot(machine)
    versions.publish(sealed(3, cmdline="rw composefs=?{}"))
    assert upgraded(machine) == identity(3)


def test_an_image_of_another_erofs_form_is_taken(machine, versions, owner, tmp_path):
    """A default form that changed has broken upgrades of sealed systems elsewhere (bootc#2334)."""
    for number, form in enumerate(("v2", "v1"), 2):
        image = version(number)
        wanted = run_digest(tmp_path, image, form)
        versions.publish(with_signed(image, f"rw composefs={wanted}", owner))
        assert staged(machine).result == "staged"
        finalized(machine)
        assert reboot(machine) == wanted
    assert run(machine, "fsck").output.startswith("clean")


def run_digest(folder, image, form):
    """Return the identity of an image in another EROFS form."""
    import subprocess
    import sys

    from cfs_testkit.builders.oci import write_layout

    where = folder / f"form-{form}-{image.digest[7:15]}"
    write_layout(where, {"x": image})
    argv = [sys.executable, "-m", "cfs_core", "image", "digest", "--bootable", "--erofs", form, f"oci:{where}:x"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_image_of_another_hash_is_refused_with_both_hashes_in_the_message(machine, versions, sealed):
    versions.publish(sealed(2, cmdline="rw composefs=" + "cd" * 32))
    with pytest.raises(CfsError) as caught:
        staged(machine)
    assert caught.value.message == "the UKI of this image is sealed with sha256, and the repository keeps sha512"
    assert caught.value.hint


# --- what the firmware would not start --------------------------------------------------------------------------------


def test_an_image_that_the_firmware_would_not_start_is_refused(machine, versions, sealed, stranger, owner):
    versions.publish(sealed(2, stranger))
    with pytest.raises(CfsError) as caught:
        staged(machine)
    assert caught.value.code == "boot.untrusted"
    assert "signed by CN=stranger" in caught.value.message
    assert machine.read().running.staged is None
    efivars = machine.root / "sys/firmware/efi/efivars"
    write_variables(efivars, db=[owner], secure=False)
    assert staged(machine, dry_run=True).result == "plan", "firmware that enforces nothing starts anything"
    write_variables(efivars, db=[owner, stranger])
    assert staged(machine).result == "staged"


@pytest.mark.parametrize("what", ["unsigned", "changed", "revoked key", "revoked file"])
def test_unsigned_changed_and_revoked_images_are_refused(what, machine, versions, sealed, owner, identity):
    image = sealed(2)
    uki = next(data for data in _ukis(image))
    code = "boot.untrusted"
    if what == "revoked key":
        write_variables(machine.root / "sys/firmware/efi/efivars", db=[owner], dbx=signature_list(X509, owner.der))
        code = "boot.revoked"
    elif what == "revoked file":
        revoked = signature_list(SHA256, digest(uki))
        write_variables(machine.root / "sys/firmware/efi/efivars", db=[owner], dbx=revoked)
        code = "boot.revoked"
    else:
        own = () if what == "unsigned" else (owner,)
        image = with_signed(version(2), f"rw composefs={identity(2)}", *own)
        if what == "changed":
            image = _with_uki(version(2), uki.replace(b"rw composefs", b"ro composefs", 1))
    versions.publish(image)
    with pytest.raises(CfsError) as caught:
        staged(machine)
    assert caught.value.code == code


def _ukis(image):
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(image.layers[-1].tar)) as tar:
        for info in tar:
            if info.name.endswith("test.efi"):
                yield tar.extractfile(info).read()


def _with_uki(base, data):
    from cfs_testkit.builders.oci import File, Image, layer

    return Image([*base.layers, layer({"boot/EFI/Linux/test.efi": File(data)}, parents=True)], labels=base.labels)


def test_a_file_may_be_trusted_by_its_hash_and_what_shim_trusts_is_not_known(machine, versions, sealed, stranger):
    image = sealed(2, stranger)
    versions.publish(image)
    efivars = machine.root / "sys/firmware/efi/efivars"
    (efivars / "MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23").write_bytes(b"\6\0\0\0x")
    findings = staged(machine, dry_run=True).plan["findings"]
    assert [each.severity for each in findings if each.code == "boot.untrusted"] == ["warning"]
    (uki,) = _ukis(image)
    db = signature_list(SHA256, digest(uki))
    (efivars / "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f").write_bytes(b"\6\0\0\0" + db)
    assert "boot.untrusted" not in {each.code for each in staged(machine, dry_run=True).plan["findings"]}


# --- addons of one machine --------------------------------------------------------------------------------------------


def test_an_addon_of_the_owner_is_added_shown_and_taken_away(machine, owner, tmp_path):
    reboot(machine)
    path = own_addon(tmp_path, "disk", "rd.luks.uuid=1", owner)
    before = next_words(machine)
    run(machine, "kargs", "add", "--uki-addon", path, "--dry-run")
    assert next_words(machine) == before
    said = run(machine, "kargs", "add", "--uki-addon", path).output
    assert "+ rd.luks.uuid=1" in said
    assert "rd.luks.uuid=1  (addon disk.addon.efi, from the next start on)" in run(machine, "kargs", "list").output
    reboot(machine)
    assert "rd.luks.uuid=1  (addon disk.addon.efi)" in run(machine, "kargs", "list").output
    assert run(machine, "kargs", "add", "--uki-addon", path).output.startswith("nothing")
    run(machine, "kargs", "delete", "--uki-addon", "disk")
    assert next_words(machine) == before
    assert run(machine, "fsck").output.startswith("clean")


def test_addons_of_the_image_are_chosen_by_name_and_the_choice_is_carried_on(machine, versions, sealed, identity):
    reboot(machine)
    run(machine, "kargs", "delete", "--uki-addon", "us")
    assert next_words(machine)[2:] == ["keymap=de"]
    reboot(machine)
    versions.publish(sealed(2, de="keymap=de2", us="keymap=us", fr="keymap=fr"))
    staged(machine)
    finalized(machine)
    assert reboot(machine) == identity(2)
    assert next_words(machine)[2:] == ["keymap=de2"], "the image's own addon follows the image"
    run(machine, "kargs", "add", "--uki-addon", "fr")
    assert next_words(machine)[2:] == ["keymap=de2", "keymap=fr"]


def test_addons_are_carried_on_and_belong_to_their_deployment(machine, versions, sealed, owner, identity, tmp_path):
    reboot(machine)
    run(machine, "kargs", "add", "--uki-addon", own_addon(tmp_path, "disk", "mine=1", owner))
    reboot(machine)
    versions.publish(sealed(2, de="keymap=de"))
    plan = staged(machine, dry_run=True).plan
    assert plan["kernel_arguments"]["after"] == ("rw", f"composefs={identity(2)}", "keymap=de", "mine=1")
    staged(machine)
    finalized(machine)
    reboot(machine)
    assert next_words(machine)[2:] == ["keymap=de", "mine=1"]
    run(machine, "kargs", "delete", "--uki-addon", "disk")
    reboot(machine)
    assert next_words(machine)[2:] == ["keymap=de"]
    run(machine, "rollback")
    assert reboot(machine) == identity(1)
    assert next_words(machine)[2:] == ["keymap=de", "mine=1", "keymap=us"], "as it was, sorted by name"
    assert addons_on(machine)[identity(1)[:8]] == ["de.addon.efi", "disk.addon.efi", "us.addon.efi"]
    run(machine, "rollback")
    reboot(machine)
    run(machine, "deployments", "remove", identity(1)[:12])
    run(machine, "gc")
    assert addons_on(machine) == {identity(2)[:8]: ["de.addon.efi"]}


def test_what_is_staged_can_get_an_addon_too(machine, versions, sealed, owner, identity, tmp_path):
    reboot(machine)
    versions.publish(sealed(2, de="keymap=de"))
    staged(machine)
    run(machine, "kargs", "add", "--uki-addon", own_addon(tmp_path, "disk", "mine=1", owner))
    run(machine, "kargs", "delete", "--uki-addon", "de")
    assert next_words(machine)[1] == f"composefs={identity(1)}", "what runs is left alone"
    finalized(machine)
    assert reboot(machine) == identity(2)
    assert next_words(machine)[2:] == ["mine=1"]


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (("add", "x=1"), StateError, "boot.karg-sealed"),
        (("add",), UsageError, "usage"),
        (("add", "x=1", "--uki-addon", "de"), UsageError, "usage"),
        (("add", "--uki-addon", "absent"), UsageError, "usage"),
        (("add", "--uki-addon", "./absent"), UsageError, "usage"),
        (("delete", "--uki-addon", "absent"), StateError, "boot.karg-not-found"),
    ],
)
def test_what_cannot_be_changed_is_refused(words, kind, code, machine):
    with pytest.raises(kind) as caught:
        run(machine, "kargs", *words)
    assert caught.value.code == code
    assert caught.value.hint


def test_an_addon_that_the_firmware_would_not_read_is_refused(machine, stranger, owner, tmp_path):
    with pytest.raises(CfsError) as caught:
        run(machine, "kargs", "add", "--uki-addon", own_addon(tmp_path, "disk", "mine=1", stranger))
    assert caught.value.code == "boot.untrusted"
    image = own_addon(tmp_path, "image", "composefs=" + "ab" * 64, owner)
    with pytest.raises(UsageError, match="composefs"):
        run(machine, "kargs", "add", "--uki-addon", image)
    assert addons_on(machine) == addons_on(machine)


def test_a_system_that_is_not_sealed_has_no_addons(machine, versions, owner, tmp_path):
    versions.publish(version(2))
    upgraded(machine, allow_weaker=True)
    with pytest.raises(StateError, match="no unified kernel image"):
        run(machine, "kargs", "add", "--uki-addon", own_addon(tmp_path, "disk", "mine=1", owner))


def test_addons_count_in_the_room_that_is_needed(machine, versions, sealed):
    rooms = []
    for addons in ({}, {"de": "x=" + "y" * 200_000}):
        versions.publish(sealed(2, **addons))
        rooms.append(sum(room.needed for room in staged(machine, dry_run=True).plan["room"]))
    assert rooms[1] - rooms[0] >= 200_000


def test_the_uki_is_what_is_read(machine):
    """The helpers above make what ukify makes: sections that core reads."""
    (uki,) = (machine.root / "boot/EFI/Linux/bootc").glob("*.efi")
    pe = read_pe(BytesContent(uki.read_bytes()))
    assert pe.signed
    assert len(pe.signatures()) == 1
