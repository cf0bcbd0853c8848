"""Every command has a man page that is up to date; completion works from the files that are shipped."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARE = ROOT / "cfs_core/shared"


@pytest.fixture(scope="module")
def pages():
    sys.path.insert(0, str(ROOT / "docs"))
    from generator.manpages import every_page

    return every_page()


def test_they_are_up_to_date(pages):
    done = subprocess.run(
        [sys.executable, "-m", "generator", "--check"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "docs"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(pages) >= 25


def test_a_changed_page_and_a_strange_one_are_found(pages):
    from generator.manpages import kept_pages

    assert kept_pages() == set(pages)
    assert all(text.startswith(".TH CFS") for text in pages.values())


def test_roff_reads_them_without_a_word(pages):
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-z", *sorted(pages)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_the_exit_statuses_are_in_the_first_page(pages):
    text = pages[SHARE / "man/man1/cfs.1"]
    assert re.search(r"\.B 7\nverification: ", text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("cfs im", "image"), ("cfs image dig", "digest"), ("cfs install to-disk --boot", "--bootloader")],
)
def test_completion_in_bash(words, expected):
    script = f"""
    set -e
    source {SHARE}/bash-completion/completions/cfs
    COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    _cfs_completion cfs
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False, env=environ)
    assert done.stderr.replace("bash: line 5: compopt: not currently executing completion function\n", "") == ""
    assert expected in done.stdout.split()


@pytest.mark.parametrize(
    ("shell", "file"), [("zsh", "zsh/site-functions/_cfs"), ("fish", "fish/vendor_completions.d/cfs.fish")]
)
def test_completion_in_other_shells_is_read(shell, file):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([program, "-n", SHARE / file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_they_are_in_the_wheels(tmp_path, pages):
    pytest.importorskip("hatchling", reason="the group docs is not installed")
    from generator.distributions import ours, shared

    folders = [folder for folder in ours().values() if any(shared(folder) in path.parents for path in pages)]
    assert len(folders) >= 3
    for folder in folders:
        subprocess.run(
            [
                sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index",
                "-w", tmp_path, folder,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
    names = {
        name.partition(".data/data/")[2]
        for wheel in tmp_path.glob("*.whl")
        for name in zipfile.ZipFile(wheel).namelist()
    }
    assert {f"share/man/man1/{path.name}" for path in pages} <= names
    assert {
        "share/bash-completion/completions/cfs",
        "share/zsh/site-functions/_cfs",
        "share/fish/vendor_completions.d/cfs.fish",
    } <= names
