"""The probe: a fixed pretrained network, its checked weights, and the filters that are measured.

A filter is an output channel of a convolution's weight, or an output row of a linear layer's
(Achille et al., "Task2Vec", ICCV 2019, section 3.1). Biases, normalisation scales and the
pretraining classifier do not count. The network stays in eval mode: batch statistics never leak.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from app.catalogue import ProbeCard
from app.embedding.folding import fold_batch_norms
from app.embedding.image import PREPROCESSING
from app.embedding.pretrained import pretrained
from app.embedding.responses import Observer, Stage, stages_of
from app.embedding.tf32 import tf32
from app.embedding.vector import space_digest
from app.errors import InvalidRequest

Pixels = npt.NDArray[np.uint8]

BATCH_SIZE = 16
"""Images that run together, and the least number that ever does (see `filled`)."""
MeasuredModule = nn.Conv2d | nn.Linear


@dataclass(frozen=True, slots=True)
class FilterLayer:
    """A measured layer; its filters are entries `start:stop` of the embedding.

    `factors`  (C_out,): a filter's entry is its factor times the squared gradient of `module`'s
               weight: one over the filter's size, and what folding did to its weights
    """

    name: str
    module: MeasuredModule
    start: int
    stop: int
    factors: Tensor = field(repr=False)


@dataclass(frozen=True)
class Probe:
    """A loaded probe.

    `stages`            where its responses are looked at
    `n_features`        d, the width of the pooled features
    `activation_bytes`  what the outputs of all layers take for one image
    `digest`            of weights, layers, epsilon, input size and normalisation
    """

    card: ProbeCard
    network: nn.Module
    device: torch.device
    layers: tuple[FilterLayer, ...]
    stages: tuple[Stage, ...]
    n_features: int
    activation_bytes: int
    digest: str
    dtype: torch.dtype
    _mean: Tensor = field(repr=False)
    _std: Tensor = field(repr=False)

    @property
    def dim(self) -> int:
        """D, the number of filters and the length of every embedding."""
        return self.layers[-1].stop

    @property
    def precision(self) -> str:
        """Of its passes: float32, bfloat16 or float64."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def space_id(self) -> str:
        return space_digest(self.digest, PREPROCESSING, [stage.name for stage in self.stages])

    @property
    def response_kinds(self) -> npt.NDArray[np.int64]:
        """(K,) for every response the number of its stage and statistic."""
        channels = [stage.channels for stage in self.stages for _statistic in range(2)]
        return np.repeat(np.arange(len(channels)), channels)

    def normalise(self, pixels: Pixels) -> Tensor:
        """(B, S, S, 3) uint8 RGB to the network's (B, 3, S, S) input on its device."""
        images = torch.tensor(pixels)
        if self.device.type == "cuda":  # the copy then goes on beside what the GPU computes
            images = images.pin_memory().to(self.device, non_blocking=True)
        images = images.permute(0, 3, 1, 2).to(self._mean.dtype) / 255
        normalised = ((images - self._mean) / self._std).to(self.dtype)
        return normalised.contiguous(memory_format=torch.channels_last)

    def features(self, pixels: Pixels) -> Tensor:
        """(B, S, S, 3) uint8 RGB to pooled features (B, d), without a graph."""
        return self.look(pixels)[0]

    def look(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """The same, and the responses (B, K) of the stages."""
        with torch.inference_mode(), tf32(False), Observer(self.stages) as observer:
            pooled: Tensor = self.network(self.normalise(filled(pixels)))
            responses = observer.responses()
        return pooled[: len(pixels)], responses[: len(pixels)]

    def warm_up(self) -> None:
        """One pass, so that the first task does not pay for allocations and kernel choice."""
        size = self.card.input_size
        self.features(np.zeros((BATCH_SIZE, size, size, 3), np.uint8))


def load_probe(card: ProbeCard, device: str = "auto", dtype: torch.dtype = torch.float32) -> Probe:
    """The card's network with its weights, checked, frozen and in eval mode.

    Raises Unavailable where the weights cannot be had, InvalidRequest where file, digests, shapes,
    device or layers do not fit the card.
    """
    target = choose_device(device)
    network = pretrained_network(card)
    network.eval().requires_grad_(False)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # layer inputs are read again after the pass
    layers = tuple(_filter_layers(network, card))
    digest = _digest(network, card, layers)
    _check_probe_digest(digest, card)
    wide = torch.promote_types(dtype, torch.float32)
    network.to(dtype=wide)
    scales = fold_batch_norms(
        network, torch.zeros(1, 3, card.input_size, card.input_size, dtype=wide)
    )
    network.to(device=target, dtype=dtype, memory_format=torch.channels_last)
    layers = tuple(_with_factors(layer, scales, target, wide) for layer in layers)
    n_features, activation_bytes = _check_passes(network, layers, card, target, dtype)
    shape = (1, 3, 1, 1)
    return Probe(
        card=card,
        network=network,
        device=target,
        layers=layers,
        stages=stages_of(network),
        n_features=n_features,
        activation_bytes=activation_bytes,
        digest=digest,
        dtype=dtype,
        _mean=torch.tensor(card.mean, dtype=wide, device=target).view(shape),
        _std=torch.tensor(card.std, dtype=wide, device=target).view(shape),
    )


def pretrained_network(card: ProbeCard) -> Any:
    """The card's network with its checked weights, as it was trained but without its classifier.

    Raises as `load_probe` does.
    """
    owner = f"probe {card.name}"
    network: Any = pretrained(card.network, card.weights, card.input_size, owner)
    network.reset_classifier(0)
    return network


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidRequest(
            "device-unavailable",
            f"The device {name!r} cannot be used: {reason}",
            "Use auto, cpu, or a CUDA device that this machine has, such as cuda:0.",
        ) from error
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device computes in it, else float32.

    The same set gives the same numbers on all machines in float32 alone. How far bfloat16 moves
    them is measured by `benchmarks/embedding_speed.py`.
    """
    if precision == "float32" or (precision == "auto" and not _computes_bfloat16(device)):
        return torch.float32
    if precision in {"bfloat16", "auto"}:
        return torch.bfloat16
    raise InvalidRequest(
        "unknown-precision",
        f"There is no precision {precision!r}.",
        "Use float32, bfloat16 or auto.",
    )


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))


def filled(pixels: Pixels) -> Pixels:
    """(B, S, S, 3) with blank images up to BATCH_SIZE.

    Kernels are chosen by a batch's shape and round differently in small ones. Where many positions
    of an image are alike, a background, say, one rounding can carry all of them over the threshold
    of a rectifier together. Full batches keep an image's numbers the same in whatever company.
    """
    missing = BATCH_SIZE - len(pixels)
    if missing <= 0:
        return pixels
    return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])


def _check_probe_digest(found: str, card: ProbeCard) -> None:
    if card.digest not in {None, found}:
        raise InvalidRequest(
            "probe-changed",
            f"The probe {card.name} came out with digest {found}, its card says {card.digest}.",
            "Get the weights that the card was written for, or make a new probe card for these.",
        )


def _filter_layers(network: nn.Module, card: ProbeCard) -> Iterator[FilterLayer]:
    start = 0
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in card.layers):
            continue
        if type(module) not in {nn.Conv2d, Conv2dSame, nn.Linear} or (
            isinstance(module, nn.Conv2d) and module.padding_mode != "zeros"
        ):
            raise InvalidRequest(
                "layer-unsupported",
                f"Layer {name} of {card.network} is a {type(module).__name__}, whose weight "
                "gradient is not that of a plain convolution or linear layer.",
                "Leave it out of `layers` in the card, or choose another network.",
            )
        stop = start + module.weight.shape[0]
        yield FilterLayer(name, module, start, stop, torch.empty(0))
        start = stop
    if start == 0:
        raise InvalidRequest(
            "no-layers",
            f"The patterns {list(card.layers)} match no layer of {card.network}.",
            "Widen `layers` in the card.",
        )


def _with_factors(
    layer: FilterLayer, scales: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> FilterLayer:
    size = layer.module.weight[0].numel()
    scale = scales.get(layer.name, torch.ones(layer.stop - layer.start, dtype=torch.float64))
    return replace(layer, factors=(scale.square() / size).to(device, dtype))


def _check_passes(
    network: nn.Module,
    layers: tuple[FilterLayer, ...],
    card: ProbeCard,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[int, int]:
    """The width d of the pooled features, and the bytes of an image's activations.

    Each measured layer must run exactly once in a pass, image by image: one whose weight is used
    elsewhere, or twice, or on windows of images, would be measured wrongly in silence.
    """
    outputs: dict[str, list[int]] = {layer.name: [] for layer in layers}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[name].append(len(output))

        return hook

    def weigh(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.nbytes)

    sizes: list[int] = []
    handles = [layer.module.register_forward_hook(note(layer.name)) for layer in layers]
    handles += [
        module.register_forward_hook(weigh)
        for module in network.modules()
        if not any(True for _ in module.children())
    ]
    images = torch.zeros(2, 3, card.input_size, card.input_size, device=device, dtype=dtype)
    with torch.inference_mode():
        features = network(images)
    for handle in handles:
        handle.remove()
    strange = [name for name, lengths in outputs.items() if lengths != [2]]
    if strange or features.ndim != 2:
        raise InvalidRequest(
            "network-unsupported",
            f"{card.network} does not run each measured layer once, image by image "
            f"({strange[:3]}), or gives no pooled features (shape {tuple(features.shape)}).",
            "Leave those layers out of `layers` in the card, or choose another network.",
        )
    return int(features.shape[1]), sum(sizes) // len(images)


def _digest(network: nn.Module, card: ProbeCard, layers: tuple[FilterLayer, ...]) -> str:
    """sha256 of everything of the probe that decides an embedding."""
    described = card.model_dump(
        include={"version", "network", "input_size", "mean", "std", "epsilon"}
    )
    described["layers"] = [[layer.name, layer.start, layer.stop] for layer in layers]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in network.state_dict().items():
        values = (
            tensor.detach().cpu().to(torch.float64 if tensor.is_floating_point() else tensor.dtype)
        )
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
