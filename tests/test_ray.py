"""Units under Ray: what one process does with them, and runs in which processes are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fpkit.cli import main
from fpkit.corpus import Corpus, embed_corpus, read_embeddings
from fpkit.corpus_plan import CorpusConfig
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.images import write_png
from fpkit.ray_run import _pool, _UnitProcess, _UnitTask, embed_on_ray

IMAGES, UNIT = 90, 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Two tiny untrained extractors."""
    folder = tmp_path_factory.mktemp("weights")
    config = ExtractorConfig(crop=32, widths=(4, 4), positions=1, dim=6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Extractor(config).save(folder)
        Extractor(config).save(folder / "another")
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """So many images, one of them bad."""
    folder = tmp_path_factory.mktemp("images")
    noise = torch.Generator().manual_seed(0)
    for k in range(IMAGES - 1):
        write_png(folder / f"{k:03d}.png", torch.rand(3, 40, 40, generator=noise))
    (folder / "bad.png").write_text("no image")
    return folder


def planned(out: Path, tree: Path, weights: Path, unit: int = UNIT) -> Corpus:
    extractor = load_extractor(weights)
    return Corpus.plan(
        out,
        CorpusConfig(
            sources=(str(tree),), extractor_hash=extractor.hash, dim=extractor.dim, unit=unit
        ),
    )


def parts(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.parquet")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tree, weights) -> Path:
    """What one process makes, without Ray."""
    out = tmp_path_factory.mktemp("alone")
    embed_corpus(planned(out, tree, weights), load_extractor(weights))
    return out


def task_of(corpus: Corpus, weights: Path | str) -> _UnitTask:
    return _UnitTask(folder=corpus.folder, plan_hash=corpus.plan_hash, extractor=os.fspath(weights))


# ---- one process -------------------------------------------------------------------------------


def test_a_unit_done_twice_is_the_file_that_a_run_alone_makes(tmp_path, tree, weights, alone):
    corpus = planned(tmp_path, tree, weights)
    twice = [_UnitProcess(task_of(corpus, weights), "cpu", workers) for workers in (1, 2)]
    for process in twice:
        result = process({"unit": list(range(len(corpus.counts)))})
        assert result["unit"] == list(range(len(corpus.counts)))
        assert result["images"] == corpus.counts and sum(result["errors"]) == 1
        assert set(result["wrong"]) == {""} and set(result["errno"]) == {0}
        assert parts(tmp_path) == parts(alone)


def test_machines_that_do_not_see_the_same_are_told(tmp_path, tree, weights):
    corpus = planned(tmp_path / "out", tree, weights)
    task = task_of(corpus, weights)
    cases = {
        "a folder that all machines share": replace(task, plan_hash="0" * 64),
        "one that all machines share": replace(task, folder=tmp_path / "elsewhere"),
        "the same extractor": task_of(corpus, weights / "another"),
        "holds no extractor": task_of(corpus, tmp_path / "elsewhere"),
    }
    for words, wrong in cases.items():
        result = _UnitProcess(wrong, "cpu", 1)({"unit": [0]})
        assert words in result["wrong"][0] and result["images"] == [0]
    assert not corpus.finished()


def test_a_full_disk_keeps_its_number(tmp_path, tree, weights, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "part")

    corpus = planned(tmp_path, tree, weights)
    monkeypatch.setattr(Corpus, "write", full)
    result = _UnitProcess(task_of(corpus, weights), "cpu", 1)({"unit": [0]})
    assert result["errno"] == [28]
    assert result["wrong"][0].startswith("No space left on device: part (on ")


# ---- what a cluster has room for ---------------------------------------------------------------

MIXED = [(True, 5, 0), (True, 4, 2), (True, 8, 1), (False, 64, 8)]  # alive, cores, GPUs


@pytest.mark.parametrize(
    ("processor", "processes", "workers", "units", "expected"),
    [
        (None, None, None, 99, ("cuda", 3, None, 1, 1)),  # one for each GPU of those alive
        ("cpu", None, None, 99, ("cpu", 17, 1, 1, 0)),
        ("cpu", None, 3, 99, ("cpu", 1 + 1 + 2, 3, 3, 0)),  # no process on two machines
        ("cpu", 2, None, 99, ("cpu", 2, 1, 1, 0)),
        ("cuda", 9, 4, 99, ("cuda", 3, 4, 1, 1)),
        (None, None, None, 2, ("cuda", 2, None, 1, 1)),
    ],
)
def test_processes_fill_the_machines(monkeypatch, processor, processes, workers, units, expected):
    cluster(monkeypatch, MIXED)
    pool = _pool(processor, processes, workers, units=units)
    assert expected == (pool.processor, pool.processes, pool.workers, pool.cores, pool.gpus)


def test_what_no_machine_has_is_an_error(monkeypatch):
    cluster(monkeypatch, [(True, 2, 0)])
    assert _pool(None, None, None, units=9).processor == "cpu"
    with pytest.raises(ValueError, match="no machine of the 1 that Ray knows has a GPU"):
        _pool("cuda", None, None, units=9)
    with pytest.raises(ValueError, match="3 free cores: .* fewer --workers"):
        _pool("cpu", None, 3, units=9)


def cluster(monkeypatch, machines) -> None:
    nodes = [
        {
            "Alive": alive,
            "Resources": {"CPU": float(cores)} | ({"GPU": float(gpus)} if gpus else {}),
        }
        for alive, cores, gpus in machines
    ]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))


