"""Many images to embeddings: sources, units, runs that are stopped, and the verb."""

import inspect
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fpkit import corpus as corpora
from fpkit.cli import main
from fpkit.columns import from_arrow
from fpkit.corpus import Corpus, embed_corpus, extractor_hash, read_embeddings
from fpkit.corpus_plan import PLAN, CorpusConfig
from fpkit.corpus_unit import CHUNK, embed_unit
from fpkit.evidence import gather_evidence
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.images import ImageReadError, jpeg, read_image, write_png
from fpkit.locks import locked
from fpkit.shards import Item, RowReader
from fpkit.sources import list_items, read_item

SIDE = 40


def noise(seed: int, side: int = SIDE) -> torch.Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny untrained extractor."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Extractor(ExtractorConfig(crop=32, widths=(4, 4), positions=1, dim=6)).save(folder)
    return folder


@pytest.fixture(scope="module")
def extractor(weights) -> Extractor:
    return load_extractor(weights)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """21 images in two folders and 3 bad ones."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(21):
        write_png(folder / f"model{seed % 2}" / f"{seed:02d}.png", noise(seed))
    (folder / "model0" / "empty.png").write_bytes(b"")
    (folder / "model1" / "text.jpg").write_text("no image")
    write_png(folder / "model1" / "small.png", noise(0, 16))
    return folder


def png(seed: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    levels = (noise(seed) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def names(items: list[Item], root: Path) -> list[str]:
    return [item.path.removeprefix(f"{root}/") for item in items]


# ---- sources -----------------------------------------------------------------------------------


def test_a_tree_is_listed_by_name_without_hidden_files_links_to_folders_and_the_output(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a/x/3.webp", "z.png", ".h/4.png", "b/.5.png", "n.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "6.png").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.png").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "z.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    found = list(list_items([tmp_path], leave_out=tmp_path / "out"))
    wanted = ["circle.png", "link.png", "z.png", "a/x/3.webp", "b/1.JPG", "b/2.png"]
    assert names(found, tmp_path) == wanted
    assert {item.kind for item in found} == {"file"}
    assert [os.fsdecode(item.file) for item in found] == [str(tmp_path / name) for name in wanted]
    with pytest.raises(ImageReadError, match="symbolic links"):
        read_item(found[0])


def test_a_list_may_name_anything_and_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png("a b.png", noise(1))
    write_tar(Path("s.tar"), {"m.png": png(2)})
    Path("list.txt").write_bytes(b"a b.png\r\n\ns.tar\nmissing.png\na b.png\n\xff.png\n")
    found = list(list_items(["list.txt"]))
    paths = ["a b.png", "s.tar/m.png", "missing.png", "a b.png", "\\udcff.png"]
    assert [item.path for item in found] == paths
    assert read_item(found[1]) == png(2)
    assert read_item(found[0]) == Path("a b.png").read_bytes()
    with pytest.raises(ImageReadError, match="^no such file$"):
        read_item(found[2])


def test_what_is_no_source_is_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        list(list_items([tmp_path / "nowhere"]))
    (tmp_path / "s.tar.gz").write_bytes(b"\x1f\x8b\0\0")
    with pytest.raises(ValueError, match="expected a folder, an image, .tar or .parquet"):
        list(list_items([tmp_path / "s.tar.gz"]))


def test_a_deep_tree_is_no_recursion(tmp_path):
    (tmp_path / "/".join(["d"] * 200)).mkdir(parents=True)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert list(list_items([tmp_path])) == []
    finally:
        sys.setrecursionlimit(limit)


def test_members_are_read_where_tarfile_finds_them(tmp_path):
    members = {f"{'long/' * 30}{k}.png": png(k) for k in range(4)} | {"k.json": b"{}", "e.png": b""}
    members |= {"x/._0.png": b"apple"}
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = write_tar(tmp_path / f"{format}.tar", members, format=format)
        found = list(list_items([path]))
        wanted = [name for name in members if name.endswith(".png") and "._" not in name]
        assert names(found, path) == wanted
        assert [read_item(item) for item in found] == [members[name] for name in wanted]


def test_listing_a_tar_keeps_none_of_its_members(tmp_path):
    path = write_tar(tmp_path / "t.tar", {f"{k}.png": b"x" for k in range(2000)})
    tracemalloc.start()
    try:
        assert sum(1 for _ in list_items([path])) == 2000
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("keep", [100, 512, 700, 1536, 1600, 2048, 4096])
def test_a_cut_off_tar_gives_what_is_there_and_says_so(tmp_path, keep):
    members = {f"{k}.png": bytes([k]) * 600 for k in range(3)}  # 512 of header, 1024 of content
    path = write_tar(tmp_path / "t.tar", members)
    path.write_bytes(path.read_bytes()[:keep])
    found = list(list_items([path]))
    assert "what follows is missing" in found[-1].error or len(found[:-1]) == 3
    whole = [item for item in found if item.kind == "member" and item.start + 600 <= keep]
    assert [read_item(item) for item in whole] == [bytes([k]) * 600 for k in range(len(whole))]
    assert len(whole) == max(0, (keep + 424) // 1536)
    for item in found:
        if item.kind == "member" and item not in whole:
            with pytest.raises(ImageReadError, match="of 600 bytes: the tar is cut off"):
                read_item(item)


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path):
    path = write_tar(tmp_path / "t.tar", {f"{k}.png": b"x" for k in range(3)})
    data = bytearray(path.read_bytes())
    data[1024 + 20] ^= 1
    path.write_bytes(data)
    found = list(list_items([path]))
    assert names(found, path)[:1] == ["0.png"]
    assert [item.kind for item in found] == ["member", "error"]
    assert "damaged after 1024 bytes" in found[1].error


def test_links_in_a_tar_and_giant_headers_are_errors(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        link = tarfile.TarInfo("l.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (item,) = list_items([tmp_path / "t.tar"])
    assert item.kind == "error" and "a link" in item.error
    write_tar(tmp_path / "g.tar", {"n" * 2**21 + ".png": b"x"}, format=tarfile.GNU_FORMAT)
    (item,) = list_items([tmp_path / "g.tar"])
    assert item.kind == "error" and "a header of" in item.error


@pytest.mark.parametrize("layout", ["image.bytes", "image", "bytes", "large"])
def test_rows_of_a_parquet_in_any_order(tmp_path, layout):
    data = [png(k) for k in range(50)]
    if layout == "image.bytes":
        columns = {"image": [{"path": "p", "bytes": d} for d in data], "label": [0] * 50}
    else:
        kind = pa.large_binary() if layout == "large" else pa.binary()
        columns = {"image" if layout == "image" else "bytes": pa.array(data, kind)}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet", row_group_size=20)
    items = list(list_items([tmp_path]))
    assert items[7].path == f"{tmp_path}/d.parquet/7"
    with RowReader() as rows:
        assert [rows.read(item) for item in items] == data
        for k in random.Random(0).sample(range(50), 20):
            assert rows.read(items[k]) == data[k]


def test_bad_parquets_and_rows_are_errors(tmp_path):
    (tmp_path / "0.parquet").write_bytes(b"PAR1 no more")
    pq.write_table(pa.table({"x": [1], "image": ["text"]}), tmp_path / "1.parquet")
    rows = [{"bytes": None, "path": "a"}, None, {"bytes": b"q", "path": "b"}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "2.parquet")
    found = list(list_items([tmp_path]))
    assert [item.kind for item in found] == ["error", "error", "row", "row", "row"]
    assert "cannot be read as Parquet" in found[0].error
    assert "holds bytes, columns: x, image" in found[1].error
    with RowReader() as reader:
        for item in found[2:4]:
            with pytest.raises(ImageReadError, match="no bytes"):
                reader.read(item)
        assert reader.read(found[4]) == b"q"


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path):
    data = [random.Random(k).randbytes(3000) for k in range(60)]
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"bytes": data}), path, row_group_size=20, use_dictionary=False)
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(content)
    good, reasons = 0, set()
    with RowReader() as reader:
        for k, item in enumerate(list_items([path])):
            try:
                assert reader.read(item) == data[k]
                good += 1
            except ImageReadError as error:
                reasons.add(str(error)[:40])
    assert good == 40 and len(reasons) == 1 and "row group 1" in reasons.pop()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_shard_that_changes_ends_the_run(tmp_path, kind):
    path = tmp_path / f"s.{kind}"
    if kind == "tar":
        write_tar(path, {"a.png": png(1)})
    else:
        pq.write_table(pa.table({"bytes": [png(1)]}), path)
    (item,) = list_items([path])
    os.utime(path, ns=(0, 0))
    with pytest.raises(ValueError, match="has changed since it was listed") as caught:
        with RowReader() as rows:
            rows.read(item) if kind == "parquet" else read_item(item)
    assert not isinstance(caught.value, ImageReadError)


# ---- a unit ------------------------------------------------------------------------------------


def test_a_unit_is_what_the_library_says_of_every_image(tree, extractor):
    items = list(list_items([tree]))
    table = embed_unit(items, extractor)
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [item.path for item in items]
    assert len(rows) == 24
    for row in rows:
        if row["error"]:
            assert row["embedding"] is None and row["crops"] is None
            continue
        image = read_image(row["path"])
        wanted = extractor.embed([image])[0].numpy()
        np.testing.assert_allclose(row["embedding"], wanted, atol=2e-6)
        evidence = gather_evidence(image, source=row["path"], crop=32, grid=4)
        for name in ("width", "height", "format", "jpeg_quality", "crops"):
            assert row[name] == getattr(evidence, name)
    errors = {Path(row["path"]).name: row["error"] for row in rows if row["error"]}
    assert errors["empty.png"] == "the file is empty"
    assert errors["text.jpg"].startswith("not an image that fpkit reads")
    assert errors["small.png"].startswith("image is 16x16, smaller than one 32x32 crop")


def test_jpegs_have_their_quality_and_transparent_losses_are_named(tmp_path, extractor):
    from PIL import Image

    levels = (noise(3) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(tmp_path / "a.jpg", quality=77)
    Image.fromarray(levels).save(tmp_path / "b.webp", quality=60)
    Image.fromarray(levels).save(tmp_path / "c.webp", lossless=True)
    write_png(tmp_path / "d.png", jpeg(noise(3), 77))
    rows = embed_unit(list(list_items([tmp_path])), extractor).to_pylist()
    assert [row["jpeg_quality"] for row in rows] == [77, None, None, None]
    assert [row["compressed"] for row in rows] == [True, True, False, False]


def test_threads_and_calls_change_no_bit(tree, extractor):
    items = [*list_items([tree])] * 3
    assert len(items) > 4 * CHUNK
    done = []
    one = embed_unit(items, extractor, workers=1, on_images=done.append)
    assert sum(done) == len(items) and max(done) <= CHUNK
    assert embed_unit(items, extractor, workers=3).equals(one)
    assert embed_unit(items[: 2 * CHUNK], extractor, workers=2).equals(one.slice(0, 2 * CHUNK))


def test_a_failing_machine_ends_the_unit(tree, extractor, monkeypatch):
    items = list(list_items([tree]))

    def failing(path, **_):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr("fpkit.sources.read_bytes", failing)
    with pytest.raises(OSError, match="Input/output"):
        embed_unit(items, extractor)


# ---- runs --------------------------------------------------------------------------------------


def planned(tree: Path, out: Path, extractor: Extractor, **changes: object) -> Corpus:
    config = CorpusConfig(
        sources=(str(tree),), extractor_hash=extractor.hash, dim=extractor.dim, unit=5
    )
    return Corpus.plan(out, replace(config, **changes))


@pytest.fixture(scope="module")
def whole(tree, extractor, tmp_path_factory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole")
    summary = embed_corpus(planned(tree, out, extractor), extractor)
    assert (summary.images, summary.errors, summary.new) == (24, 3, 24)
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.parquet")}


def test_a_run_has_every_image_once_in_units(whole, tree, extractor):
    corpus = Corpus(whole)
    assert corpus.counts == [5, 5, 5, 5, 4]
    assert corpus.finished() == {0: 0, 1: 0, 2: 1, 3: 0, 4: 2}
    table = read_embeddings(whole)
    assert table["path"].to_pylist() == [item.path for item in list_items([tree])]
    assert extractor_hash(table) == extractor.hash
    usable = read_embeddings(whole, usable=True)
    assert from_arrow(usable["embedding"]).shape == (21, 6)
    assert read_embeddings(corpus.path(1)).equals(table.slice(5, 5))


def test_the_plan_does_not_see_what_comes_later(tree, extractor, tmp_path):
    images = tmp_path / "images"
    write_png(images / "b.png", noise(1))
    corpus = planned(images, tmp_path / "out", extractor)
    write_png(images / "a.png", noise(2))
    again = planned(images, tmp_path / "out", extractor)
    assert again.images == 1 and again.plan_hash == corpus.plan_hash
    assert embed_corpus(again, extractor).new == 1


@pytest.mark.parametrize("writes", range(6))
def test_a_run_that_is_stopped_at_any_write_goes_on(
    tree, extractor, whole, tmp_path, monkeypatch, writes
):
    rename, count = os.replace, 0

    def stop(a, b):
        nonlocal count
        count += 1
        if count > writes:
            raise KeyboardInterrupt
        rename(a, b)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        embed_corpus(planned(tree, tmp_path, extractor), extractor)
    monkeypatch.undo()
    corpus = planned(tree, tmp_path, extractor)
    if writes:
        assert len(corpus.finished()) == writes - 1
    summary = embed_corpus(corpus, extractor)
    assert summary.new == 24 - 5 * max(0, writes - 1) and summary.errors == 3
    assert content(tmp_path) == content(whole)


KILLED = """
import os, signal, sys
from fpkit.cli_corpus import embed
from fpkit import cli, corpus_unit
take = corpus_unit._embed_chunk
def kill(chunk, *rest):
    if any(item.path.endswith("model1/07.png") for item, _ in chunk):
        os.kill(os.getpid(), signal.SIGKILL)
    return take(chunk, *rest)
