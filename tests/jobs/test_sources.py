from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import boto3
import httpx
import pytest

from app.errors import Forbidden, InvalidRequest, Refused, TooLarge, Unavailable
from app.jobs import sources
from app.jobs.sources import fetch_source
from app.store.blobs import Blob, BlobStore, LocalBlobs
from tests.engines import Engines

DATA = bytes(range(256)) * 20_000  # several chunks


def answer(*chunks: bytes, **headers: str) -> httpx.Response:
    """As a server sends it: piece by piece, with those headers and no others."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(200, content=iter(chunks), headers=named)


class Fetch:
    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.done: list[tuple[int, int]] = []

    def __call__(
        self,
        uri: str,
        prefixes: Sequence[str],
        *,
        max_bytes: int = 2**30,
        serve: Callable[[httpx.Request], httpx.Response] | None = None,
    ) -> Blob:
        return fetch_source(
            uri,
            prefixes=prefixes,
            blobs=self._blobs,
            max_bytes=max_bytes,
            on_bytes=lambda done, total: self.done.append((done, total)),
            transport=httpx.MockTransport(serve) if serve else None,
        )

    def stored(self, blob: Blob) -> bytes:
        with self._blobs.open(blob.sha256) as file:
            return file.read()


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    return Fetch(LocalBlobs(tmp_path / "blobs"))


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    directory = tmp_path / "sets"
    directory.mkdir()
    (directory / "glyphs.zip").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(b"not for you")
    return directory


def test_file_under_an_allowed_prefix_is_stored(fetch: Fetch, sets: Path) -> None:
    blob = fetch(f"file://{sets}/glyphs.zip", [f"file://{sets}/"])
    assert fetch.stored(blob) == DATA
    assert fetch.done[-1] == (len(DATA), len(DATA))


def test_file_name_may_be_percent_encoded(fetch: Fetch, sets: Path) -> None:
    (sets / "two words.zip").write_bytes(b"x")
    assert fetch(f"file://{sets}/two%20words.zip", [f"file://{sets}/"]).size_bytes == 1


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "-private/secret", "/link"])
def test_file_outside_the_prefix_is_forbidden(fetch: Fetch, sets: Path, path: str) -> None:
    (sets / "link").symlink_to(sets.parent / "secret")
    (sets.parent / "sets-private").mkdir()
    (sets.parent / "sets-private" / "secret").touch()
    with pytest.raises(Forbidden, match="outside the places"):
        fetch(f"file://{sets}{path}", [f"file://{sets}"])


def test_nothing_is_allowed_where_no_prefix_is_set(fetch: Fetch, sets: Path) -> None:
    with pytest.raises(Forbidden):
        fetch(f"file://{sets}/glyphs.zip", [])


def test_file_on_another_host_is_forbidden(fetch: Fetch) -> None:
    with pytest.raises(Forbidden):
        fetch("file://host/etc/passwd", ["file:///"])


def test_missing_file_directory_and_pipe_are_refused_at_once(fetch: Fetch, sets: Path) -> None:
    os.mkfifo(sets / "pipe")
    for name in ("absent.zip", "pipe", ""):
        with pytest.raises(Refused, match="could not be read"):
            fetch(f"file://{sets}/{name}", [f"file://{sets}/"])


def test_file_beyond_the_limit_is_too_large(fetch: Fetch, sets: Path) -> None:
    with pytest.raises(TooLarge):
        fetch(f"file://{sets}/glyphs.zip", [f"file://{sets}/"], max_bytes=len(DATA) - 1)


def test_https_under_an_allowed_prefix_is_stored(fetch: Fetch) -> None:
    blob = fetch(
        "https://host/sets/a.zip",
        ["https://host/sets/"],
        serve=lambda _: answer(DATA[:10], DATA[10:], content_length=str(len(DATA))),
    )
    assert fetch.stored(blob) == DATA


@pytest.mark.parametrize(
    "uri",
    [
        "https://host.evil/sets/a.zip",
        "https://host:444/sets/a.zip",
        "https://host/sets/../secret",
        "https://host/sets/%2e%2e/secret",
        "https://host/sets-private/a.zip",
        "https://host@evil/sets/a.zip",
        "https://user@host/sets/a.zip",
        "https://:secret@host/sets/a.zip",
        "http://host/sets/a.zip",
        "ftp://host/sets/a.zip",
        "a.zip",
    ],
)
def test_uri_outside_the_prefix_is_not_even_asked_for(fetch: Fetch, uri: str) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"asked for {request.url}")

    with pytest.raises((Forbidden, InvalidRequest)):
        fetch(uri, ["https://host/sets"], serve=serve)


def redirect(location: str) -> httpx.Response:
    return httpx.Response(302, headers={"Location": location})


def test_redirects_within_the_prefixes_are_followed(fetch: Fetch) -> None:
    answers = {
        "/sets/a.zip": redirect("b.zip"),
        "/sets/b.zip": redirect("https://other/c.zip"),
        "/c.zip": answer(DATA),
    }
    blob = fetch(
        "https://host/sets/a.zip",
        ["https://host/sets/", "https://other/"],
        serve=lambda request: answers[request.url.path],
    )
    assert fetch.stored(blob) == DATA


@pytest.mark.parametrize(
    "location",
    [
        "https://elsewhere/a.zip",
        "//elsewhere/a.zip",
        "http://host/sets/a.zip",
        "https://host:8443/sets/a.zip",
        "/secret",
        "../secret",
        "%2e%2e/secret",
        "https://user:word@host/sets/a.zip",
        "file:///etc/passwd",
        "ftp://host/sets/a.zip",
        "s3://bucket/a.zip",
        "gopher://127.0.0.1:25/",
        "https://[::1/",
        "https://h%6fst/sets/a.zip",
    ],
)
def test_a_redirect_out_of_the_prefixes_is_not_followed(fetch: Fetch, location: str) -> None:
    asked = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return redirect(location)

    with pytest.raises((Forbidden, InvalidRequest, Unavailable)):
        fetch("https://host/sets/a.zip", ["https://host/sets/"], serve=serve)
    assert asked == ["https://host/sets/a.zip"]


def test_a_server_that_redirects_for_ever_is_refused(fetch: Fetch) -> None:
    asked = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return redirect(f"/{len(asked)}")

    with pytest.raises(Refused, match="redirects more than"):
        fetch("https://host/a.zip", ["https://host/"], serve=serve)
    assert len(asked) == sources.MAX_REDIRECTS + 1


@pytest.mark.engines("servers")
def test_an_object_of_an_allowed_bucket_is_stored(fetch: Fetch, engines: Engines) -> None:
    bucket, _, folder = engines.blob_url.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    for name in ("two words.zip", "sub/a%20b.zip"):
        client.put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=DATA)
        blob = fetch(f"s3://{bucket}/{folder}/{name}", [f"s3://{bucket}/{folder}/"])
        assert fetch.stored(blob) == DATA
    with pytest.raises(TooLarge):
        fetch(f"s3://{bucket}/{folder}/{name}", [f"s3://{bucket}/"], max_bytes=len(DATA) - 1)
    with pytest.raises(Refused, match="NoSuchKey"):
        fetch(f"s3://{bucket}/{folder}/absent", [f"s3://{bucket}/"])
    for uri in (f"s3://other/{folder}/{name}", f"s3://{bucket}/{folder}/../a", f"s3://{bucket}x/a"):
        with pytest.raises(Forbidden):
            fetch(uri, [f"s3://{bucket}/{folder}/"])
    client.close()


def test_declared_size_beyond_the_limit_is_too_large_before_a_byte_is_read(fetch: Fetch) -> None:
    def serve(_: httpx.Request) -> httpx.Response:
        return answer(DATA, content_length=str(len(DATA)))

    with pytest.raises(TooLarge):
        fetch("https://host/a.zip", ["https://host/"], serve=serve, max_bytes=1000)
    assert fetch.done == []


def test_undeclared_size_beyond_the_limit_is_too_large_and_leaves_no_blob(
    fetch: Fetch, tmp_path: Path
) -> None:
    def serve(_: httpx.Request) -> httpx.Response:
        return answer(DATA, DATA)

    with pytest.raises(TooLarge):
        fetch("https://host/a.zip", ["https://host/"], serve=serve, max_bytes=len(DATA))
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("status", [500, 503])
def test_server_error_is_unavailable_not_the_users_fault(fetch: Fetch, status: int) -> None:
    with pytest.raises(Unavailable):
        fetch("https://host/a", ["https://host/"], serve=lambda _: httpx.Response(status))


def test_server_that_hangs_up_is_unavailable(fetch: Fetch) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow", request=request)

    with pytest.raises(Unavailable, match="ReadTimeout"):
        fetch("https://host/a", ["https://host/"], serve=serve)


@pytest.mark.parametrize("size", ["many", "-5", "1_0", "", "9" * 5000])
def test_declared_size_that_is_none_is_no_size(fetch: Fetch, size: str) -> None:
    blob = fetch(
        "https://host/a.zip",
        ["https://host/"],
        serve=lambda _: answer(DATA, content_length=size),
    )
    assert blob.size_bytes == len(DATA)
    assert fetch.done == [(len(DATA), 0)]


def test_server_that_trickles_is_left_after_a_while(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent = 0

    def trickle() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1000:
            sent += 1
            yield b"x"

    monkeypatch.setattr(sources, "MAX_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="more than"):
        fetch(
            "https://host/a.zip",
            ["https://host/"],
            serve=lambda _: httpx.Response(200, content=trickle()),
        )
    assert sent < 1000
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def test_answer_that_is_compressed_on_the_way_is_refused(fetch: Fetch) -> None:
    with pytest.raises(Refused, match="as gzip"):
        fetch(
            "https://host/a.zip",
            ["https://host/"],
            serve=lambda _: answer(DATA, content_encoding="gzip"),
        )
