"""Cards: what a probe, a candidate model, a device and a recipe are, read from `models/*/*.toml`.

A card is data under test: unknown fields are refused, and every unit stands in its field's name.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from app.errors import InvalidRequest
from app.words import choices

CARD_NAME = r"^[a-z0-9][a-z0-9._-]{0,99}$"
CardName = Annotated[str, StringConstraints(pattern=CARD_NAME)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


MAX_COUNT = 10**15
"""Bounds on users' own cards keep every estimate a finite number."""

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]


class Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: CardName


RUN_SOURCE = "run:"


class Weights(BaseModel):
    """Where weights come from.

    `package:MODULE/PATH`  a file inside an installed package
    `timm:TAG`             timm's own download (needs a network)
    `file:PATH`            a file on this machine
    `run:ID`               the model of a fine-tuning run of the same tenant's
    `none`                 only a description: weights are not to be had here
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Annotated[
        str, StringConstraints(pattern=r"^(package:.+/.+|timm:.*|file:.+|run:[0-9a-f]{32}|none)$")
    ]
    sha256: Sha256 | None = None
    order: Literal["name", "position"] = Field(
        "name", description="tensors match the network's by name, or one by one in order and shape"
    )

    @property
    def run_id(self) -> str | None:
        """Of the run whose model they are."""
        is_a_runs = self.source.startswith(RUN_SOURCE)
        return self.source.removeprefix(RUN_SOURCE) if is_a_runs else None


class ProbeCard(Card):
    """The fixed network every task is looked at through. What decides numbers is part of its space.

    Weights are pinned by their file's `sha256`, or where no file is at hand (`timm:`) by `digest`.
    """

    version: int = Field(ge=1)
    network: str = Field(description="timm architecture name")
    weights: Weights
    licence: str
    input_size: int = Field(ge=16, le=1024, description="pixels, square")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layers: tuple[str, ...] = Field(
        ("*",), description="glob patterns over module names: which weights count"
    )
    epsilon: float = Field(gt=0, description="added before a logarithm is taken of the embedding")
    digest: Sha256 | None = Field(
        None, description="of the probe as it must come out: weights, layers, size, normalisation"
    )

    @property
    def is_pinned(self) -> bool:
        """Whether other weights than the card's author saw would be refused."""
        return self.digest is not None or self.weights.sha256 is not None


class CandidateCard(Card):
    """A pretrained model one could start fine-tuning from; costs are per image at `input_size`.

    The fields from `parameters` to `training_operations` are counted by `benchmarks/candidates.py`,
    without the classifier, whose width depends on the task.
    """

    network: str = Field(description="timm architecture name")
    family: str
    description: str = ""
    input_size: int = Field(ge=16, le=2048)
    parameters: Count
    head_features: Count = Field(description="width of the features under the classifier")
    multiply_adds: Count = Field(description="one forward pass; 1 multiply-add = 2 FLOPs")
    training_multiply_adds: Count = Field(description="forward and full backward pass")
    forward_bytes: Count = Field(description="activations read and written, forward, fp32")
    training_bytes: Count = Field(description="the same, forward and full backward pass")
    activation_bytes: Count = Field(description="kept for the backward pass, fp32")
    largest_operation_bytes: Count = Field(
        description="inputs and outputs of the forward pass's largest operation, fp32"
    )
    forward_operations: Count = Field(description="kernels of one forward pass, any batch")
    training_operations: Count = Field(description="the same, forward and full backward pass")
    pretraining: str = Field(description="the set it was trained on, e.g. ImageNet-1k")
    parent: CardName | None = Field(
        None, description="candidate that it was fine-tuned from, by a run of the service"
    )
    source_task: str | None = Field(None, description="task whose embedding stands for that set")
    top1_percent: float | None = Field(
        None, ge=0, le=100, description="published ImageNet-1k top-1 accuracy"
    )
    top1_source: str | None = None
    weights: Weights
    licence: str

    @property
    def weights_key(self) -> str:
        """The same for cards whose weights are the same file."""
        return f"{self.network} {self.weights.source}"


