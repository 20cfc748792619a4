"""One frozen set of settings from the environment (`TASK2VEC_*`) and a file, units in the names."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def shared_directory(name: str) -> Path:
    """`models` or `migrations`: beside `app/` in a checkout, inside the package in a wheel."""
    here = Path(__file__).resolve().parent
    checkout = here.parent / name
    return checkout if checkout.is_dir() else here / "_shared" / name


VectorIndex = Literal["auto", "faiss", "pgvector"]
List = Annotated[tuple[str, ...], NoDecode]
DATA_DIR = Path("task2vec-data")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class SettingsFile(TomlConfigSettingsSource):
    """What the file says that TASK2VEC_CONFIG names, or else `task2vec.toml` in the data directory.

    `said` are settings that win over the file's: they may say where the data directory is.
    """

    def __init__(self, settings_cls: type[BaseSettings], said: Mapping[str, Any]) -> None:
        named = os.environ.get("TASK2VEC_CONFIG")
        data_dir = Path(said.get("data_dir", DATA_DIR))
        self.path = Path(named).expanduser() if named else data_dir / "task2vec.toml"
        if named and not self.path.is_file():
            raise SettingsError(f"TASK2VEC_CONFIG: there is no file {self.path}")
        try:
            super().__init__(settings_cls, self.path)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self.path} is not TOML: {error}") from error
        if not named and "data_dir" in self.init_kwargs:
            raise SettingsError(f"data_dir in {self.path}: that is where this file was looked for")

    def __call__(self) -> dict[str, Any]:
        """TOML has no null: it is written as in the environment."""
        said = super().__call__()
        return {name: None if value == "null" else value for name, value in said.items()}


def _is_server(database_url: str) -> bool:
    return make_url(database_url or "sqlite://").get_backend_name() != "sqlite"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TASK2VEC_",
        env_parse_none_str="null",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # URLs hold passwords
    )

    data_dir: Path = DATA_DIR
    models_dir: Path = Field(default_factory=lambda: shared_directory("models"))
    database_url: str = Field("", repr=False)
    jobs_url: str = Field("", repr=False)
    blob_url: str = Field("", repr=False)
    blob_public_url: str = ""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    auth: Literal["auto", "required"] = "auto"
    oidc_issuer: str = ""
    oidc_audience: str = Field("", validate_default=True)
    oidc_tenant_claim: str = Field("tenant", min_length=1)
    oidc_scopes_claim: str = Field("scope", min_length=1)

    probe: str = "tf_efficientnet_lite0"
    device: str = "auto"
    estimator: Literal["hutchinson", "mc", "exact"] = "hutchinson"
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    draws: int = Field(16, ge=1, le=16)
    tolerance: float | None = Field(0.02, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int = Field(0, ge=0, description="compute threads of the worker; 0: one per core")
    embedding_memory_mib: int | None = Field(None, ge=256)

    max_upload_bytes: int = Field(2 * 2**30, ge=1)
    max_archive_entries: int = Field(200_000, ge=1)
    max_expanded_bytes: int = Field(8 * 2**30, ge=1)
    max_entry_bytes: int = Field(64 * 2**20, ge=1)
    max_expansion_ratio: float = Field(100.0, gt=1)
    max_image_pixels: int = Field(89_000_000, ge=1, le=89_000_000)

    source_prefixes: List = Field(
        (),
        description="URI prefixes (file:///data/sets/, https://host/sets/) that `source` may name",
    )
    source_networks: List = Field(
        (),
        description="networks (10.1.0.0/16) beside the public ones where sources may lie",
    )

    callback_prefixes: List = Field(
        (), description="https:// prefixes that a `callback_url` may name"
    )

    vector_index: VectorIndex = "auto"
    search_candidates: int = Field(128, ge=1)
    atlas_interval_seconds: float = Field(60.0, ge=0)
    recalibration_interval_seconds: float = Field(5.0, ge=0)
    max_job_attempts: int = Field(3, ge=1)
    max_queued_jobs: int = Field(20_000, ge=1)
    max_tenant_queued_jobs: int | None = Field(5_000, ge=1)
    max_tenant_tasks: int | None = Field(100_000, ge=1)
    max_tenant_stored_bytes: int | None = Field(2**40, ge=1)
    max_reads_per_minute: int | None = Field(6_000, ge=1)
    max_writes_per_minute: int | None = Field(1_200, ge=1)
    max_uploads_per_minute: int | None = Field(600, ge=1)
    max_tenant_jobs: int | None = Field(None, ge=1, description="at work at a time, of each queue")
    small_archive_bytes: int = Field(64 * 2**20, ge=0)
    poll_interval_seconds: float = Field(0.06, gt=0)
    progress_interval_seconds: float = Field(0.5, gt=0)
    audit_retention_days: float = Field(365.0, gt=0, le=36_500)
    job_retention_days: float | None = Field(None, ge=0)
    image_retention_days: float | None = Field(None, ge=0)
    model_retention_days: float | None = Field(None, ge=0)
    idempotency_retention_hours: float = Field(24.0, gt=0)
    shutdown_grace_seconds: float = Field(10.0, ge=0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        said = env_settings() | init_settings()
        return init_settings, env_settings, SettingsFile(settings_cls, said)

    @field_validator("database_url", "jobs_url")
    @classmethod
    def _is_a_database_url(cls, url: str) -> str:
        try:
            backend = make_url(url or "sqlite://").get_backend_name()
        except ArgumentError as error:
            raise ValueError("write it as sqlite:///PATH or postgresql+psycopg://...") from error
        if backend not in {"sqlite", "postgresql"}:
            raise ValueError(f"{backend} is not read here; use sqlite or postgresql")
        return url

    @field_validator("blob_url")
    @classmethod
    def _is_a_blob_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("leave keys out of it: they are read as the tools of AWS read them")
        on_disk = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
        if url and not on_disk and not (parts.scheme == "s3" and parts.netloc):
            raise ValueError("write it as s3://BUCKET/PREFIX or file:///DIRECTORY")
        return url

    @field_validator("blob_public_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url and not (urlsplit(url).scheme in {"http", "https"} and urlsplit(url).netloc):
            raise ValueError("write it as https://HOST")
        return url

    @field_validator("oidc_issuer")
    @classmethod
    def _is_an_issuer(cls, url: str) -> str:
        parts = urlsplit(url)
        is_near = parts.scheme == "http" and parts.hostname in LOOPBACK
        is_plain = bool(parts.hostname) and not (parts.query or parts.fragment or parts.username)
        if url and not (is_plain and (parts.scheme == "https" or is_near)):
            raise ValueError("write it as https://HOST/PATH, as the provider's tokens name it")
        return url

    @field_validator("oidc_audience")
    @classmethod
    def _is_named_with_the_issuer(cls, audience: str, info: ValidationInfo) -> str:
        if info.data.get("oidc_issuer") and not audience:
            raise ValueError("name whom the provider's tokens for this service are meant for")
        return audience

    @field_validator("source_prefixes", "source_networks", "callback_prefixes", mode="before")
    @classmethod
    def _is_a_list(cls, said: object) -> object:
        try:
            found = json.loads(said) if isinstance(said, str) else said
        except json.JSONDecodeError:
            found = None
        if not isinstance(found, list | tuple):
            raise ValueError('write it as a JSON list, ["...", "..."]')  # noqa: TRY004
        return found

    @field_validator("source_networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; write networks as 10.1.0.0/16 or fd00::/8") from error
        return networks

    @field_validator("vector_index")
    @classmethod
    def _is_of_the_database(cls, choice: VectorIndex, info: ValidationInfo) -> VectorIndex:
        if choice == "pgvector" and not _is_server(info.data.get("database_url", "")):
            raise ValueError("pgvector needs a TASK2VEC_DATABASE_URL on PostgreSQL")
        return choice

    @cached_property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{self.store_path}"

    @property
    def store_path(self) -> Path | None:
        """The file of the database, where it is one in the data directory."""
        return None if self.database_url else self.data_dir.absolute() / "task2vec.sqlite"

    @cached_property
    def engine_url(self) -> str:
        """The durable engine's tables: beside ours on PostgreSQL; SQLite has a file for them."""
        url = self.jobs_url or (self.database_url if _is_server(self.database_url) else "")
        return url or f"sqlite:///{self.data_dir.absolute() / 'jobs.sqlite'}"

    @property
    def engine_is_shared(self) -> bool:
        """Whether workers of other data directories may have their jobs in the same tables."""
        return _is_server(self.engine_url)

    @property
    def index_dir(self) -> Path:
        """Search indexes: a cache, which can be deleted while nothing runs."""
        return self.data_dir.absolute() / "index"

    @cached_property
    def blobs_at(self) -> str:
        return self.blob_url or (self.data_dir.absolute() / "blobs").as_uri()

    @property
    def finetune_dir(self) -> Path:
        """A folder a run that is at work here: what it writes before that goes to the blobs."""
        return self.data_dir.absolute() / "finetunes"

    @property
    def keys_required(self) -> bool:
        return self.auth == "required" or self.host not in LOOPBACK
