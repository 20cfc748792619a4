from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from app.cost.outcome_table import MOST_ROWS, kind_of, parse_outcomes, read_outcomes
from app.errors import InvalidRequest
from tests.cost.outcomes import runs

HEAD = "task,model,metric,value"


def parsed(text: str, tmp_path: Path):
    path = tmp_path / "outcomes.csv"
    path.write_text(text, encoding="utf-8")
    return read_outcomes(path, "csv")


def test_four_columns_are_enough_and_others_are_ignored(tmp_path):
    table = parsed(f"{HEAD},colour\nflowers,resnet18,accuracy,0.9,blue\n", tmp_path)
    assert table.errors == ()
    assert table.runs["value"].to_list() == [0.9]
    assert table.runs["recipe"].to_list() == [""]
    assert table.runs["seconds"].to_list() == [None]
    assert "colour" not in table.runs.columns
    assert table.ignored == ("colour",)


def test_csv_gzip_and_parquet_read_alike(tmp_path):
    frame = runs(2).with_columns(colour=pl.lit("blue"))
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    paths = [tmp_path / name for name in ("a.csv", "a.csv.gz", "a.parquet")]
    tables = [read_outcomes(path, kind_of(path)) for path in paths]
    assert tables[0].score_names == ("score_truth", "score_noise")
    for other in tables[1:]:
        assert other.runs.equals(tables[0].runs)
    assert [table.ignored for table in tables] == [("colour",)] * 3


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        ("flowers,,accuracy,0.9,,", "model", "is missing"),
        ("flowers,resnet18,accuracy,85.3,,", "value", "a share from 0 to 1"),
        ("flowers,resnet18,accuracy,nan,,", "value", "is missing, and the run did not fail"),
        ("flowers,resnet18,accuracy,fine,,", "value", "'fine' is not"),
        ("flowers,resnet18,accuracy,0.9,-1,", "seconds", "a number above 0"),
        ("flowers,resnet18,accuracy,0.9,inf,", "seconds", "a number above 0"),
        ("flowers,resnet18,accuracy,0.9,1,tired", "stop_reason", "'tired' is none of converged"),
        ("flowers,resnet18,log_loss,0.9,1,", "metric", "falls as a model gets better"),
    ],
)
def test_a_row_that_cannot_be_is_left_out_and_told_of(tmp_path, row, column, says):
    good = "birds,resnet18,accuracy,0.5,2,converged"
    table = parsed(f"{HEAD},seconds,stop_reason\n{good}\n{row}\n", tmp_path)
    assert table.runs["task"].to_list() == ["birds"]
    (error,) = table.errors
    assert (error.row, error.column) == (2, column)
    assert says in error.reason


def test_a_failed_run_needs_no_value(tmp_path):
    table = parsed(f"{HEAD},stop_reason\nflowers,resnet18,accuracy,,failed\n", tmp_path)
    assert table.errors == ()
    assert table.runs["value"].to_list() == [None]


def test_a_table_without_a_required_column_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"The columns metric and value are missing\."):
        parsed("task,model\nflowers,resnet18\n", tmp_path)
    with pytest.raises(InvalidRequest, match=r"The column value is missing\."):
        parsed("task,model,metric\nflowers,resnet18,accuracy\n", tmp_path)
    with pytest.raises(InvalidRequest, match="Separate its columns by commas"):
        parsed("task;model;metric;value\nflowers;resnet18;accuracy;0.8\n", tmp_path)


def test_a_table_of_percentages_is_refused_and_told_how_to_write_them(tmp_path):
    with pytest.raises(InvalidRequest, match=r"write 85.3% as 0.853"):
        parsed(f"{HEAD}\nflowers,resnet18,accuracy,85.3\n", tmp_path)


def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path):
    for name in ("a.csv", "a.parquet"):
        path = tmp_path / name
        path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff,,\n")
        with pytest.raises(InvalidRequest) as refused:
            read_outcomes(path, kind_of(path))
        assert "\n" not in str(refused.value)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(InvalidRequest):
        parsed("", tmp_path)
    with pytest.raises(InvalidRequest, match="No row"):
        parsed(f"{HEAD}\n", tmp_path)


def test_text_of_numbers_stays_text():
    frame = pl.DataFrame({"task": [7], "model": [18], "metric": ["accuracy"], "value": [1]})
    table = parse_outcomes(frame)
    assert table.runs.select("task", "model", "value").rows() == [("7", "18", 1.0)]


def test_a_small_file_with_too_many_rows_is_refused_before_they_are_there(tmp_path):
    path = tmp_path / "many.parquet"
    pl.select(task=pl.lit("t").repeat_by(MOST_ROWS + 1).explode()).write_parquet(path)
    assert path.stat().st_size < 2**20
    with pytest.raises(InvalidRequest, match="1,000,001 rows") as caught:
        read_outcomes(path, "parquet")
    assert caught.value.code == "outcomes-too-many"
