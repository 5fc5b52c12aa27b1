"""The benchmark runs: what it prints and draws is what it has measured. How fast is no test's business."""

import json
import pathlib
from xml.etree import ElementTree

import pytest

from benchmarks.sides import NAMES
from tests.lab import ROOT, run


def test_a_table_and_a_plot(tmp_path: pathlib.Path) -> None:
    svg = tmp_path / "plot.svg"
    python = str(ROOT / ".venv" / "bin" / "python3")
    said = run(
        python, "benchmarks/bench.py", "chains", "--rounds", "2", "--only", "ptp", "--svg", str(svg), "--json", cwd=ROOT
    ).stdout
    (row,) = json.loads(said)["chains"]
    assert (row["chain"], row["processes an ADD starts"]) == ("ptp + ipMasq", 3)
    for verb in ("ADD", "DEL"):
        for side in NAMES:
            low, middle, high = row[f"{verb} {side}"]
            assert 0 < low <= middle <= high
        assert row[f"{verb} warm ÷ Go"] == pytest.approx(
            row[f"{verb} warm"][1] / row[f"{verb} Go"][1], rel=0.05
        )  # of rounded ones
    texts = [text for each in ElementTree.parse(svg).iter() for text in [each.text] if text]
    assert {"ptp + ipMasq, ADD", "ptp + ipMasq, DEL", *NAMES} <= set(texts)
