"""The arithmetic of benchmarks/lineage.py, on embeddings of which the answer is known."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fpkit.lineage import Calibration

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "lineage.py"
CALIBRATION = Calibration(
    intercept=0.0, slope=2.0, by_images=0.0, slope_by_images=0.0, fewest=0.5, most=8.0, bound=3.0
)
DECODERS = {"base": "a", "tune": "a", "stray": "a", "other": "b", "third": "c"}


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("lineage_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def outcome(benchmark):
    """``tune`` looks like its base, ``stray`` like another decoder's model."""
    axes = {"base": 0, "tune": 0, "stray": 1, "other": 1, "third": 2}
    generator = np.random.default_rng(0)
    embeddings = {}
    for name, axis in axes.items():
        rows = np.eye(4)[axis] + 0.05 * generator.standard_normal((6, 4))
        embeddings[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    bases = benchmark.choose_bases(DECODERS)
    return benchmark.evaluate(
        embeddings, DECODERS, bases, calibration=CALIBRATION, shots=4, draws=3, seed=0
    )


def test_one_base_per_decoder(benchmark):
    assert benchmark.choose_bases(DECODERS) == {"a": "base", "b": "other", "c": "third"}
    assert benchmark.choose_bases(DECODERS, ["tune"])["a"] == "tune"
    family = {"anythingxl-xl": "sdxl-vae", "sdxl-base-v10-vaefix": "sdxl-vae"}
    assert benchmark.choose_bases(family) == {"sdxl-vae": "sdxl-base-v10-vaefix"}
    with pytest.raises(ValueError, match="share a decoder"):
        benchmark.choose_bases(DECODERS, ["tune", "base"])
    with pytest.raises(ValueError, match="no model 'nobody'"):
        benchmark.choose_bases(DECODERS, ["nobody"])


def test_queries_and_rates(outcome):
    queried, _ = outcome
    by_name = {q.model: q for q in queried}
    assert set(by_name) == {"base", "tune", "stray"}  # of decoders with several models
    assert [q.itself for q in queried] == [True, False, False]
    assert by_name["tune"].image_rate == by_name["tune"].folder_rate == 1
    assert by_name["stray"].image_rate == by_name["stray"].folder_rate == 0
    assert by_name["tune"].probability > 0.8 > by_name["tune"].highest_other
    assert by_name["stray"].probability < 0.5 < by_name["stray"].highest_other


def test_pairs_leave_out_the_bases_themselves(outcome):
    _, pairs = outcome
    assert len(pairs["folder"].score) == 3 * 2 * 3  # draws, relatives, bases
    assert len(pairs["image"].score) == 3 * 12 * 3
    assert pairs["image"].same.mean() == pytest.approx(1 / 3)
    np.testing.assert_allclose(pairs["folder"].log_ratio, 2 * pairs["folder"].score)


def test_summary_has_intervals_over_models_and_is_json(benchmark, outcome):
    queried, pairs = outcome
    summary = benchmark.summarise(queried, pairs, seed=0)
    assert summary["all"]["models"] == summary["a"]["models"] == 2
    assert summary["all"]["folder_rate"] == 0.5
    assert summary["all"]["folder_rate_ci95"] == [0, 1]
    score, same = pairs["folder"].score, pairs["folder"].same
    wins = score[same][:, None] > score[~same][None]
    assert summary["pairs_folder"]["auc"] == pytest.approx(wins.mean(), abs=1e-4)
    json.dumps(summary, allow_nan=False)
    text = benchmark.table(queried)
    assert "| a | base (itself) | 6 |" in text and text.index("itself") < text.index("stray")


def test_works_without_probabilities(benchmark):
    rows = np.eye(3)[[0, 0, 1, 1]].astype(np.float32)
    embeddings = {"base": rows[:2], "tune": rows[:2], "other": rows[2:]}
    decoders = {"base": "a", "tune": "a", "other": "b"}
    queried, pairs = benchmark.evaluate(
        embeddings, decoders, benchmark.choose_bases(decoders),
        calibration=None, shots=1, draws=1, seed=0,
    )  # fmt: skip
    assert {q.probability for q in queried} == {None}
    assert "loss_bits" not in benchmark.summarise(queried, pairs, seed=0)["pairs_image"]
    assert "| - | - |" in benchmark.table(queried)
