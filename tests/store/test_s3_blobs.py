from __future__ import annotations

import io
import os
import socket
import socketserver
import threading
from typing import Any

import boto3
import pytest

from app.errors import NotFound, Unavailable
from app.store import s3_blobs, s3_bucket
from app.store.blobs import UNAVAILABLE, open_blobs
from app.store.s3_blobs import S3Blobs
from tests.engines import unused

PART_BYTES = 5 * 2**20  # S3 takes no smaller ones
YEAR = 365 * 86_400.0  # moto says of every upload that it began in 2010
DATA = os.urandom(2 * PART_BYTES + 7)


class Bucket:
    """A place in the bucket as S3 itself tells of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name, _, self.prefix = url.removeprefix("s3://").partition("/")
        self.client = boto3.client("s3")

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix)
        return [entry["Key"] for entry in found.get("Contents", ())]

    def unfinished(self) -> list[Any]:
        found = self.client.list_multipart_uploads(Bucket=self.name, Prefix=self.prefix)
        return list(found.get("Uploads", ()))


@pytest.fixture
def bucket(s3: str) -> Bucket:
    return Bucket(unused(s3))


@pytest.fixture
def blobs(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    monkeypatch.setattr(s3_blobs._PARTS, "multipart_threshold", PART_BYTES)
    monkeypatch.setattr(s3_blobs._PARTS, "multipart_chunksize", PART_BYTES)
    opened = open_blobs(bucket.url)
    assert isinstance(opened, S3Blobs)
    return opened


def test_a_blob_of_several_parts_is_one_object_under_the_prefix(
    blobs: S3Blobs, bucket: Bucket
) -> None:
    blob = blobs.put(io.BytesIO(DATA))
    assert bucket.keys() == [f"{bucket.prefix}/{blob.sha256[:2]}/{blob.sha256}"]
    found = bucket.client.head_object(Bucket=bucket.name, Key=bucket.keys()[0])
    assert found["ETag"].endswith('-3"')  # as S3 marks what came in three parts
    with blobs.open(blob.sha256) as stream:
        assert stream.read() == DATA


def test_bytes_that_are_there_are_not_sent_again(
    blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = blobs.put(io.BytesIO(DATA))
    monkeypatch.setattr(blobs._bucket.client, "upload_fileobj", None)
    assert blobs.put(io.BytesIO(DATA)) == blob


def test_a_stream_that_breaks_off_between_parts_leaves_no_upload(
    blobs: S3Blobs, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shrunk(io.BytesIO):
        """Another's hand in the file: it breaks when it is read for the second time."""

        rewound = False

        def seek(self, at: int, whence: int = 0, /) -> int:
            self.rewound = True
            return super().seek(at, whence)

        def read(self, size: int | None = -1, /) -> bytes:
            if self.rewound and self.tell() > PART_BYTES:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output"):
        blobs.put(Shrunk(DATA))
    assert (bucket.keys(), bucket.unfinished()) == ([], [])


def test_what_a_killed_upload_leaves_is_no_blob_and_is_swept(
    blobs: S3Blobs, bucket: Bucket
) -> None:
    kept = blobs.put(io.BytesIO(b"kept"))
    key = f"{bucket.prefix}/ab/{'ab' * 32}"
    torn = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    bucket.client.upload_part(
        Bucket=bucket.name, Key=key, UploadId=torn["UploadId"], PartNumber=1, Body=b"half"
    )
    assert (blobs.stored(), blobs.size_bytes("ab" * 32)) == ([kept.sha256], None)
    with pytest.raises(NotFound):
        blobs.open("ab" * 32)
    assert blobs.sweep(older_than_seconds=30 * YEAR) == 0
    assert len(bucket.unfinished()) == 1
    assert blobs.sweep(older_than_seconds=YEAR) == 1
    assert bucket.unfinished() == []
    assert blobs.stored() == [kept.sha256]


def test_what_else_lies_in_the_bucket_is_nobodys_blob(blobs: S3Blobs, bucket: Bucket) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/notes.txt", Body=b"mine")
    elsewhere = open_blobs(f"{bucket.url}-too")
    elsewhere.put(io.BytesIO(b"theirs"))
    assert blobs.stored() == []


def test_an_open_blob_needs_the_store_no_more(blobs: S3Blobs) -> None:
    blob = blobs.put(io.BytesIO(DATA))
    with blobs.open(blob.sha256) as stream:
        blobs.delete(blob.sha256)
        stream.seek(-7, os.SEEK_END)
        assert stream.read() == DATA[-7:]


def test_a_store_that_refuses_is_told_with_its_code(s3: str, caplog: Any) -> None:
    blobs = open_blobs("s3://nobody-made-this-bucket/tasks")
    with pytest.raises(Unavailable, match="refused: NoSuchBucket") as told:
        blobs.put(io.BytesIO(b"bytes"))
    assert told.value.code == UNAVAILABLE
    assert "nobody-made-this-bucket" in caplog.text


def test_a_store_that_cannot_be_reached_is_told_and_no_address_of_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    blobs = open_blobs(bucket.url)
    for ask in (
        lambda: blobs.put(io.BytesIO(b"bytes")),
        lambda: blobs.open("ab" * 32),
        lambda: blobs.size_bytes("ab" * 32),
        lambda: blobs.delete("ab" * 32),
        lambda: blobs.stored(),
        lambda: blobs.sweep(0),
    ):
        with pytest.raises(Unavailable, match="did not answer in time") as told:
            ask()
        assert told.value.code == UNAVAILABLE
        assert str(port) not in str(told.value.problem())


def test_an_answer_that_breaks_off_in_its_head_is_none(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Torn(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(2**16)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConte")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Torn) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(Unavailable, match="did not answer in time"):
            open_blobs(bucket.url).size_bytes("ab" * 32)
        server.shutdown()


def test_a_store_that_does_not_answer_is_left_in_time(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = s3_bucket.PATIENCE.merge(
        s3_bucket.Config(read_timeout=0.2, retries={"total_max_attempts": 1})
    )
    monkeypatch.setattr(s3_bucket, "PATIENCE", patient)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(Unavailable, match="did not answer in time"):
            open_blobs(bucket.url).open("ab" * 32)
