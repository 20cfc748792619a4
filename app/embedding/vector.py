"""TaskEmbedding: the vector, its errors, space and provenance; read and written as npz."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.errors import DifferentSpaces, InvalidRequest

Vector = npt.NDArray[np.float32]
Estimator = Literal["hutchinson", "mc", "exact"]

METHOD_VERSION = 4
"""Raised by hand whenever the same images through the same probe would give other numbers."""
RANK = 4
"""Rows of an embedding's discriminants."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an embedding came about; none of it is part of its space.

    `draws`      passes an image: random draws, or for `exact` the rank of the logits' covariance
    `stopped`    why there were no more: `exact`, `tolerance` or `draws`
    """

    probe: str
    probe_digest: str
    preprocessing: str
    estimator: Estimator
    draws: int
    seed: int
    n_images: int
    n_classes: int
    label_kind: str
    penalty: float
    cv_log_likelihood: float | None
    cv_accuracy: float | None
    code_version: str
    device: str
    seconds: float
    stopped: str = "draws"
    tolerance: float | None = None
    precision: str = "float32"


@dataclass(frozen=True, slots=True)
class Noise:
    """What fresh draws alone put between two embeddings of one task.

    `floors`           by metric on vectors: the distance expected
    `label`, `domain`  the squared length expected of what draws add to a part, in log2 units;
                       None in embeddings of an earlier version
    """

    floors: Mapping[str, float]
    label: float | None = None
    domain: float | None = None

    def __post_init__(self) -> None:
        numbers = (*self.floors.values(), self.label or 0.0, self.domain or 0.0)
        if "cosine" not in self.floors or not all(0 <= number < np.inf for number in numbers):
            raise InvalidRequest(
                "embedding-malformed",
                f"The noise is {asdict(self)}.",
                "Its numbers are finite and at least 0, and there is one for `cosine`.",
            )


@dataclass(frozen=True, slots=True)
class TaskEmbedding:
    """A task as the diagonal Fisher information of a probe's weights, averaged per filter.

    `vector`          (D,) float32, filter means of the Fisher diagonal; >= 0, dead filters 0
    `domain`          (D,) float32, the same for the images with no question asked
    `discriminants`   (RANK, K) float32, principal axes of the Fisher information of the probe's
                      responses, each as long as the root of what it holds; K = 0 in embeddings
                      of an earlier version
    `draw_error`      (D,) float32, standard error of `vector` that more draws would reduce
    `sampling_error`  (D,) float32, standard error of `vector` from having these images, not others
    `noise`           how far apart fresh draws put two embeddings of this task
    `epsilon`         the probe's, added before logarithms
    """

    vector: Vector
    domain: Vector
    discriminants: Vector
    draw_error: Vector
    sampling_error: Vector
    noise: Noise
    epsilon: float
    space_id: str
    provenance: Provenance

    def __post_init__(self) -> None:
        shape = self.vector.shape
        for name in ("vector", "domain", "draw_error", "sampling_error"):
            array: Vector = getattr(self, name)
            if array.ndim != 1 or array.shape != shape or array.dtype != np.float32:
                raise InvalidRequest(
                    "embedding-malformed",
                    f"`{name}` is {array.dtype} of shape {array.shape}, not float32 of {shape}.",
                    "Send one-dimensional float32 arrays of one length.",
                )
            if not np.isfinite(array).all() or (array < 0).any():
                raise InvalidRequest(
                    "embedding-malformed",
                    f"`{name}` holds negative or non-finite numbers.",
                    "An embedding's entries are finite and at least 0.",
                )

        axes = self.discriminants
        if axes.ndim != 2 or len(axes) != RANK or axes.dtype != np.float32:
            raise InvalidRequest(
                "embedding-malformed",
                f"`discriminants` is {axes.dtype} of shape {axes.shape}, "
                f"not float32 of {RANK} rows.",
                f"Send a float32 array of {RANK} rows.",
            )
        if not np.isfinite(axes).all():
            raise InvalidRequest(
                "embedding-malformed",
                "`discriminants` holds non-finite numbers.",
                "Its entries are finite.",
            )
        if not 0 < self.epsilon < np.inf:
            raise InvalidRequest(
                "embedding-malformed",
                f"Epsilon is {self.epsilon}.",
                "It is finite and more than 0.",
            )

    @property
    def complexity(self) -> float:
        """The sum of the filter means: how much information the task needs of the probe."""
        return float(self.vector.sum(dtype=np.float64))

    @property
    def noise_floor(self) -> float:
        """The cosine distance expected between two embeddings of this task from fresh draws."""
        return self.noise.floors["cosine"]

    @property
    def label(self) -> Vector:
        """(D,) log2 of the part that asking the question adds to the images alone."""
        ratio = (self.vector + self.epsilon) / (self.domain + self.epsilon)
        return np.log2(ratio).astype(np.float32)

    def to_npz(self) -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            vector=self.vector,
            domain=self.domain,
            discriminants=self.discriminants,
            label=self.label,
            draw_error=self.draw_error,
            sampling_error=self.sampling_error,
            complexity=np.float64(self.complexity),
            noise_floor=np.float64(self.noise_floor),
            noise=np.str_(json.dumps(asdict(self.noise), sort_keys=True)),
            epsilon=np.float64(self.epsilon),
            space_id=np.str_(self.space_id),
            provenance=np.str_(json.dumps(asdict(self.provenance), sort_keys=True)),
        )
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, source: Path | bytes) -> TaskEmbedding:
        """Reads what `to_npz` wrote.

        InvalidRequest where the content is something else, OSError where there is no such file.
        """
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            with np.load(stream, allow_pickle=False) as data:
                return cls(
                    vector=data["vector"],
                    domain=data["domain"],
                    discriminants=(
                        data["discriminants"] if "discriminants" in data else no_discriminants()
                    ),
                    draw_error=data["draw_error"],
                    sampling_error=data["sampling_error"],
                    noise=(
                        Noise(**json.loads(str(data["noise"])))
                        if "noise" in data
                        else Noise({"cosine": float(data["noise_floor"])})
                    ),
                    epsilon=float(data["epsilon"]),
                    space_id=str(data["space_id"]),
                    provenance=provenance_from(json.loads(str(data["provenance"]))),
                )
        except (
            KeyError,
            ValueError,
            TypeError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            name = "The data" if isinstance(source, bytes) else str(source)
            raise InvalidRequest(
                "embedding-unreadable",
                f"{name} is not an embedding file.",
                "Give an .npz written by `task2vec embed --local --out FILE.npz`.",
            ) from error


def no_discriminants() -> Vector:
    """(RANK, 0), of an embedding made before there were any."""
    return np.empty((RANK, 0), np.float32)


def provenance_from(values: dict[str, Any]) -> Provenance:
    """A Provenance from its JSON form; fields that a later version added are left out."""
    known = {field.name for field in fields(Provenance)}
    return Provenance(**{name: value for name, value in values.items() if name in known})


def space_digest(probe_digest: str, preprocessing: str, stages: Iterable[str]) -> str:
    """The `space_id`: what two embeddings must share to be comparable.

    Probe (weights, layers, epsilon: all in `probe_digest`), preprocessing, the stages whose
    responses are looked at, and METHOD_VERSION; never seed, draws, estimator or code version.
    """
    parts = f"{probe_digest}\n{preprocessing}\n{' '.join(stages)}\n{METHOD_VERSION}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def require_one_space(spaces: list[str]) -> str:
    """The one space they share; DifferentSpaces (409) where they do not."""
    found = sorted(set(spaces))
    if len(found) > 1:
        raise DifferentSpaces(
            "different-spaces",
            f"These embeddings lie in {len(found)} spaces: {', '.join(found)}.",
            "Compare embeddings of one probe, preprocessing and method version; "
            "embed again if needed.",
            spaces=found,
        )
    return found[0]
