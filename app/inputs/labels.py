"""A value of a column, of a JSON record or of a dataset as labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from app.inputs.pictures import LeftOut

NO_LABEL = "without a label"


def labels_of(value: Any, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """A number is a place among `classes`, where there are some; a list holds several labels.

    Raises LeftOut where there is no label, as None, "", NaN or -1 of `classes` say; a list that is
    empty says that none applies.
    """
    if isinstance(value, (list, tuple)):
        return tuple(_label(each, classes) for each in value)
    return (_label(value, classes),)


def _label(value: Any, classes: Sequence[str] | None) -> str:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise LeftOut(NO_LABEL)
    if isinstance(value, float) and value.is_integer():  # a column of numbers with gaps
        value = int(value)
    if classes is None or not isinstance(value, int):
        return str(value)
    if value == -1:  # what the hub's test sets say
        raise LeftOut(NO_LABEL)
    if not 0 <= value < len(classes):
        raise LeftOut(f"with a label that is none of the {len(classes)} classes")
    return classes[value]
