"""What is left when a disk is full, a folder forbidden, a run stopped, or two write at once."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fpkit import cli_enrol, embedding_cache, validation
from fpkit.arch import ArchSpec
from fpkit.assets import append_line, write_bytes_atomic
from fpkit.cli import main
from fpkit.embedding_cache import EmbeddingCache, image_hash
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.gallery import Gallery
from fpkit.images import write_png
from fpkit.learner import Learner
from fpkit.locks import lock_path, locked
from fpkit.stream import Sources, StreamConfig
from fpkit.temporaries import OLD, sweep, temporary_beside
from fpkit.tensor_files import open_tensors
from fpkit.training import CHECKPOINT, TrainConfig, train
from fpkit.zoo import Zoo

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Three models of three images each, and a tiny untrained extractor."""
    folder = tmp_path_factory.mktemp("inputs")
    for model in range(3):
        for image in range(3):
            generator = torch.Generator().manual_seed(10 * model + image)
            noise = torch.rand(3, 132, 130, generator=generator)
            write_png(folder / "tree" / f"m{model}" / f"{image}.png", noise / (model + 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Extractor(ExtractorConfig(widths=(8, 8), positions=1, dim=16))
    network.save(folder / "extractor")
    return folder


@contextmanager
def file_size_limit(size: int):
    """Writes beyond `size` bytes of a file fail, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- full, forbidden ---------------------------------------------------------------------------


@posix
def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path):
    path = tmp_path / "my.gallery"
    write_bytes_atomic(path, b"old")
    with file_size_limit(2000), pytest.raises(OSError, match="untouched: free some space") as info:
        write_bytes_atomic(path, bytes(9000))
    assert info.value.errno == errno.EFBIG and info.value.filename == str(path)
    assert path.read_bytes() == b"old" and names(tmp_path) == {"my.gallery"}


@posix
def test_a_line_is_appended_whole_or_that_is_an_error(tmp_path):
    path = tmp_path / "log"
    with file_size_limit(100):
        append_line(path, "x" * 60)
        with pytest.raises(OSError, match="No space left.*log"):
            append_line(path, "y" * 60)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 128 kB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_enrolling_on_a_full_disk_keeps_the_gallery(small_disk, inputs, capsys):
    use = ["--extractor", str(inputs / "extractor")]
    gallery = small_disk / "my.gallery"
    assert main(["enrol", str(gallery), str(inputs / "tree"), *use]) == 0
    before = gallery.read_bytes()
    (small_disk / "filler").write_bytes(bytes(4096 * (os.statvfs(small_disk).f_bavail)))
    again = ["enrol", str(gallery), "--remove", "m0", *use]
    capsys.readouterr()
    assert main(again) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "No space left on device" in line and str(gallery) in line
    assert "to go on: fpkit enrol" in line
    assert gallery.read_bytes() == before
    (small_disk / "filler").unlink()
    assert main(again) == 0
    assert not [name for name in names(small_disk) if name.endswith(".part")]


FORBIDDEN = """
import json, os, sys
from pathlib import Path
from fpkit.cli import main
folder, inputs = map(Path, sys.argv[1:])
use = ["--extractor", str(inputs / "extractor")]
tree = str(inputs / "tree")
assert main(["enrol", str(folder / "open" / "a.gallery"), tree, *use]) == 0
for name in ("closed", "empty"):
    (folder / name).mkdir()
(folder / "closed" / "a.gallery").write_bytes((folder / "open" / "a.gallery").read_bytes())
os.chmod(folder / "open" / "a.gallery", 0o444)
for path in (folder / "closed", folder / "empty"):
    os.chmod(path, 0o555)
os.chmod(folder / "open" / "secret", 0)
if os.geteuid() == 0:
    for path in folder.rglob("*"):
        os.chown(path, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
print("--", file=sys.stderr)
for words in (
    ["enrol", folder / "empty" / "new.gallery", tree],
    ["enrol", folder / "closed" / "a.gallery", "--remove", "m0"],
    ["enrol", folder / "open" / "a.gallery", "--remove", "m0"],
    ["enrol", folder / "open" / "secret", "--remove", "m0"],
    ["enrol", folder / "closed" / "a.gallery", "--list", "--json"],
    ["bench", tree, "--cache", folder / "empty" / "cache"],
):
    code = main([*map(str, words), *use])
    print("code", code, file=sys.stderr)
"""


@pytest.fixture
def shared_place(inputs):
    """A folder that other users reach, which those of pytest are not, with a copy of the inputs."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copytree(inputs, place / "inputs")
        (place / "open").mkdir()
        (place / "open" / "secret").write_bytes(b"")
        yield place
        for path in (place / "closed", place / "empty"):
            path.chmod(0o755)


@posix
def test_without_permission_nothing_changes_and_the_file_is_named(shared_place):
    place = shared_place
    command = [sys.executable, "-c", FORBIDDEN, str(place), str(place / "inputs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.partition("--\n")[2].splitlines()
    codes = [line.removeprefix("code ") for line in lines if line.startswith("code ")]
    assert codes == ["1", "1", "1", "1", "0", "1"], done.stderr
    errors = [line for line in lines if line.startswith("fpkit: error")]
    expected = ["empty", "closed/a.gallery", "open/a.gallery", "open/secret", "empty"]
    assert all(name in line for name, line in zip(expected, errors, strict=True)), errors
    assert all("ermission" in line for line in errors), errors
    assert len({path.read_bytes() for path in place.rglob("a.gallery")}) == 1
    assert names(place / "empty") == set() and not list(place.rglob("*.part"))


# ---- leftovers, locks --------------------------------------------------------------------------


@posix
def test_what_dead_writers_left_is_swept_and_nothing_else(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = temporary_beside(tmp_path / "x")
    dead = Path(str(mine).replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    machine = mine.name.split("-")[1]
    foreign = tmp_path / dead.name.replace(machine, "00000000")
    ancient = tmp_path / foreign.name.replace("00000000", "00000001")
    others = [tmp_path / ".other.part", tmp_path / "model.safetensors"]
    for path in (mine, dead, foreign, ancient, *others):
        path.write_bytes(b"half")
    os.utime(ancient, (time.time() - 2 * OLD,) * 2)
    assert set(sweep(tmp_path)) == {dead, ancient}
    assert names(tmp_path) == {path.name for path in (mine, foreign, *others)}


def test_a_name_as_long_as_can_be_is_written(tmp_path):
    path = tmp_path / ("n" * 255)
    write_bytes_atomic(path, b"x")
    with locked(path):
        assert path.read_bytes() == b"x" and lock_path(path).exists()


def test_a_lock_keeps_others_out_and_ends(tmp_path):
    def refused() -> str:
        with pytest.raises(BlockingIOError) as info, locked(tmp_path, wait=0):
            pass
        return str(info.value)

    with ThreadPoolExecutor(1) as other:
        with locked(tmp_path):
            assert "another process is working on" in other.submit(refused).result()
        with locked(tmp_path, wait=0):
            pass


def test_many_who_edit_one_gallery_lose_nothing(tmp_path):
    path = tmp_path / "g"

    def work(writer: int) -> None:
        for k in range(5):
            with Gallery.edit(path, extractor_hash="e", dim=4) as gallery:
                gallery.enrol(f"{writer}-{k}", np.eye(4)[:1])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(Gallery.load(path, extractor_hash="e")) == 30


def test_an_edit_that_fails_saves_nothing(tmp_path):
    with (
        pytest.raises(KeyError),
        Gallery.edit(tmp_path / "g", extractor_hash="e", dim=4) as gallery,
    ):
        gallery.enrol("a", np.eye(4)[:1])
        gallery.remove("b")
    assert not (tmp_path / "g").exists()


def test_two_who_add_to_one_zoo_lose_nothing(tmp_path):
    def entry(seed: int) -> dict[str, object]:
        arch = ArchSpec().id
        file = f"{arch}-seed{seed}.safetensors"
        record = {"model_id": f"{arch}/seed{seed}", "arch_id": arch, "seed": seed, "file": file}
        return record | {"residual": 0.1, "reached": True, "steps": 2}

    first = Zoo.create(tmp_path, source="here")
    second = Zoo.load(tmp_path)
    first.register([entry(0)])
    second.register([entry(1)])
    assert [e["seed"] for e in Zoo.load(tmp_path).entries] == [0, 1]
    first.register([entry(2)], order=[entry(seed)["model_id"] for seed in (2, 0)])
    assert [e["seed"] for e in first.entries] == [2, 0, 1]


# ---- stopped and gone on -----------------------------------------------------------------------


@pytest.fixture
def stop_after(monkeypatch):
    """Send this process a signal when the extractor has embedded `count` images."""
    # a shell has the jobs that it starts in the background ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def prepare(count: int, number: int) -> list[int]:
        embed, calls = Extractor.embed, []

        def counted(self, images, **options):
            calls.append(len(images))
            if len(calls) > count:
                signal.raise_signal(number)
            return embed(self, images, **options)

        monkeypatch.setattr(Extractor, "embed", counted)
        return calls

    yield prepare
    signal.signal(signal.SIGINT, before)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("every", [30.0, 0.0], ids=["by model", "by image"])
def test_enrolling_stops_and_goes_on(
    inputs, tmp_path, stop_after, capsys, number, every, monkeypatch
):
    monkeypatch.setattr(cli_enrol, "EVERY", every)
    handler = signal.getsignal(signal.SIGTERM)
    whole, gallery = tmp_path / "whole", tmp_path / "my gallery"
    words = [str(inputs / "tree"), "--extractor", str(inputs / "extractor"), "--json"]
    assert main(["enrol", str(whole), *words]) == 0
    stop_after(5, number)
    capsys.readouterr()
    assert main(["enrol", str(gallery), *words]) == 128 + number
    line = capsys.readouterr().err
    assert line.startswith("fpkit: interrupted; what was finished is kept, to go on: fpkit enrol ")
    assert f"'{gallery}'" in line and line.count("\n") == 1
    kept = Gallery.load(gallery, extractor_hash=load_extractor(inputs / "extractor").hash)
    assert kept.counts == ({"m0": 3} if every else {"m0": 3, "m1": 2})
    monkeypatch.undo()
    assert main(["enrol", str(gallery), *words]) == 0
    assert json.loads(capsys.readouterr().out)["known"] == sum(kept.counts.values())
    assert gallery.read_bytes() == whole.read_bytes()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_removing_in_front_of_a_folder_may_be_done_again(inputs, tmp_path, capsys):
    gallery, use = str(tmp_path / "g"), ["--extractor", str(inputs / "extractor")]
    words = ["enrol", gallery, str(inputs / "tree"), "--remove", "gone", *use]
    assert main(words) == 0
    assert "gone: is not enrolled, nothing to forget" in capsys.readouterr().err
    assert main(["enrol", gallery, "--remove", "gone", *use]) == 1


def test_a_benchmark_goes_on_with_what_it_embedded(
    inputs, tmp_path, stop_after, capsys, monkeypatch
):
    use = ["--extractor", str(inputs / "extractor"), "--draws", "2", "--json"]
    words = ["bench", str(inputs / "tree"), "--degrade", "jpeg75", *use]
    assert main(words) == 0
    whole = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(embedding_cache, "EVERY", 0.0)
    kept = [*words, "--cache", str(tmp_path)]
    stop_after(11, signal.SIGINT)
    assert main(words) == 130
    assert "nothing is kept; a run with --cache DIR" in capsys.readouterr().err
    monkeypatch.undo()
    stop_after(11, signal.SIGINT)
    assert main(kept) == 130
    assert "to go on: fpkit bench" in capsys.readouterr().err
    monkeypatch.undo()
    calls = stop_after(99, signal.SIGINT)
    assert main(kept) == 0
    assert len(calls) == 2 * 9 - 11
    assert _timeless(json.loads(capsys.readouterr().out)) == _timeless(whole)


def _timeless(value):
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "seconds_per_image"}
    return value


def test_the_cache_knows_images_by_their_pixels_and_extractors_apart(tmp_path):
    image = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0))
    assert image_hash(image) == image_hash(image.clone())
    assert image_hash(image) != image_hash(image.reshape(3, 12, 8))
    assert image_hash(image) != image_hash(image.nextafter(torch.tensor(1.0)))
    with EmbeddingCache(tmp_path, "e" * 64, 2) as cache:
        cache.add("a", np.float32([1, 2]), 0.5)
        cache.add("b", np.float32([3, 4]), 0.5)
    again = EmbeddingCache(tmp_path, "e" * 64, 2)
    assert (
        sorted(again) == ["a", "b"]
        and len(again) == 2
        and again.find("b")[0].tolist() == [3, 4]
        and again.find("c") is None
    )
    assert len(EmbeddingCache(tmp_path, "f" * 64, 2)) == 0
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged: delete it"):
        EmbeddingCache(tmp_path, "e" * 64, 2)


def test_enrolling_an_image_again_changes_nothing(tmp_path):
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    keys = [f"image {k}" for k in range(6)]
    whole, parts = Gallery("e", 4), Gallery("e", 4)
    whole.enrol("m", rows, images=keys)
    for start, stop in ((0, 2), (1, 5), (4, 6)):
        parts.enrol("m", rows[start:stop], images=keys[start:stop])
    assert parts.counts == whole.counts == {"m": 6} and parts.images("m") == set(keys)
    whole.save(tmp_path / "whole")
    parts.save(tmp_path / "parts")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    with pytest.raises(ValueError, match="one per embedding, got 2 for 1"):
        parts.enrol("m", rows[:1], images=["a", "b"])


CONFIG = TrainConfig(
    steps=4,
    warmup=1,
    validate_every=4,
    checkpoint_every=1,
    stream=StreamConfig(models=4, images=2, random_share=1.0, sources=4, jpeg_share=0.0),
    extractor=ExtractorConfig(crop=64, widths=(8, 8), dim=8),
)


@posix
def test_half_a_step_is_never_a_checkpoint(tmp_path, monkeypatch):
    """A signal to all processes ends those that make batches too, in the middle of a step."""
    sources = Sources(procedural=4)
    monkeypatch.setattr(validation, "RANDOM", 2)  # less to wait for
    step, signalled, before = Learner.step, [signal.SIGTERM], []

    def torn(self, crops, labels, number):
        if number == 2:
            before.append((out / CHECKPOINT).read_bytes())
        loss = step(self, crops, labels, number)
        if number == 2:
            if signalled:
                signal.raise_signal(signalled[0])
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal")
        return loss

    out = tmp_path / "stopped"
    monkeypatch.setattr(Learner, "step", torn)
    with pytest.raises(KeyboardInterrupt) as info:
        train(CONFIG, sources=sources, out=out, progress=False)
    assert info.value.args == (signal.SIGTERM,)
    with open_tensors(out / CHECKPOINT) as file:
        assert file.metadata["step"] == "2"
    signalled.clear()
    with pytest.raises(ChildProcessError, match="fewer than 0 workers"):
        train(CONFIG, sources=sources, out=out, progress=False)
    assert before == [(out / CHECKPOINT).read_bytes()] * 2
    with ThreadPoolExecutor(1) as other, locked(out):
        second = other.submit(train, CONFIG, sources=sources, out=out, progress=False)
        with pytest.raises(BlockingIOError, match="another process is working on"):
            second.result()


def test_a_card_of_other_weights_is_refused(inputs, tmp_path):
    extractor = load_extractor(inputs / "extractor")
    extractor.save(tmp_path)
    extractor.head.bias.data += 1
    extractor.save(tmp_path / "other")
    card = (tmp_path / "other" / "extractor.json").read_bytes()
    (tmp_path / "extractor.json").write_bytes(card)  # as a kill between the two files leaves it
    with pytest.raises(ValueError, match="is the card of the extractor"):
        load_extractor(tmp_path)


@posix
@pytest.mark.slow
def test_a_build_on_two_cores_stops_at_once_and_in_one_line(tmp_path):
    command = [sys.executable, "-m", "fpkit", "zoo", "build", "--preset", "tiny", "--jobs", "2"]
    command += ["--max-steps", "60", "--device", "cpu", "--json", "--out", str(tmp_path / "zoo")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("zoo/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, line = process.communicate(timeout=20)
    assert process.returncode == 130 and line.count("\n") == 1, line
    assert "to go on: fpkit zoo build" in line and line.endswith("--resume\n")
    assert len(Zoo.load(tmp_path / "zoo").written(Zoo.load(tmp_path / "zoo").model_ids)) < 8
