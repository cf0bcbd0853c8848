"""The examples as outsiders have them: wheels beside cfs and the kit, their own tests, and `cfs` using them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import shutil
import tarfile
import threading
from xml.etree import ElementTree as ET

import pytest
from builders import bootable
from builders.outsiders import CHECKOUT, EXAMPLES, Outside, core_and_default_plugins
from builders.pe import pe_bytes

from cfs_testkit.builders.oci import File

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml"))


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """One environment with everything; nothing in it comes from the checkout but through wheels."""
    projects = [*core_and_default_plugins(), CHECKOUT / "plugins/testkit", *(EXAMPLES / name for name in NAMES)]
    return Outside.make(tmp_path_factory.mktemp("examples") / "outside", projects)


def test_the_three_examples_are_here():
    assert {"cfs-refind", "cfs-extlinux", "cfs-transport-http-tarball"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_passes_its_own_tests(outside, name, tmp_path):
    shutil.copytree(EXAMPLES / name / "tests", tmp_path / "tests")
    shutil.copy(EXAMPLES / name / "pyproject.toml", tmp_path)
    said = outside.run(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", "results.xml", cwd=tmp_path
    )
    assert said.returncode == 0, said.stdout[-4000:]
    (suite,) = ET.parse(tmp_path / "results.xml").getroot().iter("testsuite")
    assert int(suite.attrib["tests"]) - int(suite.attrib["skipped"]) > 50
    assert "DOES NOT CONFORM" not in said.stdout
    assert "conforms" in said.stdout


def test_nothing_comes_from_the_checkout(outside):
    where = outside.ok(
        "python", "-c", "import cfs_core, cfs_refind, cfs_testkit; print(cfs_core.__file__, cfs_refind.__file__)"
    )
    assert str(CHECKOUT) not in where


def test_cfs_lists_them_without_trouble(outside):
    listed = outside.ok("cfs", "plugins", "list")
    for provider in ("refind", "extlinux", "http-tarball"):
        assert f" {provider} " in listed
    outside.ok("cfs", "plugins", "doctor")


@pytest.mark.parametrize(
    ("loader", "architecture", "file", "expected"),
    [
        ("refind", "amd64", "usr/share/refind/refind/refind_x64.efi", "ESP:/EFI/BOOT/refind.conf"),
        ("extlinux", "arm64", None, "BOOT:/extlinux/extlinux.conf"),
    ],
)
def test_cfs_plans_a_disk_with_the_loader(outside, tmp_path, loader, architecture, file, expected):
    files = {file: File(pe_bytes([(".text", b"loader")]))} if file else {}
    source = bootable.layout(tmp_path / "oci", latest=bootable.image(architecture, **files))
    said = outside.ok(
        "cfs", "install", "to-disk", "--source-imgref", f"{source}:latest", "--architecture", architecture,
        "--bootloader", loader, "--dry-run", "--repo", tmp_path / "repo", tmp_path / "disk.img",
    )  # fmt: skip
    assert expected in said


def test_cfs_reads_an_image_over_http(outside, tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("usr")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
        info = tarfile.TarInfo("usr/file")
        info.size = 200
        tar.addfile(info, io.BytesIO(b"x" * 200))
    (tmp_path / "www").mkdir()
    (tmp_path / "www/r.tar").write_bytes(out.getvalue())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        digest = hashlib.sha256(out.getvalue()).hexdigest()
        url = f"http-tarball:http://127.0.0.1:{server.server_port}/r.tar@sha256:{digest}#arch=amd64"
        try:
            found = outside.ok("cfs", "image", "digest", url, cwd=tmp_path).strip()
        finally:
            server.shutdown()
            thread.join()
    assert len(found) == 128
