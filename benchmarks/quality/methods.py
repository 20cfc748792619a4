"""The ways to embed a set that the benchmark compares, and the cells that keep what they gave.

A cell is one method on one labelled set, an .npz of arrays: `vector` (D,) always, and what else a
method has. It lies under the space and the set's digest, so that neither a changed set nor a
changed probe finds an old one; a method whose settings changed does not read its old cells.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.embedding.dataset import LabelledImages
from app.embedding.embed import embed_images
from app.embedding.fisher import estimate_fisher
from app.embedding.head import Head, fit_head
from app.embedding.penalty import PENALTIES
from app.embedding.probe import BATCH_SIZE, Probe
from app.embedding.vector import Estimator
from benchmarks.quality import published
from benchmarks.quality.published import TrainingProbe, published_vector
from benchmarks.quality.tasks import QualitySet, read

Cell = Mapping[str, Any]
"""Name -> array or numpy scalar."""

FIXED_PENALTY = 0.01
"""The common default of an L2 penalty of one half the squared weights on the sum of a hundred
losses."""


@dataclass(frozen=True, slots=True)
class Method:
    """Settings of one way to embed.

    `procedure`  `embed` is `embed_images` as the service runs it, its own defaults throughout;
                 `compose` its parts with the estimator, draws and penalty named here; `published`
                 the published procedure
    `draws`      an image for `compose`; in all for `published`, 0: SAME_DRAWS an image
    `penalty`    of the head, 0: chosen by cross-validation
    """

    name: str
    procedure: Literal["embed", "compose", "published"]
    estimator: Estimator = "hutchinson"
    draws: int = 0
    penalty: float = 0.0

    @property
    def settings(self) -> str:
        return ", ".join(f"{field}={value}" for field, value in asdict(self).items())


SAME_DRAWS = 2
"""Draws an image of all that is compared at the same number of draws: the composed methods, and
`published` with so many times as many in all as there are images. `ours` is not among them: it
draws until its noise floor is low enough, and its cells keep how often that was."""

METHODS = {
    method.name: method
    for method in (
        Method("ours", "embed"),
        Method("published", "published"),
        Method("hutchinson-chosen", "compose", "hutchinson", SAME_DRAWS),
        Method("hutchinson-fixed", "compose", "hutchinson", SAME_DRAWS, FIXED_PENALTY),
        Method("mc-chosen", "compose", "mc", SAME_DRAWS),
        Method("mc-fixed", "compose", "mc", SAME_DRAWS, FIXED_PENALTY),
        Method("published_default", "published", draws=published.DEFAULT_DRAWS),
    )
}


@dataclass(frozen=True, slots=True)
class Workshop:
    """What embedding takes: the probe, and its network as it was trained."""

    probe: Probe
    training: TrainingProbe

    def embed(self, method: Method, labelled: QualitySet) -> Cell:
        images = read(labelled.images, self.probe.card.input_size)
        features = np.concatenate(
            [
                self.probe.features(images.pixels[start : start + BATCH_SIZE]).numpy(force=True)
                for start in range(0, len(images.digests), BATCH_SIZE)
            ]
        )
        match method.procedure:
            case "embed":
                return self._ours(images, features)
            case "compose":
                return self._composed(method, images, features)
            case "published":
                return self._published(method, labelled, images, features)

    def _ours(self, images: LabelledImages, features: npt.NDArray[np.float32]) -> Cell:
        embedding = embed_images(images, self.probe)
        made = embedding.provenance
        return {
            "vector": embedding.vector,
            "domain": embedding.domain,
            "discriminants": embedding.discriminants,
            "draw_error": embedding.draw_error,
            "sampling_error": embedding.sampling_error,
            "complexity": np.float64(embedding.complexity),
            "noise_floor": np.float64(embedding.noise_floor),
            "noise": np.str_(json.dumps(asdict(embedding.noise))),
            "cv_accuracy": np.float64(np.nan if made.cv_accuracy is None else made.cv_accuracy),
            "penalty": np.float64(made.penalty),
            "n_images": np.int64(made.n_images),
            "n_classes": np.int64(made.n_classes),
            "draws": np.int64(made.draws),
            "stopped": np.str_(made.stopped),
            "estimator": np.str_(made.estimator),
            "seconds": np.float64(made.seconds),
            "mean_feature": features.mean(axis=0, dtype=np.float64),
            "mean_squared_feature": (features.astype(np.float64) ** 2).mean(axis=0),
        }

    def _composed(
        self, method: Method, images: LabelledImages, features: npt.NDArray[np.float32]
    ) -> Cell:
        """Never `exact`, however few the classes are, and never more draws or fewer.

        The estimator itself is looked at.
        """
        fitted = _fitted(images, features, method.penalty)
        estimate = estimate_fisher(
            images,
            self.probe,
            fitted,
            features,
            estimator=method.estimator,
            draws=method.draws,
            tolerance=None,
            seed=0,
            batch_size=BATCH_SIZE,
            on_batch=lambda _: None,
        )
        return {
            "vector": estimate.vector.astype(np.float32),
            "domain": estimate.domain.astype(np.float32),
            "penalty": np.float64(fitted.penalty),
        }

    def _published(
        self,
        method: Method,
        labelled: QualitySet,
        images: LabelledImages,
        features: npt.NDArray[np.float32],
    ) -> Cell:
        # By the set's digest: two halves alike in their counts must not share their random numbers.
        seed = int(labelled.images.digest[:16], 16)
        draws = method.draws or SAME_DRAWS * len(images.digests)
        vector = published_vector(images, self.training, features, draws=draws, seed=seed)
        return {"vector": vector.astype(np.float32), "draws": np.int64(draws)}


def _fitted(images: LabelledImages, features: npt.NDArray[np.float32], penalty: float) -> Head:
    return fit_head(
        features,
        images.labels,
        len(images.classes),
        images.digests,
        penalties=(penalty,) if penalty else PENALTIES,
    )


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells under `<root>/<method>/<digest>.npz`."""

    root: Path

    def path(self, method: Method, labelled: QualitySet) -> Path:
        return self.root / method.name / f"{labelled.images.digest[:32]}.npz"

    def load(self, method: Method, labelled: QualitySet) -> Cell | None:
        """None where it was not made yet, or by other settings, or only in part."""
        path = self.path(method, labelled)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                cell = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return cell if str(cell.pop("settings", "")) == method.settings else None

    def save(self, method: Method, labelled: QualitySet, cell: Cell) -> None:
        """At once or not at all, whoever else writes the same cell."""
        path = self.path(method, labelled)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {**cell, "settings": np.str_(method.settings)}
        np.savez(buffer, **arrays)
        scratch = path.with_name(f".{path.stem}-{os.getpid()}.tmp")
        scratch.write_bytes(buffer.getvalue())
        scratch.replace(path)
