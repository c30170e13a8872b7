"""Files and folders from strangers: a right picture or a reason, in bounded memory, every time."""

import importlib
import io
import json
import os
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpkit import intake
from fpkit.cli_io import expand, note, print_json, print_table
from fpkit.folders import list_folders, list_images, list_models
from fpkit.images import ImageReadError, decode_image, read_image, read_images
from fpkit.manifest import read_facts, read_rows

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
sys.path.insert(0, BENCHMARKS)
try:
    blocks = importlib.import_module("hostile_blocks")
    files = importlib.import_module("hostile_files")
    places = importlib.import_module("hostile_places")
finally:
    sys.path.remove(BENCHMARKS)

LIGHT = [kind for kind in blocks.KINDS.values() if not kind.heavy]
FORMATS = ("png", "jpeg", "webp", "gif", "tiff", "bmp")
SOUND = {form: blocks.sound(form, np.random.default_rng(1)) for form in FORMATS}
QUICK = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def decoded(data: bytes) -> torch.Tensor | None:
    """The picture, checked, or None if it was refused with a reason that names the file."""
    try:
        image = decode_image(data, name="x", max_pixels=10**6)
    except ImageReadError as error:
        assert str(error).startswith("x: ") and len(str(error)) < 300
        return None
    assert image.dtype == torch.float32 and image.ndim == 3 and len(image) == 3
    assert 0 <= float(image.min()) and float(image.max()) <= 1
    return image


def truth(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)


# ---- every kind --------------------------------------------------------------------------------


def test_there_are_many_kinds():
    assert len(blocks.KINDS) + len(places.PLACES) >= 150


@pytest.mark.parametrize("kind", LIGHT, ids=lambda kind: kind.name)
def test_every_kind_ends_as_it_must(kind):
    data, pixels = files.made(kind, 0)
    try:
        image = decode_image(data, name="x")
    except ImageReadError as error:
        assert kind.expected != "read", error
        assert str(error).startswith("x: ") and len(str(error)) < 300
    else:
        assert kind.expected != "refused"
        assert pixels is None or torch.equal(image, truth(pixels))


@pytest.mark.parametrize("place", places.PLACES.values(), ids=lambda place: place.name)
def test_every_place_ends_as_it_must(place, tmp_path):
    data = places.sound_png(np.random.default_rng(0))
    path = place.put(tmp_path, data)
    try:
        image = read_image(path)
    except ImageReadError as error:
        assert place.expected != "read" and str(error).startswith(f"{path}: ")
    else:
        assert place.expected != "refused"
        assert torch.equal(image, decode_image(data, name="x"))
    finally:
        for locked in tmp_path.glob("locked"):
            locked.chmod(0o700)


@pytest.mark.parametrize("form", FORMATS)
@QUICK
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(form, share):
    data, pixels = SOUND[form]
    whole = decoded(data)
    image = decoded(data[: int(share * len(data))])
    assert image is None or torch.equal(image, whole)
    assert pixels is None or torch.equal(whole, truth(pixels))


