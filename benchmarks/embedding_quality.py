"""Measures how well embeddings tell tasks apart, beside the published procedure and plain features.

    python -m benchmarks.embedding_quality --list           the labelled sets
    python -m benchmarks.embedding_quality                  all cells, then the figures
    python -m benchmarks.embedding_quality --shard 1/2      half of the cells alone
    python -m benchmarks.embedding_quality --figures        the figures of what cells there are
    python -m benchmarks.embedding_quality --sources flags  its tasks alone, no others' as rivals
    python -m benchmarks.embedding_quality --quick          digits alone, which need no package

The image sets are packages, fetched into --cache-dir. A cell is one method on one labelled set; it
is kept there too, so that a run that was cut off goes on, and two runs share the work by --shard.

Twin retrieval: both halves of every task are embedded. The twin of a half is its other half, its
rivals are the other halves of all other tasks of that size, of both kinds. Label sensitivity: the
rivals are the other questions on the same pool's other half, and then those on all pools' other
halves. A rival as near as the twin counts as nearer. Intervals are bootstrapped over tasks. The
mean feature has the best of three distances, figure by figure. Distances of an embedding's parts
are centred on tasks of other sources than the query's, so that nothing of its family helps. Two
samples of a task, the halves of a same-style twin, also show whether the stated errors of an
embedding are as large as they should be: nine filters in ten should differ by less than 1.645 of
them. The last line is JSON; `label_twin_first_*` there is among all pools,
`label_twin_first_*_same_pool` on the same.

`*_told` counts only the tasks whose question the probe answers better than chance in both halves
(one-sided binomial test of the cross-validated accuracy, p < 0.01); their rivals are all tasks.
Another question leaves no trace to find. These figures stand beside those of all tasks, never
instead of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from app.catalogue import ProbeCard, get_card
from app.embedding.probe import load_probe
from app.settings import shared_directory
from benchmarks.quality import tasks
from benchmarks.quality.changes import changed_sets
from benchmarks.quality.figures import Collection
from benchmarks.quality.measures import PERMUTATIONS
from benchmarks.quality.methods import METHODS, Cells, Method, Workshop
from benchmarks.quality.published import training_probe
from benchmarks.quality.report import report
from benchmarks.quality.shards import shard
from benchmarks.quality.tasks import REFERENCE_SIZE, QualitySet, spread

PUBLISHED_TASKS = 10
"""Tasks that get 9,984 published draws: each set of theirs takes 624 training passes."""

Work = list[tuple[Method, QualitySet]]


def planned(sets: Iterable[QualitySet], methods: Sequence[Method], published_tasks: int) -> Work:
    """Every cell that the figures want, whether it is there or not; the same for all shards."""
    sets = tuple(sets)
    twins = [s for s in sets if s.kind in {"same-style", "other-style"}]
    few = spread({(s.task, s.path[1]) for s in twins}, published_tasks, "published")

    def wanted(method: Method, labelled: QualitySet) -> bool:
        if method.name in {"ours", "published"}:
            return True
        if labelled.size != REFERENCE_SIZE or labelled.kind == "changed":
            return False
        return method.procedure == "compose" or (labelled.kind != "label" and labelled.task in few)

    return [(method, s) for method in methods for s in sets if wanted(method, s)]


def make_cells(work: Work, workshop: Workshop, cells: Cells) -> None:
    """Those that are not there yet."""
    started = time.perf_counter()
    for done, (method, labelled) in enumerate(work):
        if cells.load(method, labelled) is None:
            cells.save(method, labelled, workshop.embed(method, labelled))
            seconds = time.perf_counter() - started
            print(
                f"{done + 1:5} of {len(work)} {seconds:7.0f} s  {method.name:18}{labelled.name}",
                flush=True,
            )


def list_sets(sets: Iterable[QualitySet]) -> None:
    found = [s for s in sets if s.half == "A"]
    for s in found:
        if s.size == min(t.size for t in found if (t.kind, t.task) == (s.kind, s.task)):
            sizes = [t.size for t in found if (t.kind, t.task) == (s.kind, s.task)]
            print(
                f"{s.kind:12}{s.task:28}{len(s.classes):3} classes at {sizes!s:14}"
                f"{s.question:16}{' / '.join(s.path)}"
            )
    counts = Counter((s.kind, s.size, s.path[1]) for s in found)
    totals = Counter((s.kind, s.size) for s in found)
    for (kind, size), total in sorted(totals.items()):
        sources = ", ".join(
            f"{source} {n}"
            for (k, z, source), n in sorted(counts.items())
            if (k, z) == (kind, size)
        )
        print(f"{kind}, {size} a class: {total} tasks ({sources})")
    print(json.dumps({f"{kind}_{size}": total for (kind, size), total in sorted(totals.items())}))


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    sets = tasks.few_sets() if options.quick else tasks.sets(options.cache_dir)
    if options.sources:
        sets = tuple(s for s in sets if s.path[1] in options.sources)
    if options.list:
        list_sets(sets)
        return
    probe = load_probe(
        get_card(shared_directory("models"), ProbeCard, options.probe), options.device
    )
    cells = Cells(options.cache_dir / "quality" / probe.space_id)
    changed = tuple(changed_sets(sets))
    if not options.figures:
        methods = [METHODS[name] for name in options.methods]
        work = planned((*sets, *changed), methods, options.published_tasks)
        if options.sizes:
            work = [(method, s) for method, s in work if s.size in options.sizes]
        index, shards = options.shard
        make_cells(work[index - 1 :: shards], Workshop(probe, training_probe(probe)), cells)
        if shards > 1:
            return
    found = report(Collection(sets, changed, cells, probe.card.epsilon), permutations=PERMUTATIONS)
    print(json.dumps({"probe": probe.card.name, "space_id": probe.space_id, **found}))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--probe", default="tf_efficientnet_lite0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--list", action="store_true", help="the labelled sets, nothing else")
    parser.add_argument("--quick", action="store_true", help="digits alone")
    parser.add_argument("--figures", action="store_true", help="make no cells")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N")
    parser.add_argument("--methods", type=_methods, default=list(METHODS), metavar="A,B")
    parser.add_argument("--sizes", type=_numbers, default=[], metavar="10,20")
    parser.add_argument(
        "--sources", type=_names, default=[], metavar="A,B", help="sets of these alone"
    )
    parser.add_argument("--published-tasks", type=int, default=PUBLISHED_TASKS, metavar="K")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    return text.split(",")


def _methods(text: str) -> list[str]:
    unknown = set(text.split(",")) - METHODS.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"no method {unknown}; there are {', '.join(METHODS)}")
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
