"""Times decoding of image files by their size, beside what estimates take it to be.

    python -m benchmarks.decoding

Files hold a smooth, grainy picture, as JPEG (quality 90) and as PNG, of 64 x 64 pixels to 12
million; each is decoded and resized to 224 px on one thread. Times are in those of the JPEG of
500 x 375 that devices' rates are of, as medians over rounds of the ratio within a round; `counted`
is `TaskFacts.decode_effort`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from app.cost.features import TaskFacts

SIZES = ((64, 64), (224, 224), (500, 375), (1000, 750), (2000, 1500), (4000, 3000))
REFERENCE = ("JPEG", (500, 375))
TARGET = (224, 224)


def picture(width: int, height: int, kind: str) -> bytes:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(
        random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    )
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grain = random.normal(0, 8, smooth.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(file, kind, quality=90)
    return file.getvalue()


def seconds_of(data: bytes) -> float:
    started = time.perf_counter()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").resize(TARGET, Image.Resampling.BICUBIC)
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    files = {(kind, size): picture(*size, kind) for kind in ("JPEG", "PNG") for size in SIZES}
    rounds = [
        {name: min(seconds_of(data) for _ in range(3)) for name, data in files.items()}
        for _ in range(options.rounds)
    ]
    reference_ms = 1e3 * statistics.median(row[REFERENCE] for row in rounds)
    rows, factors = [], []
    for kind, (width, height) in files:
        effort = statistics.median(row[kind, (width, height)] / row[REFERENCE] for row in rounds)
        counted = TaskFacts(1, 1, None, "single_label", width * height).decode_effort
        rows.append(
            {
                "format": kind,
                "pixels": width * height,
                "effort": round(effort, 2),
                "counted": round(counted, 2),
            }
        )
        factors.append(max(effort / counted, counted / effort))
        print(f"{kind:5}{width:6} x {height:<6} {effort:7.2f} times, counted {counted:7.2f}")
    print(
        json.dumps(
            {
                "reference_ms": round(reference_ms, 3),
                "worst_factor": round(max(factors), 2),
                "each": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
