from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from app.errors import Conflict, Unavailable
from app.reference.packages import Package, fetch


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm package, and on the PATH an `npm` that serves it and nothing else."""
    archive = tmp_path / "shapes-1.2.3.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("package/LICENSE")
        member.size = len(b"MIT")
        tar.addfile(member, io.BytesIO(b"MIT"))
    client = tmp_path / "bin" / "npm"
    client.parent.mkdir()
    client.write_text(
        f"#!/bin/sh\n"
        f'[ "$1 $4" = "pack @open/shapes@1.2.3" ] || {{ echo "no such package" >&2; exit 1; }}\n'
        f"cp {archive} .\n"
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:/usr/bin:/bin")
    return archive


def package(sha256: str, version: str = "1.2.3") -> Package:
    return Package("npm", "@open/shapes", version, sha256)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_is_fetched_once(packed: Path, tmp_path: Path) -> None:
    shapes = package(sha256(packed))
    root = fetch(shapes, tmp_path / "cache")
    assert (root / "package" / "LICENSE").read_text() == "MIT"
    packed.unlink()
    assert fetch(shapes, tmp_path / "cache") == root


def test_a_package_with_other_bytes_is_refused_and_not_kept(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="not the pinned") as refused:
        fetch(package("0" * 64), tmp_path / "cache")
    assert refused.value.code == "package-differs"
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


def test_what_the_client_said_is_told(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"@open/shapes 9\.9\.9 \(npm\).*no such package"):
        fetch(package("0" * 64, version="9.9.9"), tmp_path / "cache")


def test_a_missing_client_is_unavailable(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as missing:
        fetch(package("0" * 64), tmp_path / "cache")
    assert missing.value.remedy.startswith("Install the client of the npm registry")
