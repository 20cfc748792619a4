"""Archives that clients put into a bucket themselves.

Each part is signed for with the SHA-256 that it must have, so the store takes no other bytes. The
whole lies under a name of its own until somebody has looked at it: under its digest it would be
taken for a blob by whoever brings the same.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import BinaryIO

from botocore.exceptions import ClientError

from app.store.blobs import INCOMING, UPLOAD_SECONDS, Address, Blob, key_of
from app.store.s3_bucket import NOT_THERE, Bucket, code_of

_CHECKSUM = "x-amz-checksum-sha256"


class S3Incoming:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def begin(self, name: str) -> str:
        with self._bucket.told():
            begun = self._bucket.client.create_multipart_upload(
                **self._bucket.at(INCOMING + name), ChecksumAlgorithm="SHA256"
            )
        return str(begun["UploadId"])

    def address(self, name: str, upload: str, number: int, sha256: str) -> Address:
        checksum = _base64(sha256)
        url = self._bucket.signer.generate_presigned_url(
            "upload_part",
            Params={
                **self._bucket.at(INCOMING + name),
                "UploadId": upload,
                "PartNumber": number,
                "ChecksumSHA256": checksum,
            },
            ExpiresIn=int(UPLOAD_SECONDS),
        )
        return Address(url, {_CHECKSUM: checksum})

    def held(self, name: str, upload: str) -> dict[int, str] | None:
        place = self._bucket.at(INCOMING + name)
        with self._bucket.told():
            try:
                pages = self._bucket.client.get_paginator("list_parts")
                return {
                    part["PartNumber"]: part["ETag"]
                    for page in pages.paginate(**place, UploadId=upload)
                    for part in page.get("Parts", ())
                }
            except ClientError as error:
                if code_of(error) in NOT_THERE:
                    return None
                raise

    def join(self, name: str, upload: str, held: dict[int, str], parts: Sequence[str]) -> None:
        joined = [
            {"PartNumber": number, "ETag": held[number], "ChecksumSHA256": _base64(sha256)}
            for number, sha256 in enumerate(parts, 1)
        ]
        with self._bucket.told():
            try:
                self._bucket.client.complete_multipart_upload(
                    **self._bucket.at(INCOMING + name),
                    UploadId=upload,
                    MultipartUpload={"Parts": joined},
                )
            except ClientError as error:
                if code_of(error) not in NOT_THERE:  # somebody else has joined them
                    raise

    def size_bytes(self, name: str) -> int | None:
        return self._bucket.size_bytes(INCOMING + name)

    def open(self, name: str) -> BinaryIO:
        with self._bucket.told(name):
            return self._bucket.spooled(INCOMING + name)

    def accept(self, name: str, blob: Blob) -> None:
        if self._bucket.size_bytes(key_of(blob.sha256)) == blob.size_bytes:
            return
        place = self._bucket.at(key_of(blob.sha256))
        with self._bucket.told(name):
            self._bucket.client.copy(
                self._bucket.at(INCOMING + name), **place, ExtraArgs={"ChecksumAlgorithm": "SHA256"}
            )

    def discard(self, name: str, upload: str) -> None:
        self._bucket.abort(INCOMING + name, upload)
        self._bucket.delete(INCOMING + name)


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
