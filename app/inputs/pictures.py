"""What every form gives: pictures with labels, what they were taken for, what stays out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.inputs.files import Files

AskedLabelKind = Literal["auto", "single_label", "multi_label"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said of an input; None leaves it to what is there."""

    form: str | None = None
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    label_kind: AskedLabelKind = "auto"


@dataclass(frozen=True, slots=True)
class Picture:
    """One image; `read` gives the bytes of its file, and raises LeftOut where there are none.

    Without labels none of the task's labels applies to it.
    """

    name: str
    labels: tuple[str, ...]
    read: Callable[[], bytes]


class LeftOut(Exception):
    """This one is not taken; the message says why, in words that hold for others too."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """`each` may be asked for more than once, and counts what it leaves out in the counter it is
    given. `fetched`: they come over a network, so several are read at a time."""

    taken_for: str
    each: Callable[[Counter[str]], Iterator[Picture]]
    fetched: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """`find` names the files that make an input of this form, none where it is not one; `read`
    takes those of them that were asked for."""

    called: str
    find: Callable[[Files], Sequence[str]]
    read: Callable[[Files, Sequence[str], Asked], Pictures]
    takes: frozenset[str] = field(default_factory=frozenset)
