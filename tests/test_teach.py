import json

import plotly.graph_objects as go
import pytest
from PIL import Image

from fpkit.teach import WIDGET, Budget, budget, runtime_badge, show


def test_budget_is_quick_unless_the_environment_says_full(monkeypatch):
    monkeypatch.delenv("FPKIT_BUDGET", raising=False)
    assert budget() == Budget(name="quick") and budget().choose(quick=1, full=2) == 1
    monkeypatch.setenv("FPKIT_BUDGET", "full")
    assert budget().choose(quick=1, full=2) == 2
    monkeypatch.setenv("FPKIT_BUDGET", "fast")
    with pytest.raises(ValueError, match="must be quick or full, got 'fast'"):
        budget()


def test_badge_reads_the_measured_time_beside_or_above(tmp_path, monkeypatch):
    (tmp_path / "solutions").mkdir()
    monkeypatch.chdir(tmp_path / "solutions")
    assert "not measured" in runtime_badge("00_x").measured
    cpu, gpu = ({"seconds": s, "cores": 2} for s in (41, 7))
    runtimes = {"00_x": {"quick": cpu, "full": {"cuda": gpu | {"hardware": "A100"}}}}
    (tmp_path / "runtimes.json").write_text(json.dumps(runtimes))
    badge = runtime_badge("00_x")
    assert badge.measured == "41 s on 2 CPU cores (quick), 7 s on A100 (full)"
    assert "41 s" in badge._repr_html_() and "CPU cores" in badge.hardware
    assert "not measured" in runtime_badge("01_y").measured
    assert "not measured" in runtime_badge("00_x", folder=tmp_path / "solutions").measured


def test_badge_names_the_budget_in_force(monkeypatch):
    for name in ("quick", "full"):
        monkeypatch.setenv("FPKIT_BUDGET", name)
        assert f"| budget {name} |" in str(runtime_badge("00_x"))


def test_shown_has_a_png_and_a_live_view_only_with_a_figure():
    picture = Image.new("RGB", (8, 8), "red")
    assert set(show(picture)._repr_mimebundle_()) == {"image/png", "text/plain"}
    bundle = show(picture, figure=go.Figure())._repr_mimebundle_()
    assert bundle[WIDGET]["model_id"] and bundle["image/png"].startswith("iVBOR")
