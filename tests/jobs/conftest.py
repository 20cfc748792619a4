"""Two tiny real probes and a service's files, all in temporary directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings, shared_directory
from app.store.blobs import BlobStore
from app.store.session import Database

PROBE = "test_resnet"
OTHER_PROBE = "test_convnext"
TENANT = "local"


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
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    return Settings(
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
    return BlobStore(settings.blob_dir)