# ---- the verb, before Ray starts ---------------------------------------------------------------


def test_without_ray_the_extra_is_named(tmp_path, tree, weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["embed", str(tree), "--out", str(tmp_path), "--extractor", str(weights)]
    assert main([*words, "--ray", "local"]) == 1
    assert "pip install 'fpkit[cluster]'" in capsys.readouterr().err
    assert main([*words, "--ray", "ray://somewhere:10001"]) == 1
    assert "give the command on a machine of the cluster" in capsys.readouterr().err
    assert main([*words, "--ray", "local", "--device", "cuda:1"]) == 1
    assert "--device is cpu or cuda with --ray" in capsys.readouterr().err


def test_a_finished_run_needs_no_ray(alone, tree, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    summary = embed_on_ray(planned(alone, tree, weights), extractor=weights)
    assert (summary.images, summary.errors, summary.new) == (IMAGES, 1, 0)


# ---- with Ray ----------------------------------------------------------------------------------

# stops one process at its work, and kills it once the other one has done a unit meanwhile
KILLING = """
import json, signal, sys
import psutil
from fpkit.corpus import Corpus
from fpkit.ray_run import embed_on_ray

stopped, killed = [], []


def at_work():
    for process in psutil.Process().children(recursive=True):
        try:
            if "_UnitProcess" in " ".join(process.cmdline()):
                yield process
        except psutil.Error:
            pass


def on_images(count):
    if not stopped:
        stopped.append(next(at_work()))
        stopped[0].send_signal(signal.SIGSTOP)
    elif not killed and any(process != stopped[0] for process in at_work()):
        stopped[0].send_signal(signal.SIGKILL)
        killed.append(stopped[0].pid)


summary = embed_on_ray(
    Corpus(sys.argv[1]), extractor=sys.argv[2], processes=2, on_images=on_images
)
print(json.dumps([summary.images, summary.errors, summary.new, len(killed)]))
"""


@pytest.fixture
def with_ray():
    pytest.importorskip("ray", reason="the extra cluster is not installed")


@pytest.mark.slow
def test_every_image_is_there_once_when_one_of_two_processes_is_killed(
    with_ray, tmp_path, tree, weights
):
    listed = tmp_path / "images.txt"  # as many as last until both processes are there
    listed.write_text("\n".join(map(str, sorted(tree.iterdir()) * 60)))
    alone, shared = (
        planned(tmp_path / name, listed, weights, unit=60) for name in ("alone", "shared")
    )
    embed_corpus(alone, load_extractor(weights))
    script = [sys.executable, "-c", KILLING, str(shared.folder), str(weights)]
    result = subprocess.run(script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [60 * IMAGES, 60, 60 * IMAGES, 1], result.stderr
    assert parts(shared.folder) == parts(alone.folder)
    paths = read_embeddings(shared.folder)["path"].to_pylist()
    assert "\n".join(paths) == listed.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_goes_on_and_leaves_no_process(
    with_ray, tmp_path, tree, weights, alone, number
):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "fpkit", "embed", str(tree), "--out", str(out)]
    words += ["--unit", str(UNIT), "--extractor", str(weights), "--ray", "local", "--json"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None and not list(out.glob("part-*")):
            time.sleep(0.01)
        run.send_signal(number)
        error = run.communicate()[1]
    assert run.returncode == (-number if number == signal.SIGKILL else 128 + number), error
    time.sleep(2)  # the last processes end by themselves
    before = len(list(out.glob("part-*")))
    assert 0 < before < IMAGES // UNIT
    time.sleep(2)
    assert len(list(out.glob("part-*"))) == before
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["images"] == IMAGES and facts["new"] == IMAGES - UNIT * before
    assert parts(out) == parts(alone)
