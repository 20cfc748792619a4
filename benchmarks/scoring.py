"""Times the scores of a candidate's features beside the pass over images that they are of.

    python -m benchmarks.scoring
    python -m benchmarks.scoring --images 1000 --classes 10

The default probe's network as the candidate, at its own size; one thread. The pass is timed on
--passed images and reckoned for all. Medians of --repeats, each of both in turn. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from app.catalogue import CandidateCard, get_card
from app.cost.scores import scores
from app.settings import shared_directory
from app.training.frozen import frozen_outputs
from app.training.model import candidate_network

CANDIDATE = "tf_efficientnet_lite0.in1k"
BATCH_SIZE = 32


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--passed", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    card = get_card(shared_directory("models"), CandidateCard, CANDIDATE)
    network: Any = candidate_network(card, None)
    network.eval().to(memory_format=torch.channels_last)
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(options.images) % options.classes)
    features = random.normal(size=(options.images, card.head_features)) + labels[:, np.newaxis]
    source = random.dirichlet(np.ones(1000), options.images)
    size = card.input_size
    batches = [torch.rand(BATCH_SIZE, 3, size, size)] * -(-options.passed // BATCH_SIZE)

    def look() -> None:
        for _ in frozen_outputs(network, batches, torch.device("cpu"), "fp32"):
            pass

    look()
    pairs = [
        (seconds(look), seconds(lambda: scores(features, labels, source)))
        for _ in range(options.repeats)
    ]
    # The first batch passes twice: the second time to see that its features are all there is.
    share = (1 + options.images / BATCH_SIZE) / (1 + len(batches))
    passing, scoring = (float(np.median(part)) for part in zip(*pairs, strict=True))
    found = {
        "images": options.images,
        "pass_seconds": round(passing * share, 2),
        "scores_seconds": round(scoring, 2),
        "scores_over_pass": round(float(np.median([s / (p * share) for p, s in pairs])), 3),
    }
    print(
        f"{options.images} images: {found['pass_seconds']:.1f} s to pass, "
        f"{found['scores_seconds']:.1f} s to score"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
