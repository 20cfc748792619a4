"""Manifests that name images elsewhere: over HTTP and on S3."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from app.errors import InvalidRequest, Unavailable
from app.inputs import fetch
from tests.images import png
from tests.inputs.reading import archive_of, files_of, labels_of, taken, written

COLOURS = [(i, 255 - i, 128) for i in range(40)]


class _Web(BaseHTTPRequestHandler):
    """`/7.png` is the seventh image; `/gone`, `/busy`, `/forbidden` and `/moved` answer so."""

    asked: Counter[str]

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        name = self.path.removeprefix("/").partition("?")[0]
        if name == "moved":
            self.send_response(302)
            self.send_header("Location", "/1.png")
            body = b""
        elif name == "busy" and self.asked[self.path] > 1:
            self.send_response(200)
            body = png("red")
        elif name.endswith(".png"):
            self.send_response(200)
            body = png(COLOURS[int(name.removesuffix(".png"))])
        else:
            self.send_response({"gone": 410, "busy": 503, "forbidden": 403, "down": 500}[name])
            body = b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    handler = type("_", (_Web,), {"asked": Counter()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def manifest(tmp_path: Path, *uris: str) -> Path:
    rows = "".join(f"{uri},{i % 2}\n" for i, uri in enumerate(uris))
    return written(tmp_path, {"set.csv": f"url,label\n{rows}"}) / "set.csv"


def test_images_of_the_web_come_in_the_manifests_order(tmp_path: Path, web: str) -> None:
    uris = [f"{web}/{i}.png?width=32" for i in range(40)]
    files = files_of(taken(manifest(tmp_path, *uris)))
    files.pop("labels.csv")
    assert list(files.values()) == [png(colour) for colour in COLOURS]


def test_what_is_gone_is_left_out_and_what_fails_in_passing_is_asked_again(
    tmp_path: Path, web: str
) -> None:
    found = taken(manifest(tmp_path, f"{web}/gone", f"{web}/busy", f"{web}/moved", f"{web}/2.png"))
    assert list(labels_of(found).values()) == ["1", "0", "1"]
    assert found.left_out == {"not to be had where the manifest says they are": 1}


@pytest.mark.parametrize("path", ["forbidden", "down"])
def test_no_set_is_made_while_an_image_may_still_come(tmp_path: Path, web: str, path: str) -> None:
    found = taken(manifest(tmp_path, f"{web}/1.png", f"{web}/{path}"))
    with pytest.raises(Unavailable, match=f"/{path} could not be fetched: it answered") as told:
        archive_of(found)
    assert "Check your credentials" in told.value.remedy


def test_images_of_a_bucket_are_read_with_the_users_own_keys(tmp_path: Path, s3: str) -> None:
    fetch._s3.cache_clear()
    bucket = urlsplit(s3).netloc
    store = boto3.client("s3")
    for number in range(3):
        store.put_object(Bucket=bucket, Key=f"a b/{number}.png", Body=png(COLOURS[number]))
    uris = [f"s3://{bucket}/a b/{number}.png" for number in (0, 2, 7)]
    found = taken(manifest(tmp_path, *uris))
    files = files_of(found)
    files.pop("labels.csv")
    assert list(files.values()) == [png(COLOURS[0]), png(COLOURS[2])]
    assert found.left_out == {"not to be had where the manifest says they are": 1}


def test_a_scheme_that_is_not_read_is_named(tmp_path: Path) -> None:
    found = taken(manifest(tmp_path, "gs://bucket/1.png"))
    with pytest.raises(InvalidRequest, match=r"gs://bucket/1\.png is not read here") as told:
        archive_of(found)
    assert "https://, http://, s3:// URIs" in told.value.remedy
