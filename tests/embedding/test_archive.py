"""Archives are hostile until proven plain."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from app.embedding.archive import ArchiveLimits, inspect_archive, read_members
from app.errors import Refused, Task2VecError, TooLarge, UnsupportedMedia
from tests.images import make_tar, make_zip, png

LIMITS = ArchiveLimits()
FILES = {"cat/a.png": png("red"), "cat/b.png": png("blue"), "dog/c.png": png("green")}
PACKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": lambda files: make_tar(files, "gz"),
    "tar.zst": lambda files: make_tar(files, "zst"),
}
every_format = pytest.mark.parametrize("format_", PACKERS)


def inspect(data: bytes, limits: ArchiveLimits = LIMITS):
    return inspect_archive(io.BytesIO(data), limits)


def members(data: bytes, limits: ArchiveLimits = LIMITS) -> dict[str, bytes]:
    return {member.path: member.data for member in read_members(io.BytesIO(data), limits)}


def refusal(data: bytes, limits: ArchiveLimits = LIMITS) -> Task2VecError:
    """What both ways of looking at the archive raise."""
    with pytest.raises(Task2VecError) as inspected:
        inspect(data, limits)
    with pytest.raises(Task2VecError) as read:
        members(data, limits)
    assert read.value.code == inspected.value.code
    assert inspected.value.remedy
    return inspected.value


def tar_of(*infos: tarfile.TarInfo, format_: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def tar_info(name: str, type_: bytes = tarfile.REGTYPE, size: int = 0, link: str = ""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = type_, size, link
    return info


@every_format
def test_members_come_out_as_they_went_in(format_: str) -> None:
    data = PACKERS[format_](FILES)
    summary = inspect(data)
    assert (summary.format, summary.entries) == (format_, 3)
    assert summary.expanded_bytes >= sum(map(len, FILES.values()))
    assert members(data) == FILES


def test_folders_and_dots_are_no_part_of_the_files() -> None:
    data = tar_of(tar_info("./", tarfile.DIRTYPE), tar_info("./cat/a.png", size=3))
    assert members(data) == {"./cat/a.png"[2:]: bytes(3)}
    assert members(make_zip({"cat/": b"", "cat\\a.png": b"x"})) == {"cat/a.png": b"x"}


def test_zip_with_unflagged_utf8_names_is_understood() -> None:
    data = make_zip({"kœrper/é.png": b"x"})
    for flag in (b"PK\x03\x04\x14\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x08"):
        assert flag in data
        data = data.replace(flag, flag[:-1] + b"\x00")
    assert list(members(data)) == ["kœrper/é.png"]


def test_long_names_are_read_in_every_tar_dialect() -> None:
    name = "cat/" + "n" * 200 + ".png"
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert list(members(tar_of(tar_info(name, size=5), format_=format_))) == [name]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "7z"),
        (b"Rar!\x1a\x07\x01\x00", "RAR"),
        (b"BZh9" + bytes(10), "bzip2"),
        (png(), "PNG image"),
        (b"<html>", "no archive"),
    ],
)
def test_other_content_is_unsupported(data: bytes, says: str) -> None:
    error = refusal(data)
    assert isinstance(error, UnsupportedMedia)
    assert says in error.detail


@pytest.mark.parametrize("data", [b"", make_zip({}), make_zip({"cat/": b""}), make_tar({})])
def test_empty_archive_is_refused(data: bytes) -> None:
    assert refusal(data).code == "archive-empty"


@every_format
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_archive_is_refused(format_: str, share: float) -> None:
    data = PACKERS[format_]({f"cat/{i}.png": png((i, 7 * i % 256, 0)) for i in range(40)})
    if format_ == "tar":
        data = data[:-8192]  # so that the cut lies before the padding at its end
    error = refusal(data[: int(len(data) * share)])
    assert error.code == "archive-damaged"
    assert isinstance(error, Refused)


def test_gzip_without_its_checksum_is_refused() -> None:
    assert refusal(make_tar(FILES, "gz")[:-4]).code == "archive-damaged"


def test_damaged_zip_member_is_refused_when_read() -> None:
    data = bytearray(make_zip({"a.bin": bytes(range(256))}, zipfile.ZIP_STORED))
    data[100] ^= 255
    assert inspect(bytes(data)).entries == 1
    with pytest.raises(Refused, match="CRC"):
        members(bytes(data))


def test_zip_pointing_outside_itself_is_refused() -> None:
    data = bytearray(make_zip({"a.bin": b"x" * 100}, zipfile.ZIP_STORED))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 42, 10_000)  # the local header's offset
    assert refusal(bytes(data)).code == "archive-damaged"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "cat/../../evil.png",
        "/etc/passwd",
        "C:\\evil.png",
        "c:evil",
        "..\\x",
        "\\\\h\\s",
    ],
)
def test_path_out_of_the_archive_is_refused(name: str) -> None:
    for pack in PACKERS.values():
        error = refusal(pack({"cat/a.png": b"x", name: b"x"}))
        assert error.code == "archive-path-unsafe"


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_tar_link_is_refused(type_: bytes) -> None:
    assert refusal(tar_of(tar_info("cat/a.png", type_, link="/etc/passwd"))).code == "archive-link"


@pytest.mark.parametrize("type_", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_tar_device_is_refused(type_: bytes) -> None:
    assert refusal(tar_of(tar_info("cat/a.png", type_))).code == "archive-special-file"


def test_sparse_tar_member_is_refused() -> None:
    block = bytearray(tar_info("cat/a.png", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    block[386 : 386 + 24] = b"00000000000\000000000001\0"
    block[483:495] = b"00010000000\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert refusal(bytes(block) + bytes(1024)).code == "archive-special-file"


@pytest.mark.parametrize(
    ("mode", "code"),
    [(stat.S_IFLNK, "archive-link"), (stat.S_IFIFO, "archive-special-file")],
)
def test_zip_link_or_pipe_is_refused(mode: int, code: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("cat/a.png")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert refusal(buffer.getvalue()).code == code


def test_encrypted_zip_is_refused() -> None:
    data = bytearray(make_zip({"cat/a.png": b"x"}))
    for magic, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + flags_at] |= 1
    assert refusal(bytes(data)).code == "archive-encrypted"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unbounded_zip_method_is_refused(method: int) -> None:
    error = refusal(make_zip({"cat/a.png": b"x" * 100}, method))
    assert error.code == "archive-compression-unsupported"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused() -> None:
    assert refusal(tar_of(tar_info("a/b", size=1), tar_info("./a//b"))).code == (
        "archive-duplicate-path"
    )
    assert refusal(make_zip({"a/b": b"1", "a\\b": b"2"})).code == "archive-duplicate-path"


def test_name_that_is_not_utf8_is_refused() -> None:
    data = tar_of(tar_info("cat/\udcff.png", size=1), format_=tarfile.GNU_FORMAT)
    assert refusal(data).code == "archive-name-unreadable"


@every_format
def test_too_many_entries_are_refused(format_: str) -> None:
    error = refusal(PACKERS[format_](FILES), ArchiveLimits(max_entries=2))
    assert isinstance(error, TooLarge)
    assert error.code == "archive-too-many-entries"


@every_format
def test_too_large_entry_is_refused(format_: str) -> None:
    data = PACKERS[format_]({"cat/a.bin": b"x" * 5000})
    assert refusal(data, ArchiveLimits(max_entry_bytes=4999)).code == "archive-entry-too-large"
    assert members(data, ArchiveLimits(max_entry_bytes=5000))


@every_format
def test_too_many_expanded_bytes_are_refused(format_: str) -> None:
    data = PACKERS[format_](FILES)
    assert refusal(data, ArchiveLimits(max_expanded_bytes=100)).code == "archive-expands-too-far"


@pytest.mark.parametrize("format_", ["zip", "tar.gz", "tar.zst"])
def test_bomb_is_refused_in_little_memory(format_: str) -> None:
    data = PACKERS[format_]({f"{i}.bin": bytes(30 * 2**20) for i in range(2)})
    tracemalloc.start()
    error = refusal(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.code == "archive-expands-too-far"
    assert peak_bytes < 40 * 2**20


def test_zip_that_lies_about_its_sizes_is_refused() -> None:
    data = bytearray(make_zip({"a.bin": bytes(50 * 2**20)}))
    for magic, size_at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(magic) + size_at, 1000)
    assert inspect(bytes(data)).expanded_bytes == 1000
    with pytest.raises(Refused):
        members(bytes(data))


def test_tar_header_that_fills_memory_is_refused() -> None:
    info = tar_info("cat/a.png")
    info.pax_headers = {"comment": "x" * 2**21}
    for data in (tar_of(info), tar_of(info)[: 2**20]):
        assert refusal(data).code == "archive-header-too-large"


def test_tar_size_that_points_backwards_is_refused() -> None:
    block = bytearray(tar_info("cat/a.png").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" + (-512 & (2**88 - 1)).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert refusal(bytes(block) + bytes(1024)).code == "archive-damaged"


def test_zstd_window_that_fills_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(make_tar(FILES)) + compressor.flush()
    assert refusal(data).code == "archive-damaged"


def test_parallel_zstd_frames_are_read() -> None:
    tar = make_tar(FILES)
    compress = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"size"
    assert members(skippable + compress(tar[:3000]) + compress(tar[3000:])) == FILES


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PACKERS)), st.data())
def test_any_damage_ends_in_a_result_or_a_told_error(format_: str, data: st.DataObject) -> None:
    whole = PACKERS[format_](FILES)
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, len(whole)), max_size=4)):
        if at < len(broken):
            broken[at] = data.draw(st.integers(0, 255))
    for look in (inspect, members):
        try:
            look(bytes(broken))
        except Task2VecError as error:
            assert error.status < 500


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.sampled_from(["zip", "tar"]))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_name_is_safe_or_refused(names: list[str], format_: str) -> None:
    try:
        paths = list(members(PACKERS[format_](dict.fromkeys(names, b"x"))))
    except Task2VecError as error:
        assert error.status < 500
        return
    except UnicodeEncodeError:
        return  # the packer could not even write it
    for path in paths:
        assert path
        assert not path.startswith("/")
        assert not set(path.split("/")) & {"", ".", ".."}
