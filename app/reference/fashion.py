"""Fashion-MNIST: 28-pixel grey photographs of clothes, ten kinds."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.reference import pictures
from app.reference.packages import Package, fetch
from app.reference.sets import LabelledSet, Picture, Pool

_PACKAGE = Package(
    "debian",
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
_KINDS = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_USES = {"sandal": "shoe", "sneaker": "shoe", "ankle boot": "shoe", "bag": "bag"}
_PICTURES_READ = 1_500


def sets(cache_dir: Path) -> Iterator[LabelledSet]:
    first, second = (_clothes(cache_dir, start) for start in (0, _PICTURES_READ))
    for name, pool in {"a": first, "b": second}.items():
        yield pool.ask(f"fashion-kinds-{name}", "kind", question="what-it-shows", per_class=12)
    parts = {
        "footwear": ("sandal", "sneaker", "ankle boot"),
        "tops": ("t-shirt", "pullover", "coat", "shirt"),
        "shirt-or-t-shirt": ("t-shirt", "shirt"),
    }
    for name, kinds in parts.items():
        yield first.where(kind=kinds, most=120).ask(
            f"fashion-{name}", "kind", question="what-it-shows", per_class=60
        )
    uses = first.where(most=120).told("use", lambda p: _USES.get(p.facts["kind"], "clothing"))
    yield uses.ask("fashion-uses", "use", question="what-it-shows", per_class=100)
    some = second.where(most=150)
    yield some.extremes("lightness", pictures.lightness, "dark", "light").ask(
        "fashion-lightness", "lightness", question="lightness", per_class=50
    )
    yield some.varied("turn", pictures.QUARTER_TURNS).ask(
        "fashion-turns", "turn", question="orientation", per_class=26
    )


def pictures_of(cache_dir: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """All ten thousand that the package has: (N, 28, 28) grey values, and (N,) of ten kinds."""
    root = fetch(_PACKAGE, cache_dir) / "usr" / "share" / "datasets" / "fashion-mnist"
    images = _idx(root / "t10k-images-idx3-ubyte.gz", header_bytes=16).reshape(-1, 28, 28)
    return images, _idx(root / "t10k-labels-idx1-ubyte.gz", header_bytes=8)


def _clothes(cache_dir: Path, start: int) -> Pool:
    images, labels = pictures_of(cache_dir)
    return Pool(
        str(_PACKAGE),
        "MIT (Zalando SE)",
        ("fashion", "grey-photographs"),
        tuple(
            Picture(str(i), pictures.from_grey(images[i]), {"kind": _KINDS[labels[i]]})
            for i in range(start, start + _PICTURES_READ)
        ),
    )


def _idx(path: Path, header_bytes: int) -> npt.NDArray[Any]:
    return np.frombuffer(gzip.decompress(path.read_bytes())[header_bytes:], dtype=np.uint8)
