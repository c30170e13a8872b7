import json

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from fpkit.teach import WIDGET, Verdict, check, exercise, exercises, runtime_badge, show


def correlate(spectrum, fingerprints):
    return max(
        fingerprints, key=lambda n: np.corrcoef(spectrum.ravel(), fingerprints[n].ravel())[0, 1]
    )


def nearest(spectrum, fingerprints):
    return min(fingerprints, key=lambda n: np.abs(spectrum - fingerprints[n]).sum())


def product(spectrum, fingerprints):
    centred = spectrum - spectrum.mean()
    return max(fingerprints, key=lambda n: -np.abs(centred - fingerprints[n]).sum())


RIGHT = {
    "peak-frequency": [0.25, -0.25, 0.5, -0.5, np.float64(0.2578125 - 0.0078125)],
    "closest-fingerprint": [correlate],
}
WRONG = {
    "peak-frequency": [32, 0.1, 0.35, float("nan"), "a quarter", [0.25, 0.5]],
    "closest-fingerprint": [nearest, product, lambda s, f: "a", lambda s: "a", "a", 3],
}
OPEN = {
    "peak-frequency": [..., None],
    "closest-fingerprint": [..., lambda spectrum, fingerprints: ...],
}


def test_every_exercise_is_tried_here():
    assert set(exercises()) == set(RIGHT) == set(WRONG) == set(OPEN)


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in RIGHT for a in RIGHT[n]])
def test_right_answers_are_ok(name, answer):
    assert check(name, answer) == Verdict(status="ok")


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in WRONG for a in WRONG[n]])
def test_wrong_answers_get_a_reason_and_nothing_is_raised(name, answer):
    verdict = check(name, answer)
    assert verdict.status == "not yet" and len(verdict.message) > 10
    assert str(verdict).startswith("not yet: ")


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in OPEN for a in OPEN[n]])
def test_untouched_stubs_count_as_not_attempted(name, answer):
    assert str(check(name, answer)) == "not attempted yet"


def test_a_mistake_of_the_notebook_is_an_error():
    with pytest.raises(KeyError, match="no exercise 'nosuch'"):
        check("nosuch", 1)
    with pytest.raises(ValueError, match="already an exercise"):
        exercise("peak-frequency")(lambda answer: None)


def test_verdicts_are_escaped_in_html():
    shown = Verdict(status="not yet", message="<b>")._repr_html_()
    assert "&lt;b&gt;" in shown and "<b>" not in shown


def test_badge_reads_the_measured_time_beside_or_above(tmp_path, monkeypatch):
    (tmp_path / "solutions").mkdir()
    monkeypatch.chdir(tmp_path / "solutions")
    assert "not measured" in runtime_badge("00_x").measured
    runtimes = {"00_x": {"seconds": 41, "cores": 2}}
    (tmp_path / "runtimes.json").write_text(json.dumps(runtimes))
    assert runtime_badge("00_x").measured == "41 s on 2 CPU cores"
    assert "41 s" in runtime_badge("00_x")._repr_html_()
    assert "not measured" in runtime_badge("01_y").measured
    assert "CPU cores" in runtime_badge("00_x").hardware


def test_shown_has_a_png_and_a_live_view_only_with_a_figure():
    picture = Image.new("RGB", (8, 8), "red")
    assert set(show(picture)._repr_mimebundle_()) == {"image/png", "text/plain"}
    bundle = show(picture, figure=go.Figure())._repr_mimebundle_()
    assert bundle[WIDGET]["model_id"] and bundle["image/png"].startswith("iVBOR")