@QUICK
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_png_is_always_noticed(share, bit):
    data, pixels = SOUND["png"]
    place = int(share * len(data))
    image = decoded(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    assert image is None or torch.equal(image, truth(pixels))


@pytest.mark.parametrize("form", FORMATS)
@QUICK
@given(noise=st.binary(max_size=300), start=st.integers(2, 60), keep=st.booleans())
def test_any_bytes_after_any_head(form, noise, start, keep):
    data, _ = SOUND[form]
    decoded(data[:start] + noise + (data[start + len(noise) :] if keep else b""))


@QUICK
@given(data=st.binary(max_size=200))
def test_noise_is_no_image(data):
    assert decoded(data) is None or intake.file_format(data[:12]) is not None


# ---- what the decoder gets ---------------------------------------------------------------------


def bare(form: str, data: bytes) -> bytes:
    return intake._BARE[form](data)


@pytest.mark.parametrize("form", ["png", "jpeg", "gif"])
def test_a_sound_file_without_metadata_loses_nothing_but_that(form):
    data, _ = SOUND[form]
    assert bare(form.upper(), bare(form.upper(), data)) == bare(form.upper(), data)
    extra = {
        "png": lambda: blocks.with_chunks(data, blocks.chunk(b"tEXt", b"a\0secret")),
        "jpeg": lambda: data[:2] + blocks.segment(0xE1, b"Exif\0\0secret") + data[2:],
        "gif": lambda: data[:-1] + b"!\xfe\6secret\0;",
    }[form]()
    assert b"secret" in extra
    assert bare(form.upper(), extra) == bare(form.upper(), data)


def test_a_tiff_keeps_the_tags_of_its_pixels_and_no_next_directory():
    tags = blocks.rgb_tags(4, 4, 48) | {270: (1, tuple(b"secret\0")), 34665: (4, (8,))}
    cleaned = bare("TIFF", blocks.tiff(tags, zlib.compress(bytes(48))))
    first = int.from_bytes(cleaned[4:8], "little")
    count = int.from_bytes(cleaned[first : first + 2], "little")
    entries = [cleaned[first + 2 + 12 * k :][:2] for k in range(count)]
    found = [int.from_bytes(entry, "little") for entry in entries]
    assert found == sorted(blocks.rgb_tags(4, 4, 48))
    assert cleaned[first + 2 + 12 * count :] == bytes(4)


@pytest.mark.parametrize(("count", "fits"), [(64, True), (65, False)])
def test_the_limit_on_scans_is_exact(count, fits):
    scan = blocks.segment(0xDA, b"\1\1\0\0\0\0") + b"data"
    data = b"\xff\xd8" + scan * count + b"\xff\xd9"
    if fits:
        assert bare("JPEG", data) == data
    else:
        with pytest.raises(ImageReadError, match="more than 64 scans"):
            bare("JPEG", data)


def test_pillow_never_sees_more_pixels_than_allowed(monkeypatch):
    data, _ = SOUND["png"]
    monkeypatch.setattr(intake.Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageReadError, match="144x136 pixels, more than the limit of 19583"):
        decode_image(data, name="x", max_pixels=144 * 136 - 1)


# ---- files that change, lie, or may not be read ------------------------------------------------


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(places.sound_png(np.random.default_rng(0)))
    read_image(path)
    kind_of, times = os.fstat, []

    def growing(descriptor):
        times.append(descriptor)
        found = kind_of(descriptor)
        if len(times) == 1:
            with path.open("ab") as file:
                file.write(b"more")
        return found

    monkeypatch.setattr(intake.os, "fstat", growing)
    with pytest.raises(ImageReadError, match="a.png: changed while it was read"):
        read_image(path)


def test_a_file_that_is_overwritten_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(SOUND["png"][0])
    kind_of = os.fstat

    def touching(descriptor):
        found = kind_of(descriptor)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))
        return found

    monkeypatch.setattr(intake.os, "fstat", touching)
    with pytest.raises(ImageReadError, match="a.png: changed while it was read"):
        read_image(path)


def test_a_file_that_becomes_a_pipe_before_it_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"data")
    before = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(intake.os, "stat", lambda path: before)
    with pytest.raises(ImageReadError, match="is a pipe, expected an image file"):
        read_image(path)


