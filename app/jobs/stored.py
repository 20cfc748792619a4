"""A task's stored images, read again at the size that a candidate takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

from app.embedding.dataset import AskedLabelKind, LabelledImages, read_labelled_images
from app.jobs.bench import Workbench
from app.jobs.progress import Progress
from app.limits import archive_limits
from app.store.jobs import Start


def stored_images(
    start: Start,
    archives: Sequence[str],
    size: int,
    bench: Workbench,
    progress: Progress,
    *,
    most: int | None = None,
    least_of_a_class: int = 1,
) -> LabelledImages:
    """`archives`: digests of those that hold them; the rest as `read_labelled_images` has it."""
    with ExitStack() as files:
        images, _ = read_labelled_images(
            [files.enter_context(bench.blobs.open(sha256)) for sha256 in archives],
            size=size,
            label_kind=cast("AskedLabelKind", start.label_kind),
            limits=archive_limits(bench.settings),
            max_image_pixels=bench.settings.max_image_pixels,
            most=most,
            least_of_a_class=least_of_a_class,
            decoders=bench.settings.threads or None,
            on_progress=lambda done, total: progress("intake", done, total),
        )
    return images
