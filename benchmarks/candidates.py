"""Counts what a candidate costs per image and writes it into its card.

    python -m benchmarks.candidates            recount every card and say what differs
    python -m benchmarks.candidates --write    and write the counted fields, leaving all others

Nothing is computed: the network runs on fake tensors, which know shapes and kernels but hold no
numbers. All counts but the parameters' are slopes between two batch sizes, so that whatever happens
once per batch (reading weights, writing their gradients) drops out: the predictor adds that itself.
The classifier is left out too; its width depends on the task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import timm
import tomlkit
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from app.catalogue import CandidateCard, load_cards
from app.settings import shared_directory

FLOPS_PER_MULTIPLY_ADD = 2
SMALL_BATCH, LARGE_BATCH = 2, 3  # batch normalisation refuses a single value per channel


@dataclass(frozen=True, slots=True)
class Counts:
    """The counted fields of a CandidateCard, under the same names."""

    parameters: int
    head_features: int
    multiply_adds: int
    training_multiply_adds: int
    forward_bytes: int
    training_bytes: int
    activation_bytes: int
    largest_operation_bytes: int
    forward_operations: int
    training_operations: int


@dataclass(frozen=True, slots=True)
class _Pass:
    flops: int
    bytes_moved: int
    bytes_saved: int
    largest_operation_bytes: int
    operations: int
    features: int


def count(network: str, input_size: int) -> Counts:
    """Counts of one timm network at one input size (pixels, square)."""
    model = _create(network, input_size)
    small, large = (_run(model, batch, input_size, train=False) for batch in _BATCHES)
    small_step, large_step = (_run(model, batch, input_size, train=True) for batch in _BATCHES)
    return Counts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        head_features=small.features,
        multiply_adds=(large.flops - small.flops) // FLOPS_PER_MULTIPLY_ADD,
        training_multiply_adds=(large_step.flops - small_step.flops) // FLOPS_PER_MULTIPLY_ADD,
        forward_bytes=large.bytes_moved - small.bytes_moved,
        training_bytes=large_step.bytes_moved - small_step.bytes_moved,
        activation_bytes=large_step.bytes_saved - small_step.bytes_saved,
        largest_operation_bytes=large.largest_operation_bytes - small.largest_operation_bytes,
        forward_operations=small.operations,
        training_operations=small_step.operations,
    )


_BATCHES = (SMALL_BATCH, LARGE_BATCH)


def _create(network: str, input_size: int) -> torch.nn.Module:
    published = timm.get_pretrained_cfg(network)
    fixed_size = published is not None and published.fixed_input_size
    size: dict[str, Any] = {"img_size": input_size} if fixed_size else {}
    model: torch.nn.Module = timm.create_model(network, pretrained=False, num_classes=0, **size)
    return model


def _run(model: torch.nn.Module, batch: int, input_size: int, *, train: bool) -> _Pass:
    model.train(train)
    traffic, flops = _Traffic(), FlopCounterMode(display=False, custom_mapping=_FLOP_FORMULAS)
    # Weights stay real: some networks read numbers off them while being built.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(train):
        images = torch.empty(batch, 3, input_size, input_size)
        with _saved_bytes() as saved, flops, traffic:
            features = model(images)
            if train:
                features.sum().backward()
        model.zero_grad(set_to_none=True)
    return _Pass(
        flops=flops.get_total_flops(),
        bytes_moved=traffic.total,
        bytes_saved=sum(saved.values()),
        largest_operation_bytes=traffic.largest,
        operations=traffic.operations,
        features=features.shape[-1],
    )


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes that operations read and write, each tensor once per operation; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = self.largest = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        if outputs and not _is_free(func._schema, inputs, outputs):
            moved = sum(inputs.values()) + sum(outputs.values())
            self.total += moved
            self.largest = max(self.largest, moved)
            self.operations += 1
        return result


def _is_free(schema: Any, inputs: dict[int, int], outputs: dict[int, int]) -> bool:
    """Views and bare allocations. Some views (_unsafe_view) show only by their storage."""
    aliases = any(result.alias_info for result in schema.returns)
    is_view = not schema.is_mutable and (aliases or bool(inputs.keys() & outputs.keys()))
    return is_view or schema.name.startswith("aten::empty")


def _tensors(tree: Any) -> dict[int, int]:
    """Storage -> bytes: an expanded tensor has fewer than its elements, a slice only its own."""
    return {
        _storage(leaf): min(leaf.numel() * leaf.element_size(), leaf.untyped_storage().nbytes())
        for leaf in tree_leaves(tree)
        if isinstance(leaf, Tensor)
    }


@contextmanager
def _saved_bytes() -> Iterator[dict[int, int]]:
    """Storage -> bytes of what autograd keeps; filled while the context is open."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


def _storage(tensor: Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata
    return identity


def _convolution_backward_flops(
    grad_out: Any, _image: Any, weight: Any, *rest: Any, **_: Any
) -> int:
    """One gradient costs as much as the forward pass. Torch's own formula multiplies the weight's
    by the number of groups, which makes depthwise networks ten times as dear as they are.

    grad_out (B, C_out, *), weight (C_out, C_in / groups, *kernel), no transposed convolutions.
    """
    transposed, output_mask = rest[4], rest[7]
    if transposed:
        raise NotImplementedError("transposed convolutions are not counted")
    forward: int = FLOPS_PER_MULTIPLY_ADD * prod(grad_out) * prod(weight[1:])
    gradients: int = sum(output_mask[:2])
    return forward * gradients


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Torch knows attention on GPUs; the CPU's kernels take the same arguments."""
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


def _attention_backward_flops(
    grad_out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any
) -> int:
    flops: int = sdpa_backward_flop_count(  # type: ignore[no-untyped-call]
        grad_out, query, key, value
    )
    return flops


_FLOP_FORMULAS = {
    torch.ops.aten.convolution_backward: _convolution_backward_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def write(path: Path, counts: Counts) -> bool:
    """Put the counts into a card, leaving all else as it stands; False where nothing changed."""
    before = path.read_text(encoding="utf-8")
    card = tomlkit.parse(before)
    for field, value in asdict(counts).items():
        card[field] = value
    after = tomlkit.dumps(card)
    path.write_text(after, encoding="utf-8")
    return after != before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cards", nargs="*", type=Path, help="card files; default: all")
    parser.add_argument("--write", action="store_true", help="write the counts")
    arguments = parser.parse_args()
    paths = arguments.cards or sorted((shared_directory("models") / "candidates").glob("*.toml"))
    changed = []
    for path in paths:
        card = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
        counts = asdict(count(card["network"], card["input_size"]))
        differing = {field: value for field, value in counts.items() if card.get(field) != value}
        print(f"{path.stem:45} {json.dumps(differing) if differing else 'as written'}", flush=True)
        if differing:
            changed.append(path.stem)
            if arguments.write:
                write(path, Counts(**counts))
    if arguments.write:
        load_cards(shared_directory("models"), CandidateCard)
    print(json.dumps({"cards": len(paths), "changed": changed, "written": arguments.write}))


if __name__ == "__main__":
    main()
