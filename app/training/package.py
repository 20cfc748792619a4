"""What a run leaves: weights, how they were made, and a card for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from safetensors.torch import save
from timm.data.config import resolve_data_config

from app import __version__
from app.catalogue import CandidateCard, RecipeCard
from app.embedding.dataset import LabelKind
from app.embedding.pretrained import size_options
from app.training.finetune import Run
from app.training.names import FILES, WHY
from app.training.reading import said_of
from app.training.whole import write_whole

MODEL, CONFIG, CARD = FILES["model"], FILES["config"], FILES["card"]


def write_package(
    directory: Path,
    run: Run,
    candidate: CandidateCard,
    recipe: RecipeCard,
    classes: tuple[str, ...],
    label_kind: LabelKind,
    *,
    task: str,
) -> None:
    """`model.safetensors`, `config.json` as timm's hub has it, with `label_kind`, and `README.md`;
    each whole or not at all. `task` names it for people.

    Raises Unavailable where the disk is full.
    """
    data = resolve_data_config({}, model=run.network)  # type: ignore[no-untyped-call]
    config = {
        "architecture": candidate.network,
        "num_classes": len(classes),
        "model_args": size_options(candidate.network, candidate.input_size),
        "label_names": list(classes),
        "label_kind": label_kind,
        "pretrained_cfg": {
            "input_size": [3, candidate.input_size, candidate.input_size],
            "mean": list(data["mean"]),
            "std": list(data["std"]),
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "interpolation": "bicubic",
            "num_classes": len(classes),
            "label_names": list(classes),
        },
    }
    weights = {name: value.contiguous() for name, value in run.network.state_dict().items()}
    files = {
        # As bytes: what its own writer says of a full disk is told from nothing else.
        MODEL: save(weights, metadata={"format": "pt"}),
        CONFIG: json.dumps(config, indent=2, ensure_ascii=False).encode(),
        CARD: card_text(run, candidate, recipe, classes, task=task).encode(),
    }
    for name, content in files.items():
        write_whole(directory / name, partial(_write, content), "model")


def result_of(run: Run, recipe: RecipeCard) -> dict[str, Any]:
    """As JSON: all of the run but its network and its curve."""
    course = {epoch: trace.total for epoch, trace in run.traces.items()}
    return {
        "ended": run.ended,
        "judged_epoch": run.judged_epoch,
        "epochs": len(run.curve),
        "steps": run.steps,
        "seconds": run.seconds,
        "memory_mib": run.memory_mib,
        "n_train": run.n_train,
        "n_held_out": run.n_held_out,
        "verdict": asdict(run.verdict),
        "information": {
            str(epoch): {
                "total": trace.total,
                "layers": trace.layers,
                "left_out": list(trace.left_out),
            }
            for epoch, trace in run.traces.items()
        },
        "information_says": said_of(course) if recipe.scope == "full" else None,
    }


def card_text(
    run: Run, candidate: CandidateCard, recipe: RecipeCard, classes: tuple[str, ...], *, task: str
) -> str:
    """A model card with the front matter that model hubs read."""
    of = run.verdict
    low, high = of.interval
    rows = "\n".join(
        f"| {_cell(each.name)} | {each.images} | {_share(each.recall)} | {_share(each.precision)} |"
        for each in of.classes
    )
    front = _front_matter(
        {
            "library_name": "timm",
            "license": candidate.licence,
            "base_model": candidate.name,
            "pipeline_tag": "image-classification",
        }
    )
    chosen = (
        " The epoch was chosen by these same images, so expect a little less."
        if run.ended in {"patience", "target"} or run.judged_epoch < len(run.curve)
        else ""
    )
    return f"""{front}
# {candidate.name}, fine-tuned on {_cell(task)}

{len(classes)} classes. Right on {of.accuracy:.1%} of {of.images} images that were held out (95 %
interval {low:.1%} to {high:.1%}); log loss {of.log_loss:.3f} nats, expected calibration error
{of.calibration:.3f}.{chosen}

| class | held-out images | found | right when named |
|---|---|---|---|
{rows}

Started from {candidate.name} ({candidate.pretraining}), trained by the recipe `{recipe.name}` on
{run.n_train} images for {len(run.curve)} epochs, {run.steps} steps and {run.seconds:.0f} seconds;
it ended since {WHY[run.ended]}.

```python
import json, timm
from safetensors.torch import load_file

config = json.load(open("{CONFIG}"))
model = timm.create_model(
    config["architecture"], num_classes=config["num_classes"], **config["model_args"]
)
model.load_state_dict(load_file("{MODEL}"))
```

Images are squashed to {candidate.input_size} x {candidate.input_size} pixels, whatever their shape,
and normalised by the `mean` and `std` of `{CONFIG}`. Made by Task2Vec {__version__}.
"""


def _front_matter(fields: Mapping[str, str]) -> str:
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in fields.items())
    return f"---\n{lines}\n---\n"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)
