"""Words and addresses of others: what is taken out, and what stays."""

from __future__ import annotations

import pytest

from cfs_core.plugin import clean_address, clean_text, printable, without_secrets

SECRET = "hunter2-s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host/path",
        f"https://{SECRET}@host/path",
        f"GET https://host/path?X-Amz-Signature={SECRET}&y=1 failed",
        f"<https://host/?sig={SECRET}>",
        f"https://host/#access_token={SECRET}",
        f"Max retries exceeded with url: /bucket?X-Amz-Signature={SECRET} (Caused by",
        f"/path?token={SECRET}&x=y",
        f"Authorization: Bearer {SECRET}",
        f"password={SECRET}",
        f'{{"password": "{SECRET} and more", "x": 1}}',
        f'{{"Secret":"{SECRET}"}}',
        f"registry-token: {SECRET}",
        f"API_KEY = {SECRET}",
    ],
)
def test_secrets_are_taken_out(text):
    assert SECRET not in without_secrets(text)
    assert "[redacted]" in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "oci:./debian:latest",
        "docker://localhost:5000/debian@sha256:abc",
        "log in with podman login quay.io, or name a file with --authfile",
        "https://host:5000/v2/name/manifests/tag",
        "the key of /etc/containers/certs.d/host is missing",
        "root=UUID=1234 console=ttyS0,115200 quiet",
        "use the setting repo.trust = any (CFS_REPO_TRUST=any)",
    ],
)
def test_the_rest_stays(text):
    assert without_secrets(text) == text


def test_known_secrets_go_wherever_they_stand():
    assert without_secrets(f"bad login alice:{SECRET}", [SECRET, f"alice:{SECRET}", "", "ab"]) == "bad login [redacted]"
    assert clean_text(f"abc {SECRET}", secrets=["ab", SECRET]) == "abc [redacted]", "what is short garbles, and tells"


def test_one_printable_line_of_bounded_length():
    assert clean_text("a\x1b[31m\nb\u202ec\0") == "a [31m b c"
    assert len(clean_text("x" * 5000)) == 200


def test_addresses():
    assert clean_address(f"https://a:{SECRET}@host:1/p?{SECRET}#{SECRET}") == "https://host:1/p"
    assert clean_address("/token") == "/token"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä 猫 name", "plain ä 猫 name"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x7f", "a\\x0db\\x7f"),
        ("abc\u202etxt.exe", "abc\\u202etxt.exe"),
        ("bad\udcff", "bad\\xff"),
        ("non\u00a0breaking", "non\u00a0breaking"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_moves_a_cursor_is_escaped(text, expected):
    assert printable(text) == expected
