"""Writes the samples beside it with the libraries that people write theirs with.

Run by hand, from the root, where `datasets` and `webdataset` are installed; the samples are kept:

    python -m tests.inputs.samples.write
"""

from __future__ import annotations

import io
from pathlib import Path

import webdataset
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Picture

from tests.images import drawing

HERE = Path(__file__).parent
NAMES = ["circle", "square", "cross"]


def shapes(split: str, per_class: int) -> Dataset:
    kinds = [kind for kind in range(len(NAMES)) for _ in range(per_class)]
    rows = {
        "image": [drawing(NAMES[kind], f"{split}/{i}", 24) for i, kind in enumerate(kinds)],
        "label": kinds,
        "notes": [f"number {i}" for i in range(len(kinds))],
    }
    features = {"image": Image(), "label": ClassLabel(names=NAMES), "notes": Value("string")}
    return Dataset.from_dict(rows, features=Features(features))


def marks() -> Dataset:
    """Several labels of an image, one with none, and images of two columns."""
    labels = [[0], [1], [0, 1], [], [2], [2, 0]]
    rows = {
        "photo": [drawing("ring", f"photo/{i}", 24) for i in range(len(labels))],
        "mask": [Picture.new("L", (24, 24), 9 * i) for i in range(len(labels))],
        "marks": labels,
    }
    features = {"photo": Image(), "mask": Image(), "marks": List(ClassLabel(names=NAMES))}
    return Dataset.from_dict(rows, features=Features(features))


def main() -> None:
    hub = HERE / "hub" / "data"
    hub.mkdir(parents=True, exist_ok=True)
    train = shapes("train", 4)
    for index in range(2):
        train.shard(2, index, contiguous=True).to_parquet(
            hub / f"train-{index:05d}-of-00002.parquet"
        )
    shapes("test", 1).to_parquet(hub / "test-00000-of-00001.parquet")
    marks().to_parquet(HERE / "marks.parquet")
    DatasetDict(train=train, test=shapes("test", 1)).save_to_disk(HERE / "saved")
    with webdataset.ShardWriter(
        str(HERE / "webdataset" / "shapes-train-%06d.tar"), maxcount=3, mtime=0, user="", group=""
    ) as shards:
        for i, kind in enumerate((0, 1, 2, 0, 1, 2)):
            buffer = io.BytesIO()
            drawing(NAMES[kind], f"wds/{i}", 24).save(buffer, "PNG")
            shards.write(
                {
                    "__key__": f"{i:06d}",
                    "png": buffer.getvalue(),
                    "cls": kind,
                    "json": {"shape": NAMES[kind], "size": 24},
                    "txt": f"a {NAMES[kind]}",
                }
            )


if __name__ == "__main__":
    main()
