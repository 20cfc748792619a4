"""One image from where a manifest says it is, with the user's own credentials.

This runs where the user runs it, never in the service, which fetches nothing that a set names.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import httpx

from app.errors import InvalidRequest, Unavailable
from app.inputs.pictures import LeftOut

SCHEMES = ("https", "http", "s3")

_ATTEMPTS = 3
_PAUSE_SECONDS = 0.3
_TIMEOUT_SECONDS = 30
_GONE = "not to be had where the manifest says they are"
_NOT_THERE = (404, 410)


def is_uri(text: str) -> bool:
    return "://" in text


def fetch(uri: str) -> bytes:
    """Raises LeftOut where the answer is that there is no such file, Unavailable for any other
    failure: which images make the set must not hang on how the network was."""
    scheme = uri.partition("://")[0].lower()
    if scheme == "s3":
        return _from_s3(uri)
    if scheme in SCHEMES:
        return _from_web(uri)
    raise InvalidRequest(
        "scheme-unknown",
        f"{uri} is not read here.",
        f"Name files of this disk, or {', '.join(f'{each}://' for each in SCHEMES)} URIs.",
    )


def _from_web(uri: str) -> bytes:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            response = _web().get(uri)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise LeftOut(_GONE) from error
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
        else:
            if response.is_success:
                return response.content
            if response.status_code in _NOT_THERE:
                raise LeftOut(_GONE)
            why = f"it answered {response.status_code}"
        if attempt == _ATTEMPTS:
            raise _unavailable(uri, why)
        time.sleep(_PAUSE_SECONDS * attempt)
    raise AssertionError


def _from_s3(uri: str) -> bytes:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = uri.partition("://")[2].partition("/")
    try:
        found = _s3().get_object(Bucket=bucket, Key=key)
        return bytes(found["Body"].read())
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in _NOT_THERE:
            raise LeftOut(_GONE) from error
        raise _unavailable(uri, str(error)) from error
    except BotoCoreError as error:  # no credentials, nobody there
        raise _unavailable(uri, str(error)) from error


@cache
def _web() -> httpx.Client:
    return httpx.Client(follow_redirects=True, timeout=_TIMEOUT_SECONDS)


@cache
def _s3() -> Any:
    """Reads endpoint, region and keys where the tools of AWS look for them."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise Unavailable(
            "extra-missing",
            "s3:// needs packages that are not installed (boto3).",
            "Run: pip install 'task2vec-service[s3]'",
        ) from error
    patience = Config(retries={"mode": "standard", "total_max_attempts": _ATTEMPTS})
    return boto3.client("s3", config=patience)


def _unavailable(uri: str, why: str) -> Unavailable:
    return Unavailable(
        "image-unavailable",
        f"{uri} could not be fetched: {why.rstrip('.')}.",
        "Check your credentials and try again; nothing was kept. If it is gone, take its row out.",
    )
