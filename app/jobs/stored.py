"""What jobs read again from the store: a task's images, at the size that a candidate takes, and the
model of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from app.embedding.dataset import AskedLabelKind, LabelledImages, read_labelled_images
from app.errors import NotFound
from app.jobs.bench import Workbench
from app.jobs.progress import Progress
from app.limits import archive_limits
from app.store import finetunes
from app.store.blobs import BlobStore
from app.store.jobs import Start
from app.store.tables import Finetune
from app.training.names import FILES


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


@contextmanager
def stored_model(run: Finetune, bench: Workbench) -> Iterator[Path]:
    """A folder of the run's name with what it left; of what is not there `read_model` tells."""
    files = finetunes.files_of(run)
    with TemporaryDirectory(prefix="task2vec-model-") as name:
        directory = Path(name, run.id)
        directory.mkdir()
        for key, file in FILES.items():
            if key in files:
                with suppress(NotFound):
                    copy_blob(bench.blobs, files[key].sha256, directory / file)
        yield directory


def copy_blob(blobs: BlobStore, sha256: str, path: Path) -> None:
    with blobs.open(sha256) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