class DeviceCard(Card):
    """A machine with one accelerator (or none), at its makers' peak numbers and a dated price."""

    kind: Literal["cpu", "gpu"]
    description: str = ""
    peak_flops: float = Field(
        ge=1e6, le=1e20, description="FLOP/s, dense, in the precision training uses"
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    bandwidth_bytes_per_second: float = Field(ge=1e3, le=1e20)
    memory_bytes: Count
    power_watts: float = Field(
        gt=0, le=1e6, description="of the accelerator (or the socket) under load"
    )
    price_usd_per_hour: float = Field(ge=0, le=1e6, description="0: already paid for")
    price_date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    price_note: str
    source: str = Field(description="where the peak numbers come from")
    launch_seconds: float = Field(
        gt=0, le=10, description="least time of one kernel, however small"
    )
    context_bytes: int = Field(
        ge=0, le=MAX_COUNT, description="memory taken before the first tensor"
    )
    efficiency_low: float = Field(
        ge=1e-4,
        le=1,
        description="share that training reaches of what peak and bandwidth together allow",
    )
    efficiency_typical: float = Field(ge=1e-4, le=1)
    efficiency_high: float = Field(ge=1e-4, le=1)
    startup_seconds: float = Field(ge=0, le=1e6, description="imports, weights, first step")
    decode_images_per_second: float = Field(
        ge=1e-3, le=1e9, description="500 x 375 JPEG to 224 px, with all cores of the machine"
    )

    @model_validator(mode="after")
    def _efficiencies_stand_in_order(self) -> Self:
        if not self.efficiency_low <= self.efficiency_typical <= self.efficiency_high:
            raise ValueError("efficiency_low, _typical and _high must not fall")
        return self


LEAST_BATCH = 8
"""Images: normalisation over fewer is noise."""


class RecipeCard(Card):
    """How fine-tuning is done."""

    description: str
    scope: Literal["head", "full"]
    optimiser: Literal["adamw", "sgd"]
    learning_rate: float = Field(gt=0, le=1000)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(ge=0, le=1000)
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="the rate of a layer over that of the one after it"
    )
    schedule: Literal["cosine", "constant"]
    batch_size: int = Field(ge=1, le=1_000_000)
    least_steps_an_epoch: int = Field(
        1, ge=1, le=10_000, description="of a small set batches are smaller, for as many steps"
    )
    epochs: int = Field(ge=1, le=100_000)
    evaluation_share: float = Field(ge=0, lt=1, description="share of the images held out")
    features_cached: bool = Field(
        False, description="the frozen network runs once over the images, not once an epoch"
    )

    def batch_of(self, train_images: int) -> int:
        """Images of a batch; never more than there are, nor so many that an epoch would have fewer
        steps than it should, as far as LEAST_BATCH allows."""
        smaller = max(train_images // self.least_steps_an_epoch, LEAST_BATCH)
        return min(self.batch_size, smaller, train_images)

    @model_validator(mode="after")
    def _only_frozen_features_stay_valid(self) -> Self:
        if self.features_cached and self.scope != "head":
            raise ValueError("features_cached needs scope 'head': trained features change")
        if self.layer_decay is not None and self.scope != "full":
            raise ValueError("layer_decay needs scope 'full': a head is a single layer")
        return self


CardT = TypeVar("CardT", bound=Card)

# What is estimated and trained where nothing else is asked for.
DEFAULT_RECIPE = "full"
DEFAULT_DEVICE = "cpu-2core"

_DIRECTORIES: dict[type[Card], str] = {
    ProbeCard: "probes",
    CandidateCard: "candidates",
    DeviceCard: "devices",
    RecipeCard: "recipes",
}


def load_card(path: Path, kind: type[CardT]) -> CardT:
    """One card; its name must be its file's name.

    Raises InvalidRequest naming the file and the field where it is not well formed.
    """
    try:
        card = kind.model_validate_json(_toml_as_json(path))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(
            "card-invalid", f"The card {path} does not fit: {error}", "Mend the fields named."
        ) from error
    if card.name != path.stem:
        raise InvalidRequest(
            "card-misnamed",
            f"The card {path} calls itself {card.name!r}.",
            "Give file and card the same name.",
        )
    return card


def load_cards(models_dir: Path, kind: type[CardT]) -> dict[str, CardT]:
    """All cards of one kind under `models_dir`, by name, in name order."""
    paths = sorted((models_dir / _DIRECTORIES[kind]).glob("*.toml"))
    return {card.name: card for card in (load_card(path, kind) for path in paths)}


def get_card(models_dir: Path, kind: type[CardT], name: str) -> CardT:
    """The card of that name; InvalidRequest tells names that are like it."""
    cards = load_cards(models_dir, kind)
    if name not in cards:
        raise InvalidRequest(
            "unknown-card",
            f"There is no {_DIRECTORIES[kind][:-1]} {name!r}.",
            f"{choices(cards, name)} `task2vec {_DIRECTORIES[kind]}` lists all.",
        )
    return cards[name]


def _toml_as_json(path: Path) -> str:
    """Strict validation takes JSON's arrays for tuples, TOML's lists it would refuse."""
    return json.dumps(tomllib.loads(path.read_text(encoding="utf-8")))
