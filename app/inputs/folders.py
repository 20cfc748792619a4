"""A folder of label folders, or folders of splits that hold label folders."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

from app.inputs.files import Files
from app.inputs.pictures import Asked, Form, Picture, Pictures
from app.inputs.references import is_image
from app.inputs.splits import is_split, of_split

# Words of folders that hold images of any label: what a table beside them is for.
_NO_LABEL = re.compile("images?|imgs?|jpe?gs?|jpegimages|png|photos?|pictures?|data|part")


def roots_of_labels(files: Files) -> list[str]:
    """Folders whose folders are labels: "" for the input's own, or those of its splits."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for name in files.names:
        parts = PurePosixPath(name).parts
        if is_image(name) and len(parts) >= 2 and _may_be_label(parts[-2]):
            labels["/".join(parts[:-2])].add(parts[-2])
    roots = sorted(labels)
    if all(is_split(root) for root in roots) and any(len(labels[root]) > 1 for root in roots):
        return roots
    return [""] if len(labels[""]) > 1 else []


def _may_be_label(folder: str) -> bool:
    words = [word for word in re.split("[^a-z]+", folder.lower()) if word]
    return not words or any(not (_NO_LABEL.fullmatch(word) or is_split(word)) for word in words)


def _read(files: Files, chosen: Sequence[str], asked: Asked) -> Pictures:
    roots, split = of_split(chosen, asked.split) if any(chosen) else (list(chosen), "")

    def each(left_out: Counter[str]) -> Iterator[Picture]:
        for name in files.names:
            path = PurePosixPath(name)
            if not any(root == "" or name.startswith(f"{root}/") for root in roots):
                continue
            if is_image(name) and str(path.parent.parent) in (root or "." for root in roots):
                yield Picture(name, (path.parent.name,), partial(files.read, name))
            else:
                left_out["files of the split that are no image in a label's folder"] += 1

    return Pictures(f"a folder of label folders{split}", each, fetched=files.fetched)


FORM = Form("a folder of label folders", roots_of_labels, _read, frozenset(("split",)))
