from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import Forbidden, InvalidRequest
from app.sources import Source, allowed_directories, require_allowed

PREFIXES = ("file:///data/sets/", "https://example.org/sets")


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("file:///data/sets/two%20words.zip", ("file", None, "/data/sets/two words.zip")),
        ("file://localhost/data/sets/a.zip", ("file", None, "/data/sets/a.zip")),
        ("https://EXAMPLE.org/sets/a.zip", ("https", ("example.org", 443), "/sets/a.zip")),
        ("https://example.org:443/sets/b/a.zip", ("https", ("example.org", 443), "/sets/b/a.zip")),
    ],
)
def test_what_lies_under_a_prefix_is_allowed(uri: str, source: tuple[str, None, str]) -> None:
    assert require_allowed(uri, PREFIXES) == Source(uri, *source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "file:///data/sets/../secret",
        "file:///data/sets/%2e%2e/secret",
        "file:///data/sets/..%2fsecret",
        "file:///data/sets-of-others/a.zip",
        "file://host/data/sets/a.zip",
        "file:///sets/a.zip",
        "https://example.org.evil.test/sets/a.zip",
        "https://example.org:8443/sets/a.zip",
        "https://user@example.org/sets/a.zip",
        "https://:secret@example.org/sets/a.zip",
        "https://@example.org/sets/a.zip",
        "https://example.org@evil.test/sets/a.zip",
        "https://example.org/sets/..%5csecret",
        "https://example.org/data/sets/a.zip",
        "http://example.org/sets/a.zip",
        "https://xn--xample-9uf.org/sets/a.zip",
        "https://93.184.215.14/sets/a.zip",
        "https://0x5db8d70e/sets/a.zip",
        "https://[::ffff:127.0.0.1]/sets/a.zip",
        "s3://example.org/sets/a.zip",
    ],
)
def test_what_lies_elsewhere_is_forbidden(uri: str) -> None:
    with pytest.raises(Forbidden) as caught:
        require_allowed(uri, PREFIXES)
    assert caught.value.code == "source-not-allowed"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a.zip",
        "ftp://example.org/a.zip",
        "https:///sets/a.zip",
        "https://[::1/a.zip",
        "https://example.org:port/sets/a.zip",
        "file:///data/sets/a%00.zip",
        "https://example%2eorg/sets/a.zip",
        "https://ｅxample.org/sets/a.zip",
        "https://example。org/sets/a.zip",
        "https://example.org\\.evil.test/sets/a.zip",
        "https://exam\tple.org/sets/a.zip",
        "https://example.org /sets/a.zip",
        "https://example.org/sets/ü.zip",
        "https://example.org./sets/a.zip",
        "https://-example.org/sets/a.zip",
        "gopher://127.0.0.1:25/",
        "data:application/zip;base64,",
    ],
)
def test_what_is_no_source_is_told_apart(uri: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        require_allowed(uri, PREFIXES)
    assert caught.value.code == "source-scheme"


def test_prefixes_that_are_no_source_allow_nothing() -> None:
    prefixes = ("/data", "ftp://example.org/", "https://[::1/", "file://host/", "")
    assert allowed_directories(prefixes) == []
    with pytest.raises(Forbidden):
        require_allowed("file:///data/a.zip", prefixes)


def test_only_file_prefixes_are_directories() -> None:
    assert allowed_directories(PREFIXES) == [Path("/data/sets")]