corpus_unit._embed_chunk = kill
cli.main(sys.argv[1:])
"""


def test_kill_9_costs_and_doubles_nothing(tree, weights, whole, tmp_path):
    words = ["embed", str(tree), "--out", str(tmp_path), "--unit", "5"]
    words += ["--extractor", str(weights)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    kept = {unit: Corpus(tmp_path).path(unit).stat().st_mtime_ns for unit in (0, 1, 2)}
    assert list(Corpus(tmp_path).finished()) == [0, 1, 2]
    assert main(words) == 0
    assert content(tmp_path) == content(whole)
    assert {u: Corpus(tmp_path).path(u).stat().st_mtime_ns for u in kept} == kept


@pytest.mark.parametrize(
    "change", [{"unit": 6}, {"precision": "bfloat16"}, {"extractor_hash": "0" * 64}]
)
def test_another_run_does_not_mix_with_this_one(tree, extractor, whole, change):
    with pytest.raises(ValueError, match=f"holds a run with {next(iter(change))} .*another folder"):
        planned(tree, whole, extractor, **change)


def test_parts_of_another_plan_and_damaged_ones_are_refused(tree, extractor, whole, tmp_path):
    for name, data in content(whole).items():
        (tmp_path / name).write_bytes(data)
    other = planned(tree, tmp_path / "other", extractor, sources=(str(tree), str(tree)))
    embed_corpus(other, extractor)
    part = tmp_path / "part-000002.parquet"
    for foreign in (other.path(2), Corpus(whole).path(3)):
        part.write_bytes(foreign.read_bytes())
        with pytest.raises(ValueError, match="part-000002.parquet belongs to another plan"):
            read_embeddings(tmp_path)
    part.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="part-000002.parquet is damaged"):
        embed_corpus(Corpus(tmp_path), extractor)
    part.unlink()
    with pytest.raises(ValueError, match="has 4 of 5 units"):
        read_embeddings(tmp_path)
    assert len(read_embeddings(tmp_path, partial=True)) == 19
    (tmp_path / PLAN).write_bytes(b"x")
    with pytest.raises(ValueError, match="plan.parquet is damaged"):
        Corpus(tmp_path)


def test_errors_are_tried_again_on_request(extractor, tmp_path):
    images = tmp_path / "images"
    write_png(images / "a.png", noise(1))
    (images / "b.png").write_bytes(b"")
    corpus = planned(images, tmp_path / "out", extractor)
    assert embed_corpus(corpus, extractor).errors == 1
    write_png(images / "b.png", noise(2))
    assert embed_corpus(corpus, extractor).new == 0
    again = embed_corpus(corpus, extractor, retry_errors=True)
    assert (again.images, again.errors, again.new) == (2, 0, 2)


def test_one_process_at_a_time(tree, extractor, tmp_path):
    corpus = planned(tree, tmp_path, extractor)
    with locked(tmp_path, wait=0):
        with pytest.raises(BlockingIOError, match="another process is working"):
            embed_corpus(corpus, extractor)
    assert embed_corpus(corpus, extractor).new == 24


def test_what_is_no_table_of_embeddings_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no embeddings"):
        read_embeddings(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder or file"):
        read_embeddings(tmp_path / "nowhere")
    pq.write_table(pa.table({"embedding": [[1.0]]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="holds no embeddings, or is damaged"):
        read_embeddings(tmp_path / "x.parquet")


# ---- the verb ----------------------------------------------------------------------------------


def test_the_verb_says_what_it_did_and_goes_on(tree, weights, tmp_path, capsys, monkeypatch):
    words = ["embed", str(tree), "--extractor", str(weights), "--out", str(tmp_path / "out")]
    assert main([*words, "--unit", "10"]) == 0
    assert "24 images in" in capsys.readouterr().out
    monkeypatch.setattr(corpora, "embed_unit", None)  # nothing is embedded again
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "out": str(tmp_path / "out"),
        "units": 3,
        "images": 24,
        "errors": 3,
        "new": 0,
    }
    assert "24 of 24 images were embedded before" in err
    assert main([*words, "--strict"]) == 1
    assert main([*words, "--unit", "9"]) == 1
    assert "holds a run with unit 10, not 9" in capsys.readouterr().err


def test_where_nobody_looks_there_is_a_line_now_and_then(
    tree, weights, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("fpkit.cli_corpus.EVERY", 0.0)
    assert main(["embed", str(tree), "--extractor", str(weights), "--out", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "/24" in line]
    assert len(lines) == 2 and "100%" in lines[-1] and "image/s" in lines[-1]


def test_without_pyarrow_the_extra_is_named(tree, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert main(["embed", str(tree), "--extractor", str(weights), "--out", str(tmp_path)]) == 1
    assert "pip install 'fpkit[corpus]'" in capsys.readouterr().err
