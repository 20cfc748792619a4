"""scikit-learn's handwritten digits: 8 by 8 grey values."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from sklearn.datasets import load_digits

from app.reference import pictures
from app.reference.sets import LabelledSet, Picture, Pool

_BRIGHTEST = 16
_LOOPS = {"0": "one loop", "6": "one loop", "8": "two loops", "9": "one loop"}


def sets(cache_dir: Path) -> Iterator[LabelledSet]:  # noqa: ARG001 - they come with scikit-learn
    every = digits()
    first, second = every.where(half="first"), every.where(half="second")
    for name, pool in {"a": first, "b": second}.items():
        yield pool.ask(f"digits-{name}", "digit", question="which-digit", per_class=12)
    for pair in ("38", "49"):
        yield first.where(digit=tuple(pair)).ask(
            f"digits-{pair[0]}-or-{pair[1]}", "digit", question="which-digit", per_class=50
        )
    some = second.where(most=120)
    yield some.ask("digits-odd-or-even", "parity", question="parity", per_class=60)
    yield some.ask("digits-loops", "loops", question="shape", per_class=60)
    turned = first.where(digit=("2", "3", "4", "5", "7"), most=120)
    yield turned.varied("turn", pictures.QUARTER_TURNS).ask(
        "digits-turns", "turn", question="orientation", per_class=26
    )
    yield second.mosaics("digit", count=120, tile=16).ask(
        "digits-mosaics", "digit", question="which-digit", label_kind="multi_label"
    )


def digits() -> Pool:
    images, labels = load_digits(return_X_y=True)
    values = images.reshape(-1, 8, 8) * (255 / _BRIGHTEST)

    def facts(i: int) -> dict[str, str]:
        digit = str(labels[i])
        return {
            "digit": digit,
            "parity": "odd" if labels[i] % 2 else "even",
            "loops": _LOOPS.get(digit, "no loop"),
            "half": "first" if i < len(labels) // 2 else "second",
        }

    return Pool(
        f"load_digits of scikit-learn {version('scikit-learn')} (pypi)",
        "CC-BY-4.0 (UCI, E. Alpaydin and C. Kaynak)",
        ("digits", "handwriting"),
        tuple(Picture(str(i), pictures.from_grey(values[i]), facts(i)) for i in range(len(labels))),
    )
