"""Select the model to start from inside a training script, then report what came of it.

    task2vec serve                                            # elsewhere
    python examples/select_then_train.py pictures/ --budget 0.10

FOLDER holds one folder of images per label. Networks whose weights would have to be fetched are
left out by --installed.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchvision import datasets

from task2vec import (
    CandidateCard,
    EstimateRow,
    JobProgress,
    OutcomeReport,
    RecipeCard,
    Task2Vec,
    Task2VecError,
)
from task2vec.networks import network_of

RECIPE = "head_only"  # a linear classifier on the network's features


def main() -> None:
    asked = arguments()
    with Task2Vec() as service:
        task = service.embed(asked.folder, on_progress=show)
        print(f"{task.name}: {task.counts.images} images of {task.counts.classes} classes")

        def estimates() -> dict[str, EstimateRow]:
            answer = service.estimates(
                task, recipe=RECIPE, device=asked.device, budget_usd=asked.budget
            )
            return {row.candidate: row for row in answer.estimates}

        cards = {card.name: card for card in service.candidates()}
        before = {
            name: row
            for name, row in estimates().items()
            if not asked.installed or row.weights_here
        }
        if not before:
            raise SystemExit(
                "No candidate stays within the budget"
                + (", of those whose weights are here." if asked.installed else ".")
            )
        chosen = next(iter(before))  # they come best first
        print(f"Start from {chosen}: {told(before[chosen])}\n  {before[chosen].reason}")

        recipe = next(card for card in service.recipes() if card.name == RECIPE)
        run = train(asked.folder, cards[chosen], recipe)
        print(f"It came to {run['value']:.0%} in {run['seconds']:.1f} s.")
        service.report_outcome(
            OutcomeReport(
                task=task.id,
                model=chosen,
                recipe=RECIPE,
                device=asked.device,
                metric="accuracy",
                **run,
            )
        )

        print("What the estimates say now:")
        for name, row in estimates().items():
            if name in list(before)[:3]:
                print(f"  {name}: {told(before[name])} -> {told(row)}")


def train(folder: str, card: CandidateCard, recipe: RecipeCard) -> dict[str, Any]:
    """The recipe, in a training script of one's own: what it gave and took."""
    began = time.monotonic()
    network: Any = network_of(card, classes=0).eval()
    made = network.pretrained_cfg
    seen = create_transform(card.input_size, mean=made["mean"], std=made["std"], crop_pct=1.0)
    images = datasets.ImageFolder(folder, seen)
    features, labels = features_of(network, images)

    share = recipe.evaluation_share
    training, held_out = random_split(
        TensorDataset(features, labels), [1 - share, share], torch.Generator().manual_seed(0)
    )
    head = nn.Linear(features.shape[1], len(images.classes))
    optimiser = torch.optim.AdamW(
        head.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    batches = DataLoader(training, recipe.batch_of(len(training)), shuffle=True)
    for _ in range(recipe.epochs):
        for x, y in batches:
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(head(x), y))
            optimiser.step()

    x, y = held_out[:]
    return {
        "value": (head(x).argmax(1) == y).float().mean().item(),
        "stop_reason": "cap",
        "n_train": len(training),
        "n_held_out": len(held_out),
        "batch_size": batches.batch_size,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "max_epochs": recipe.epochs,
        "epochs": recipe.epochs,
        "steps": recipe.epochs * len(batches),
        "seconds": time.monotonic() - began,
    }


@torch.inference_mode()
def features_of(network: nn.Module, images: datasets.ImageFolder) -> tuple[Tensor, Tensor]:
    seen = [(network(x), y) for x, y in DataLoader(images, batch_size=32)]
    features, labels = zip(*seen, strict=True)
    return torch.cat(features).clone(), torch.cat(labels)


def told(row: EstimateRow) -> str:
    cost = f"{row.seconds.typical:.1f} s, ${row.money_usd.typical:.4f}"
    if row.accuracy is None:
        return cost
    return f"{row.accuracy.typical:.0%} ({row.accuracy.low:.0%} to {row.accuracy.high:.0%}), {cost}"


def show(now: JobProgress) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{now.phase} {now.done}/{now.total}", end="\r", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--budget", type=float, default=0.10, help="USD of the run (0.10)")
    parser.add_argument("--device", default="cpu-2core", help="a card of `task2vec devices`")
    parser.add_argument("--installed", action="store_true", help="only weights that are here")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except Task2VecError as error:
        raise SystemExit(f"error: {error}") from None