def test_a_file_that_vanishes_between_listing_and_reading(tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    (listed,) = list_images(tmp_path)
    path.unlink()
    with pytest.raises(ImageReadError, match="no such file"):
        read_image(listed)


def test_reading_while_others_write_gives_whole_pictures(tmp_path):
    path = tmp_path / "a.png"
    contents = [places.sound_png(np.random.default_rng(seed)) for seed in range(2)]
    pictures = [decode_image(data, name="x") for data in contents]
    path.write_bytes(contents[0])
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for data in contents:
                path.write_bytes(data)

    writer = threading.Thread(target=write)
    writer.start()
    outcomes = []
    try:
        for _ in range(100):
            try:
                image = read_image(path)
                outcomes.append(any(torch.equal(image, p) for p in pictures))
            except ImageReadError:
                outcomes.append(True)
    finally:
        done.set()
        writer.join()
    assert all(outcomes)


def test_size_of_a_file_is_checked_before_reading(tmp_path, monkeypatch):
    path = places.PLACES["100 GB of nothing"].put(tmp_path, b"x")
    monkeypatch.setattr(intake, "open", lambda *a, **k: pytest.fail("read"), raising=False)
    with pytest.raises(ImageReadError, match="holds 100000000000 bytes, more than the limit"):
        read_image(path)


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder, in a process that file permissions bind, even if root started it."""
    with tempfile.TemporaryDirectory() as folder:  # root's tmp_path is closed to others
        Path(folder).chmod(0o777)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


def test_what_may_not_be_read_is_reported_and_the_rest_is_read():
    told: list[str] = []
    with unprivileged() as folder:
        for model in ("a", "b", "locked"):
            (folder / model).mkdir()
            (folder / model / "1.png").write_bytes(SOUND["png"][0])
        (folder / "b" / "1.png").chmod(0)
        (folder / "a" / "2.png").symlink_to("../locked/1.png")
        (folder / "locked").chmod(0)

        def tell(error: ImageReadError) -> None:
            told.append(str(error).removeprefix(str(folder)))

        models = list_models(folder, on_error=tell)
        read = [path for path, _ in read_images(chain(*models.values()), on_error=tell)]
        with pytest.raises(ImageReadError, match="locked: cannot be listed"):
            list_models(folder)
        (folder / "locked").chmod(0o700)
    assert read == [folder / "a" / "1.png"] and list(models) == ["a", "b", "locked"]
    assert told == [
        "/locked: cannot be listed (Permission denied)",
        "/a/2.png: cannot be opened (Permission denied)",
        "/b/1.png: cannot be opened (Permission denied)",
    ]


# ---- folders -----------------------------------------------------------------------------------


def test_what_a_folder_lists(tmp_path):
    for place in places.PLACES.values():
        place.put(tmp_path, b"data")
    listed = {path.name for path in list_images(tmp_path)}
    (tmp_path / "locked").chmod(0o700)
    assert {"itself.png", "nothing.png", "back.png", "link.png"} <= listed  # read, or told why not
    assert not {"pipe.png", "linked pipe.png", "zero.png", "socket.png", "folder.png"} & listed
    assert {name for name in places.NAMES.values()} <= listed


def test_folders_in_a_circle_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "above").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    assert list(list_models(tmp_path)) == ["a"]
    assert [path.name for path in list_folders(tmp_path / "a")] == ["above"]
    assert [path.name for path in expand([str(tmp_path)])] == ["1.png"]


@pytest.mark.parametrize("name", ["a" * 300 + ".png", "nul\0.png", "~/a.png"])
def test_names_that_no_file_can_have(name, tmp_path):
    (path,) = expand([str(tmp_path / name)])
    with pytest.raises(ImageReadError, match=r"\.png: "):
        read_image(path)


def test_many_files_are_listed_without_touching_each(tmp_path, monkeypatch):
    for number in range(500):
        (tmp_path / f"{number}.png").touch()
    monkeypatch.setattr(Path, "stat", lambda *a, **k: pytest.fail("a call per file"))
    assert len(list_images(tmp_path)) == 500


# ---- manifests ---------------------------------------------------------------------------------


def tree(folder: Path, manifest: bytes) -> Path:
    (folder / "a").mkdir()
    (folder / "a" / "1.png").write_bytes(SOUND["png"][0])
    (folder / "manifest.csv").write_bytes(manifest)
    return folder


def test_rows_of_other_images_are_not_kept(tmp_path):
    rows = b"".join(b"a,%d.png,x,y\n" % k for k in range(50_000))
    folder = tree(tmp_path, b"model,file,family,more\n" + rows)
    kept = read_rows(folder, {("a", "1.png"), ("a", "none.png")}, columns=("family", "absent"))
    assert kept == {("a", "1.png"): {"family": "x"}}


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"model,file\n\xff\xfe", "no readable UTF-8"),
        (b'model,file\na,"' + b"x" * 200_000, "no readable UTF-8 table: field larger"),
        (b"", "has no column file and model"),
        (b"model\n", "has no column file"),
    ],
)
def test_bad_manifests_are_refused(tmp_path, manifest, reason):
    with pytest.raises(ValueError, match=reason):
        read_facts(tree(tmp_path, manifest))


def test_a_manifest_of_100_gb_is_not_read(tmp_path):
    folder = tree(tmp_path, b"model,file\n")
    os.truncate(folder / "manifest.csv", 10**11)
    with pytest.raises(ValueError, match="holds 100000000000 bytes, more than the limit"):
        read_facts(folder)


@QUICK
@given(text=st.text(max_size=200))
def test_any_text_as_a_manifest(tmp_path_factory, text):
    folder = tree(tmp_path_factory.mktemp("m"), b"model,file,format\na,1.png,png\n" + text.encode(
        "utf-8", "replace"))  # fmt: skip
    try:
        (fact,) = read_facts(folder)
    except ValueError as error:
        assert "manifest.csv" in str(error)
    else:
        assert fact.model == "a"


# ---- names on a terminal and in JSON -----------------------------------------------------------


@pytest.mark.parametrize("name", [*places.NAMES.values(), os.fsdecode(b"\xff\xfe.png")])
def test_names_are_spelled_out_on_a_terminal_and_exact_in_json(name, capsys):
    note(name)
    print_table(["image", "score"], [[name, 0.5]])
    out, err = capsys.readouterr()
    for line in (*out.split("\n"), *err.split("\n")):
        assert line.isprintable()
    assert len(out.split("\n")) == 3 and len(err.split("\n")) == 2
    print_json({"image": name, name: [1]})
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    assert json.loads(out) == {"image": name, name: [1]}


def test_readable_letters_stay_in_json(capsys):
    print_json("é 漢 \U0001f600")
    assert capsys.readouterr().out == '"é 漢 \U0001f600"\n'


def test_a_terminal_that_knows_ascii_only(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "ascii", write_through=True))
    print_table(["é"], [["漢"]])
    print_json("é")
    assert shown.getvalue() == b'\\xe9\n\\u6f22\n"\\u00e9"\n'
