"""Two tiny real probes, a service's files and runs of a tiny network, in temporary directories."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.catalogue import DeviceCard, RecipeCard
from app.jobs.bench import Workbench
from app.settings import Settings, shared_directory
from app.store import finetunes
from app.store.blobs import BlobStore, open_blobs
from app.store.finetunes import Asked
from app.store.session import Database
from tests.cost.cards import GPU
from tests.engines import Engines
from tests.images import labelled_zip
from tests.store.samples import make_embedding, ready_task

PROBE = "test_resnet"
OTHER_PROBE = "test_convnext"
TENANT = "local"

CPU = GPU.model_copy(update={"kind": "cpu", "precision": "fp32"})
FORECAST = {
    "service": "0",
    "calibrated": False,
    "counted": {"seconds": 120.0, "energy_wh": 2.0, "memory_mib": 300.0},
    "steps": {"low": 24, "typical": 24, "high": 24, "kind": "exact"},
    "seconds": {"low": 50.0, "typical": 120.0, "high": 300.0, "kind": "uncalibrated_range"},
}


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of two cards: the tiny probes'."""
    from tests.probes import probe_card  # torch: only for the tests that need a probe

    directory = tmp_path_factory.mktemp("models")
    (directory / "probes").mkdir()
    for card in (probe_card(directory, network) for network in (PROBE, OTHER_PROBE)):
        (directory / "probes" / f"{card.name}.toml").write_text(
            f"""
            name = "{card.name}"
            version = {card.version}
            network = "{card.network}"
            licence = "{card.licence}"
            input_size = {card.input_size}
            mean = {list(card.mean)}
            std = {list(card.std)}
            epsilon = {card.epsilon}

            [weights]
            source = "{card.weights.source}"
            sha256 = "{card.weights.sha256}"
            """
        )
    return directory


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path, engines: Engines) -> Settings:
    return Settings(
        **engines.settings,
        data_dir=tmp_path / "data",
        models_dir=models_dir,
        probe=PROBE,
        device="cpu",
        threads=1,
        draws=2,
        poll_interval_seconds=0.05,
        progress_interval_seconds=0.05,
        shutdown_grace_seconds=5,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.store_url)
    database.migrate(shared_directory("migrations"))
    yield database
    database.dispose()


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return open_blobs(settings.blobs_at)


@pytest.fixture
def bench(settings: Settings, database: Database, blobs: BlobStore) -> Workbench:
    def no_probe(name: str) -> None:
        raise AssertionError("fine-tuning looks through no probe")

    return Workbench(settings, database, blobs, no_probe, lambda: False)


@pytest.fixture
def begin(bench: Workbench, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Queues a run on a task of three shapes, and tells its id and its job's."""
    from tests.training.runs import FULL, candidate  # torch: only for the tests that train

    def start(
        recipe: RecipeCard = FULL, device: DeviceCard = CPU, images: bytes = b"", **asked: Any
    ) -> tuple[str, str]:
        card = asked.pop("card", None) or candidate(tmp_path)
        blob = bench.blobs.put(io.BytesIO(images or labelled_zip(3, 16)))
        with bench.database.session() as session:
            task = ready_task(
                session, make_embedding(0), tenant=TENANT, name="shapes", archive=blob
            )
            task.label_kind_asked = "auto"
            row = finetunes.create(
                session,
                task,
                card,
                recipe,
                device,
                Asked(**asked),
                warnings=[],
                forecast=FORECAST,
            )
            return row.id, row.job.id

    return start
