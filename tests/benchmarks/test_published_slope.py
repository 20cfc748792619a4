from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import published_slope


def test_the_slope_is_that_of_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["task,model,metric,value", "easy,unheard_of,accuracy,0.5"]
    for task, level in (("easy", 1.0), ("hard", -1.0)):
        for model, percent in published_slope.TOP1_PERCENT.items():
            x = level + 0.6 * np.log(percent / (100 - percent))
            rows.append(f"{task},{model},accuracy,{1 / (1 + np.exp(-x)):.6f}")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(rows), encoding="utf-8")
    published_slope.main([str(path)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["slope"] == pytest.approx(0.6, abs=1e-3)
    assert found["by_task"]["hard"] == pytest.approx(0.6, abs=1e-3)
    assert found["residual_sd"] < 1e-3
