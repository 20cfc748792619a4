"""Fine-tunes a candidate on a labelled set by a recipe, and says what it gave and took.

Optimisers and schedules are timm's. All randomness of an epoch derives from the seed and the
epoch's number, so a run that was killed and goes on from its last checkpoint ends as one that was
not: bit for bit on a processor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from app.catalogue import CandidateCard, RecipeCard
from app.embedding import chance
from app.embedding.batches import is_out_of_memory
from app.embedding.dataset import LabelledImages
from app.embedding.portion import balanced_part
from app.embedding.tf32 import tf32
from app.errors import InvalidRequest, Unavailable
from app.training.checkpoint import Checkpoint
from app.training.frozen import moved
from app.training.images import Batches, Cached
from app.training.information import Information, information
from app.training.model import candidate_network
from app.training.names import Ended
from app.training.precision import autocast
from app.training.split import Rows, split_rows
from app.training.verdict import Verdict, verdict

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises, where it falls afterwards."""
TRACED_IMAGES = 128
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends before its recipe does.

    `target`    accuracy on the held-out images that is enough
    `patience`  epochs without a lower loss on them; the epoch with the lowest is then the result
    `seconds`   in all, those before a restart included. Where features are computed once they must
                last for these, and for a step
    """

    target: float | None = None
    patience: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """Losses are means in nats. `information`: trace of the weights' Fisher information, where it
    was asked for."""

    number: int
    steps: int
    learning_rate: float
    training_loss: float
    loss: float
    accuracy: float
    seconds: float
    information: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """`network` is on the processor, in eval mode, with the weights that `verdict` is of.

    `judged_epoch`  whose weights these are: the last one's, or with `patience`, unless the target
                    was reached, those of the lowest loss on the images that judge. With a target or
                    patience these images have chosen, and the verdict is a little hopeful
    `seconds`       from loading the weights to the verdict, without traces; those of a killed run's
                    epochs are included
    `memory_mib`    the most that a GPU's tensors took; None on a processor
    """

    network: nn.Module
    curve: tuple[Epoch, ...]
    traces: dict[int, Information]
    ended: Ended
    judged_epoch: int
    verdict: Verdict
    n_train: int
    n_held_out: int
    steps: int
    seconds: float
    memory_mib: float | None


def fine_tune(
    images: LabelledImages,
    candidate: CandidateCard,
    recipe: RecipeCard,
    directory: Path,
    *,
    device: torch.device,
    model: Path | None = None,
    precision: str = "fp32",
    seed: int = 0,
    limits: Limits = Limits(),
    trace_every: int = 0,
    on_features: Callable[[int, int], None] = lambda *_: None,
    on_step: Callable[[int, int], None] = lambda *_: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Run:
    """Goes on from a checkpoint in `directory` where there is one of the same run.

    `images`       at the candidate's input size
    `model`        folder of the run whose model the candidate is, where it is one's (`run:`)
    `precision`    fp32, tf32, or bf16 and fp16 by autocast
    `trace_every`  epochs between traces of information; 0: none
    `on_features`  called with images done and their number, where features are computed once
    `on_epoch`     called with each epoch once its checkpoint is written
    `on_step`      called with steps done and their number, also while images are judged; what these
                   raise stops the run, which a later call takes up at the epoch it was in

    Raises Unavailable where the weights cannot be had, memory does not hold a batch or the disk is
    full; InvalidRequest where set, candidate and recipe do not fit, or the seconds do not last for
    the features; Conflict where the directory is another run's.
    """
    _check(images, candidate, limits)
    began = time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        if not (directory / CHECKPOINT).exists():  # else the epochs that there are are its result
            on_features = _within(limits, began, on_features)
        trainer = _Trainer.of(
            images, candidate, model, recipe, directory, device, precision, seed, on_features
        )
        return trainer.run(limits, trace_every, on_step, on_epoch, began)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Unavailable(
            "memory-exhausted",
            f"A batch of {recipe.batch_size} images does not fit in memory with {candidate.name}.",
            "Take a recipe with a smaller batch, or a smaller candidate.",
        ) from error


def _check(images: LabelledImages, candidate: CandidateCard, limits: Limits) -> None:
    if images.pixels.shape[1] != candidate.input_size:
        raise InvalidRequest(
            "image-size",
            f"The images are {images.pixels.shape[1]} pixels wide, {candidate.name} takes "
            f"{candidate.input_size}.",
            "Read the images at the candidate's input size.",
        )
    if limits.target is not None and not 0 < limits.target <= 1:
        raise InvalidRequest(
            "target-out-of-range",
            f"The target is {limits.target:g}.",
            "It is a share of the held-out images: write 85% as 0.85.",
        )
    if limits.seconds is not None and limits.seconds <= 0:
        raise InvalidRequest(
            "no-budget", f"The budget is {limits.seconds:g} seconds.", "Give more than none."
        )


def _within(
    limits: Limits, began: float, on_features: Callable[[int, int], None]
) -> Callable[[int, int], None]:
    """Features alone are no model: where a budget does not last for them, there is none."""

    def heard(done: int, total: int) -> None:
        spent = time.monotonic() - began
        if limits.seconds is not None and spent >= limits.seconds and done < total:
            raise InvalidRequest(
                "budget-too-small",
                f"The budget of {limits.seconds:g} s was used up when {done} of {total} "
                "images had been through the network: nothing was trained.",
                f"Give more than {spent * total / done:.0f} s.",
            )
        on_features(done, total)

    return heard


@dataclass
class _State:
    """What a checkpoint holds beside weights and optimiser."""

    curve: list[Epoch] = field(default_factory=list)
    traces: dict[int, Information] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0


class _Trainer:
    """`network` is the result; `model` what is trained and run on the batches: the network itself,
    or its classifier on features that were computed once."""

    def __init__(
        self,
        network: nn.Module,
        model: nn.Module,
        batches: Batches | Cached,
        plain: Batches,
        recipe: RecipeCard,
        rows: tuple[Rows, Rows],
        device: torch.device,
        precision: str,
        checkpoint: Checkpoint,
    ) -> None:
        self._network, self._model = network, model
        self._batches, self._plain, self._recipe = batches, plain, recipe
        self._training, self._held_out = rows
        self._device, self._precision = device, precision
        self._checkpoint = checkpoint
        self._multi_label = plain.images.label_kind == "multi_label"
        self._batch_size = recipe.batch_of(len(self._training))
        self._steps_an_epoch = math.ceil(len(self._training) / self._batch_size)
        self._optimiser = create_optimizer_v2(
            model,
            opt="momentum" if recipe.optimiser == "sgd" else recipe.optimiser,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            layer_decay=recipe.layer_decay,
        )
        self._schedule = self._make_schedule()
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._best: dict[str, Tensor] | None = None
        self._heard: Callable[[], None] = lambda: None

    @classmethod
    def of(
        cls,
        images: LabelledImages,
        candidate: CandidateCard,
        model: Path | None,
        recipe: RecipeCard,
        directory: Path,
        device: torch.device,
        precision: str,
        seed: int,
        on_features: Callable[[int, int], None],
    ) -> _Trainer:
        rows = split_rows(images.labels, images.digests, recipe.evaluation_share, seed)
        network: Any = candidate_network(candidate, model)
        with chance.seeded(seed):
            network.reset_classifier(len(images.classes))
        network.to(device=device, memory_format=torch.channels_last)
        plain = Batches.of(images, network, seed)
        trained: nn.Module = network
        batches: Batches | Cached = plain
        if recipe.scope == "head":
            network.eval().requires_grad_(False)  # normalisations keep what they were trained with
            network.get_classifier().requires_grad_(True)
        if recipe.features_cached:
            trained = network.get_classifier()
            batches = Cached.of(plain, network, recipe.batch_size, device, precision, on_features)
        settings = {
            "candidate": candidate.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "images": list(images.digests),
            "classes": list(images.classes),
            "precision": precision,
            "seed": seed,
        }
        checkpoint = Checkpoint(directory / CHECKPOINT, settings)
        return cls(network, trained, batches, plain, recipe, rows, device, precision, checkpoint)

    def run(
        self,
        limits: Limits,
        trace_every: int,
        on_step: Callable[[int, int], None],
        on_epoch: Callable[[Epoch], None],
        began: float,
    ) -> Run:
        state = self._resumed()
        self._heard = lambda: on_step(state.steps, total)
        total = self._recipe.epochs * self._steps_an_epoch
        began -= state.seconds
        ended: Ended = "recipe"
        logits: Tensor | None = None
        for number in range(len(state.curve) + 1, self._recipe.epochs + 1):
            if (reason := self._enough(state, limits)) is not None:
                ended = reason
                break
            losses, in_time = self._train(number, state, total, on_step, began, limits)
            logits = self._logits()
            epoch = self._judged(number, state, losses, logits)
            _require_finite(epoch)
            if trace_every and (number == 1 or number % trace_every == 0):
                looked = time.monotonic()
                found = self._information()
                began += time.monotonic() - looked  # no part of what the run takes
                state.traces[number] = found
                epoch = replace(epoch, information=found.total)
            state.seconds = time.monotonic() - began
            state.curve.append(replace(epoch, seconds=state.seconds))
            if epoch.loss < state.best_loss:
                state.best_loss, state.best_epoch = epoch.loss, number
                if limits.patience is not None:
                    self._best = _copied(self._model)
            self._save(state)
            on_epoch(state.curve[-1])
            if not in_time:
                ended = "budget"
                break
        else:
            ended = self._enough(state, limits) or "recipe"
        return self._finished(state, ended, limits, began, logits)

    def _enough(self, state: _State, limits: Limits) -> Ended | None:
        if not state.curve:
            return None
        if limits.target is not None and state.curve[-1].accuracy >= limits.target:
            return "target"
        if limits.patience is not None and len(state.curve) - state.best_epoch >= limits.patience:
            return "patience"
        if limits.seconds is not None and state.seconds >= limits.seconds:
            return "budget"
        return None

    def _train(
        self,
        number: int,
        state: _State,
        total: int,
        on_step: Callable[[int, int], None],
        began: float,
        limits: Limits,
    ) -> tuple[list[float], bool]:
        """An epoch's losses, and whether it ended within the budget."""
        chance.begin(self._plain.seed * 1_000_003 + number)
        if self._recipe.scope == "full":
            self._network.train()
        losses: list[Tensor] = []
        for inputs, targets in self._batches.training(self._training, self._batch_size, number):
            if self._schedule is not None:
                self._schedule.step_update(state.steps)
            self._optimiser.zero_grad(set_to_none=True)
            with tf32(self._precision == "tf32"):
                with chance.held, self._autocast():  # dropout
                    loss = self._loss(self._model(self._moved(inputs)), targets.to(self._device))
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                self._scaler.step(self._optimiser)
                self._scaler.update()
            losses.append(loss.detach())
            state.steps += 1
            on_step(state.steps, total)
            if limits.seconds is not None and time.monotonic() - began >= limits.seconds:
                return torch.stack(losses).tolist(), False
        return torch.stack(losses).tolist(), True

    def _logits(self) -> Tensor:
        """Of the images that judge."""
        self._network.eval()
        found = []
        for inputs in self._batches.judging(self._held_out, self._batch_size):
            with torch.inference_mode(), tf32(self._precision == "tf32"), self._autocast():
                found.append(self._model(self._moved(inputs)).float())
            self._heard()
        return torch.cat(found)

    def _judged(self, number: int, state: _State, losses: list[float], logits: Tensor) -> Epoch:
        targets = self._batches.targets(self._held_out).to(self._device)
        found = (logits > 0).float() if self._multi_label else logits.argmax(1)
        return Epoch(
            number=number,
            steps=state.steps,
            learning_rate=max(float(group["lr"]) for group in self._optimiser.param_groups),
            training_loss=float(np.mean(losses)),
            loss=self._loss(logits, targets).item(),
            accuracy=(found == targets).float().mean().item(),
            seconds=0.0,
        )

    def _information(self) -> Information:
        images = self._plain.images
        digests = [images.digests[row] for row in self._training]
        chosen = balanced_part(images.labels[self._training], digests, TRACED_IMAGES)

        def batches() -> Iterator[tuple[Tensor, list[str]]]:
            names = iter([digests[place] for place in chosen])
            for inputs in self._plain.judging(self._training[chosen], self._batch_size):
                yield self._moved(inputs), list(islice(names, len(inputs)))
                self._heard()

        return information(self._network, batches(), images.label_kind, seed=self._plain.seed)

    def _finished(
        self, state: _State, ended: Ended, limits: Limits, began: float, logits: Tensor | None
    ) -> Run:
        """`logits`: of the weights as they are, where they were judged a moment ago."""
        judged = len(state.curve)
        if limits.patience is not None and self._best is not None and ended != "target":
            self._model.load_state_dict(self._best)
            judged, logits = state.best_epoch, None
        logits = (self._logits() if logits is None else logits).double()
        state.seconds = time.monotonic() - began
        probabilities = logits.sigmoid() if self._multi_label else logits.softmax(1)
        images = self._plain.images
        return Run(
            network=self._network.cpu().eval(),
            curve=tuple(state.curve),
            traces=state.traces,
            ended=ended,
            judged_epoch=judged,
            verdict=verdict(
                probabilities.numpy(force=True), images.labels[self._held_out], images.classes
            ),
            n_train=len(self._training),
            n_held_out=len(self._held_out),
            steps=state.steps,
            seconds=state.seconds,
            memory_mib=torch.cuda.max_memory_allocated(self._device) / 2**20
            if self._device.type == "cuda"
            else None,
        )

    def _resumed(self) -> _State:
        saved = self._checkpoint.load()
        if saved is None:
            return _State()
        self._model.load_state_dict(saved["model"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self._scaler.load_state_dict(saved["scaler"])
        self._best = saved["best"]
        return _State(
            curve=[Epoch(**epoch) for epoch in saved["curve"]],
            traces={
                number: Information(trace["total"], trace["layers"], tuple(trace["left_out"]))
                for number, trace in saved["traces"].items()
            },
            **{name: saved[name] for name in ("steps", "seconds", "best_loss", "best_epoch")},
        )

    def _save(self, state: _State) -> None:
        self._checkpoint.save(
            {
                "model": self._model.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "scaler": self._scaler.state_dict(),
                "best": self._best,
                "curve": [asdict(epoch) for epoch in state.curve],
                "traces": {number: asdict(trace) for number, trace in state.traces.items()},
                "steps": state.steps,
                "seconds": state.seconds,
                "best_loss": state.best_loss,
                "best_epoch": state.best_epoch,
            }
        )

    def _make_schedule(self) -> CosineLRScheduler | None:
        if self._recipe.schedule == "constant":
            for group in self._optimiser.param_groups:  # as a schedule of timm's would do
                group["lr"] *= group.get("lr_scale", 1.0)
            return None
        steps = self._recipe.epochs * self._steps_an_epoch
        warm_up = math.ceil(WARM_UP * steps) if steps > 1 else 0
        return CosineLRScheduler(
            self._optimiser,
            t_initial=steps,
            warmup_t=warm_up,
            warmup_lr_init=self._recipe.learning_rate / (warm_up + 1),
            t_in_epochs=False,
        )

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self._multi_label:
            return nn.functional.binary_cross_entropy_with_logits(logits, targets)
        return nn.functional.cross_entropy(logits, targets)

    def _moved(self, inputs: Tensor) -> Tensor:
        return moved(inputs, self._device)

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self._device, self._precision)


def _require_finite(epoch: Epoch) -> None:
    if not (math.isfinite(epoch.training_loss) and math.isfinite(epoch.loss)):
        raise InvalidRequest(
            "run-diverged",
            f"The loss of epoch {epoch.number} is no finite number.",
            "Take a recipe with a lower learning rate, or a device whose precision is wider.",
        )


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
