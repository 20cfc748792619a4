"""Datasets of the Hugging Face hub, by `hf://datasets/OWNER/NAME`, on the way they take to others.

Which hub and whose token: HF_ENDPOINT and HF_TOKEN, or the login of its own tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from app.errors import InvalidRequest, Unavailable
from app.inputs.files import FetchedFiles

SCHEME = "hf://"


_DATASET = re.compile(rf"{SCHEME}datasets/[^/@]+/(?P<name>[^/@]+)(@[^/]+)?(/.*)?")


def hub_files(uri: str) -> tuple[FetchedFiles, str]:
    """The files of a dataset, of a revision (`NAME@REVISION`) or of a folder in it; its name."""
    dataset = _DATASET.fullmatch(uri)
    if dataset is None:
        raise InvalidRequest(
            "hub-uri", f"{uri!r} names no dataset.", "Write it as hf://datasets/OWNER/NAME."
        )
    try:
        from huggingface_hub import HfFileSystem
    except ImportError as error:
        raise Unavailable(
            "extra-missing",
            "hf:// needs packages that are not installed (huggingface_hub).",
            "Run: pip install 'task2vec-service[hub]'",
        ) from error
    files = FetchedFiles(uri, HfFileSystem(), uri.removeprefix(SCHEME), partial(_told, uri))
    return files, dataset["name"]


@contextmanager
def _told(uri: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except FileNotFoundError as error:
        raise InvalidRequest(
            "hub-not-found",
            f"The hub shows no {uri}.",
            "Check its name; one that is private or gated needs a login (`hf auth login`) or "
            "HF_TOKEN.",
        ) from error
    except HfHubHTTPError as error:
        raise Unavailable(
            "hub-unavailable",
            f"The hub did not give {uri}: {str(error).splitlines()[0]}",
            "Try again later; one that is gated needs a login (`hf auth login`) or HF_TOKEN.",
        ) from error
    except Exception as error:  # of whichever HTTP library the hub's client is on
        raise Unavailable(
            "hub-unreachable",
            f"The hub of {uri} cannot be reached: {str(error).splitlines()[0]}.",
            "Go online, name another with HF_ENDPOINT, or give a folder with the dataset's files.",
        ) from error
