"""Builds the reference library of a probe; a build that was cut off goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from app.catalogue import ProbeCard
from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import read_labelled_images
from app.embedding.embed import embed_images
from app.embedding.probe import Probe, load_probe
from app.embedding.vector import TaskEmbedding
from app.reference import digits, fashion, flags, glyphs, icons, photographs, typefaces
from app.reference.library import task_card, write_library
from app.reference.sets import LabelledSet

Source = Callable[[Path], Iterator[LabelledSet]]

# No set asks what the default probe cannot tell better than by chance: its embedding would be that
# of no question at all.
SOURCES: tuple[Source, ...] = (
    digits.sets,
    fashion.sets,
    flags.sets,
    glyphs.sets,
    icons.sets,
    photographs.sets,
    typefaces.sets,
)
SEED = 0
_MAX_IMAGE_PIXELS = 2**24


def build_library(
    card: ProbeCard,
    *,
    models_dir: Path,
    cache_dir: Path,
    on_progress: Callable[[str, int, int], None] | None = None,
    sources: Sequence[Source] = SOURCES,
) -> Path:
    """Embeds every set of the sources and writes `models_dir/reference/<probe>.npz`.

    `cache_dir`    keeps the fetched packages and one embedding a set: what is there is not redone
    `on_progress`  called with a set's name, and how many of how many sets are done

    Raises Unavailable or Conflict where a package cannot be had as it was pinned.
    """
    report = on_progress or (lambda _name, _done, _total: None)
    sets = [labelled for source in sources for labelled in source(cache_dir)]
    probe = load_probe(card)
    entries = []
    for done, labelled in enumerate(sets):
        report(labelled.name, done, len(sets))
        embedding = embedded(labelled, probe, cache_dir / "embeddings" / probe.space_id)
        about = task_card(
            embedding,
            name=labelled.name,
            tags=labelled.tags,
            source=labelled.source,
            licence=labelled.licence,
        )
        entries.append((about, embedding))
    path = models_dir / "reference" / f"{card.name}.npz"
    write_library(path, entries)
    report(path.name, len(sets), len(sets))
    return path


def embedded(labelled: LabelledSet, probe: Probe, checkpoints: Path) -> TaskEmbedding:
    checkpoint = checkpoints / f"{labelled.name}-{labelled.digest[:16]}-{SEED}.npz"
    if checkpoint.exists():
        return TaskEmbedding.from_npz(checkpoint)
    images, _ = read_labelled_images(
        [labelled.archive()],
        size=probe.card.input_size,
        label_kind=labelled.label_kind,
        limits=ArchiveLimits(),
        max_image_pixels=_MAX_IMAGE_PIXELS,
    )
    embedding = embed_images(images, probe, seed=SEED)
    checkpoints.mkdir(parents=True, exist_ok=True)
    scratch = checkpoint.with_suffix(".tmp")
    scratch.write_bytes(embedding.to_npz())
    scratch.replace(checkpoint)
    return embedding
