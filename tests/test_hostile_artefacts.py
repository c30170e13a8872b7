"""Files from strangers: every damage is refused with a reason, or changes nothing that matters."""

import json
import os
import random
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fpkit import artefacts
from fpkit.arch import ArchSpec
from fpkit.artefacts import check_fields, member, parse_json, read_json, shown
from fpkit.assets import append_line, save_safetensors_atomic
from fpkit.cli_grade import find_submissions
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.gallery import Gallery
from fpkit.grading import _run, read_notebook
from fpkit.lesson import Check, Lesson, checks_in
from fpkit.paper import PaperConfig, PaperExtractor
from fpkit.tensor_files import CHECKSUM, WEIGHTS_BYTES, encode_tensors, map_array, open_tensors
from fpkit.zoo import Zoo, parse_model_id

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import hostile_artefacts as hostile  # noqa: E402

NAMES = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7), "c": torch.ones(3).half()}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Folder of a target with a valid artefact in it, and the bytes of the file to spoil."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            hostile.TARGETS[name].make(folder)
            made[name] = folder, (folder / hostile.TARGETS[name].file).read_bytes()
        return made[name]

    return of


def outcome(name, valid, data):
    """What becomes of a file with these bytes: "accepted", or why it was refused."""
    target = hostile.TARGETS[name]
    folder, good = valid(name)
    file = folder / target.file
    try:
        file.write_bytes(data)
        target.use(folder)
    except (ValueError, OSError) as error:
        reason = str(error)
        assert reason.isprintable() and 10 < len(reason) < 1000, reason[:2000]
        return reason
    finally:
        file.write_bytes(good)
    return "accepted"


# ---- strict JSON -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
@settings(max_examples=60, deadline=None)
def test_strict_json_reads_what_json_writes(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "key 'b' comes twice"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("1e999", "'1e999' is too large"),
        ("1" * 21, "21 digits"),
        ("[" * 10**6, "too deep"),
        ('{"a":' * 10**6, "too deep"),
        (b"\xff", "codec can't decode"),
        ("{}x", "Extra data"),
    ],
)
def test_other_json_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_foreign_words_are_short_and_harmless_in_messages(text):
    assert shown(text).isascii() and shown(text).isprintable() and len(shown(text)) <= 80


def test_fields_are_checked_for_presence_and_type():
    kinds = {"n": int, "x": float, "s": str, "b": bool}
    good = {"n": 1, "x": 2, "s": "", "b": True}
    assert check_fields(good, kinds) == good
    wrong = {"n": True, "x": False, "s": None, "b": 1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} must be of the type"):
            check_fields(good | {name: value}, kinds)
    with pytest.raises(ValueError, match="missing field 'b', unknown field 'c'"):
        check_fields({"n": 1, "x": 1.0, "s": "", "c": True}, kinds)
    with pytest.raises(ValueError, match="expected an object with n, x, s, b, got \\[1\\]"):
        check_fields([1], kinds)


def test_files_are_bounded_and_regular(tmp_path):
    path = tmp_path / "card.json"
    path.write_text('{"a": 1}' + " " * 100)
    assert read_json(path) == {"a": 1}
    with pytest.raises(ValueError, match="108 bytes, at most 50"):
        read_json(path, most=50)
    os.mkfifo(tmp_path / "pipe")  # nobody writes: opening it must not wait
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(ValueError, match="no regular file"):
            read_json(tmp_path / name)


# ---- safetensors -------------------------------------------------------------------------------


def test_tensors_come_back_and_the_library_reads_them_too(tmp_path):
    path = tmp_path / "x.safetensors"
    save_safetensors_atomic(path, NAMES, metadata={"k": "v\u202e", "a": "1"})
    with open_tensors(path) as file:
        assert file.metadata == {"k": "v\u202e", "a": "1"}
        file.expect(NAMES)
        tensors = file.read()
    for found in (tensors, load_file(path)):
        assert all(torch.equal(found[name], tensor) for name, tensor in NAMES.items())
    save_file(NAMES, path)  # by the library: no checksum, no metadata
    with open_tensors(path) as file:
        assert file.metadata == {} and torch.equal(file.read()["a"], NAMES["a"])


def test_equal_content_gives_equal_bytes():
    forwards, backwards = {"x": "1", "y": "2"}, {"y": "2", "x": "1"}
    assert encode_tensors(NAMES, forwards) == encode_tensors(NAMES, backwards)
    with pytest.raises(ValueError, match="must not have the name 'sha256'"):
        encode_tensors(NAMES, {CHECKSUM: "0"})


def test_no_cut_and_no_flipped_bit_of_a_weights_file_gets_through(tmp_path):
    path = tmp_path / "x.safetensors"
    blob = encode_tensors(NAMES, {"config": '{"a": 1}'})
    unlike = 0
    for place in range(8 * len(blob)):
        spoilt = bytearray(blob)
        spoilt[place // 8] ^= 1 << place % 8
        for data in (bytes(spoilt), *([blob[: place // 8]] if place % 8 == 0 else [])):
            path.write_bytes(data)
            try:
                with open_tensors(path) as file:
                    file.read()
            except ValueError:
                continue
            unlike += 1
    # what gets through: "sha256" under another name, which is refused where names are known, and
    # other white space
    assert unlike < 60


def test_the_flipped_bits_that_get_through_are_none_of_the_numbers(tmp_path):
    path = tmp_path / "x.safetensors"
    blob = encode_tensors(NAMES, {})
    start = 8 + int.from_bytes(blob[:8], "little")
    for place in range(start, len(blob)):
        path.write_bytes(blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :])
        with open_tensors(path) as file, pytest.raises(ValueError, match="does not fit its check"):
            file.read()


@pytest.mark.parametrize("length", [2**27, 2**60, 2**64 - 1])
def test_a_header_that_claims_the_moon_is_refused(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 100)
    with pytest.raises(ValueError, match=f"should have {length} bytes, the file has 208"):
        with open_tensors(path):
            pass


def test_a_header_as_large_as_it_says_is_still_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:  # sparse: takes no disk
        file.write(struct.pack("<Q", 100_000_000))
        file.truncate(100_000_008)
    with pytest.raises(ValueError, match="header has 100000000 bytes, at most 16777216 are read"):
        with open_tensors(path):
            pass
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ValueError, match="it has 2147483648 bytes, at most 1073741824"):
        with open_tensors(path):
            pass


def header_of(entry, size=8):
    text = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F64", "shape": [2], "data_offsets": [0, 8]}, r"\[2\] does not fill 8 bytes"),
        ({"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}, r"its shape is \[-1\]"),
        ({"dtype": "F64", "shape": [2**62, 4], "data_offsets": [0, 8]}, "its shape is"),
        ({"dtype": "F64", "shape": [True], "data_offsets": [0, 8]}, r"its shape is \[True\]"),
        ({"dtype": "F64", "shape": [0, 2**62], "data_offsets": [0, 0]}, "its shape is"),
        ({"dtype": "F64", "shape": [1], "data_offsets": [0.0, 8.0]}, "its offsets are"),
        ({"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}, "gap or overlap at byte 0"),
        ({"dtype": "F64", "shape": [], "data_offsets": [-8, 0]}, "gap or overlap at byte -8"),
        ({"dtype": "pickle", "shape": [], "data_offsets": [0, 8]}, "its type is 'pickle', known"),
        ({"dtype": "F64", "shape": []}, "missing field 'data_offsets'"),
        ({"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "take 4 bytes, the file has 8"),
        ([], "expected an object"),
    ],
)
def test_headers_that_do_not_add_up_are_refused(tmp_path, entry, reason):
    path = tmp_path / "x.safetensors"
    path.write_bytes(header_of(entry))
    with pytest.raises(ValueError, match=reason):
        with open_tensors(path):
            pass


def test_expectations_name_what_is_wrong(tmp_path):
    path = tmp_path / "x.safetensors"
    save_safetensors_atomic(path, NAMES)
    with open_tensors(path) as file:
        file.expect({"a": NAMES["a"]}, others=True)
        file.expect(NAMES | {"d": NAMES["a"]}, optional=["d"])
        for wanted, reason in (
            ({"a": NAMES["a"]}, "unknown tensor 'b' and 1 more"),
            (NAMES | {"d": NAMES["a"]}, "missing tensor 'd'"),
            (NAMES | {"a": torch.zeros(3, 2)}, r"'a' has the shape \(2, 3\), expected \(3, 2\)"),
            (NAMES | {"a": torch.zeros(2, 3, dtype=torch.long)}, "'a' is torch.float32"),
        ):
            with pytest.raises(ValueError, match=reason):
                file.expect(wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_are_numbers(tmp_path, bad):
    save_safetensors_atomic(tmp_path / "x", {"a": torch.tensor([0, bad])})
    with open_tensors(tmp_path / "x") as file, pytest.raises(ValueError, match="'a' holds NaN"):
        file.read()


# ---- every artefact, spoilt in every way -------------------------------------------------------

QUICK = [name for name in hostile.TARGETS if name not in ("notebook", "image", "checkpoint")]
CASES = [
    (name, mutation)
    for name in QUICK
    for mutation in hostile.MUTATIONS[hostile.TARGETS[name].kind]
    if mutation not in ("json_wide", "json_oversized") or name == "zoo"
]


@pytest.mark.parametrize("name", hostile.TARGETS)
def test_what_is_to_be_spoilt_is_valid_before(valid, name):
    _, good = valid(name)
    assert outcome(name, valid, good) == "accepted"


@pytest.mark.parametrize(("name", "mutation"), CASES, ids=map("-".join, CASES))
@given(seed=st.integers(0, 2**32))
@settings(max_examples=5, deadline=None, database=None)
def test_spoilt_artefacts_are_refused_with_a_reason_or_work(valid, name, mutation, seed):
    _, good = valid(name)
    spoil = hostile.MUTATIONS[hostile.TARGETS[name].kind][mutation]
    said = outcome(name, valid, spoil(good, random.Random(seed)))
    if mutation == "data_flipped":
        assert "does not fit its checksum" in said


@pytest.mark.parametrize("name", ["checkpoint", "notebook"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, database=None)
def test_spoilt_checkpoints_and_notebooks_too(valid, name, seed):
    chance = random.Random(seed)
    _, good = valid(name)
    mutations = hostile.MUTATIONS[hostile.TARGETS[name].kind]
    some = [f for key, f in mutations.items() if key not in ("json_wide", "json_oversized")]
    outcome(name, valid, chance.choice(some)(good, chance))


# ---- what only one of them can do --------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../x", "/etc/passwd", "..\\x", "a\0b", "", "K1-L1-Unearest-Arelu-Nbatch-Spost",
        "K1-L1-Unearest-Arelu-Nbatch-Spost/seed\u0663", "K1-L1-Unearest-Arelu-Nbatch-Spost/seed01",
        "K1-L1-Unearest-Arelu-Nbatch-Spost/seed-1", "x" * 10**6 + "/seed0",
        "K1-L1-Unearest-Arelu-Nbatch-Spost/seed" + "9" * 5000,
        "K1-L1-Unearest-Arelu-Nbatch-Spost/../../x/seed0",
    ],
)  # fmt: skip
def test_ids_are_no_paths(name):
    with pytest.raises(ValueError) as raised:
        parse_model_id(name)
    assert len(str(raised.value)) < 400 and str(raised.value).isprintable()


def test_ids_have_one_spelling():
    spec = ArchSpec()
    assert parse_model_id(f"{spec.id}/seed12") == (spec, 12)


def test_a_folder_leads_nowhere_else(tmp_path, valid):
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    for target in ("zoo", "extractor"):
        hostile.TARGETS[target].make(inside / target)
    for file, load in (
        (
            f"zoo/{hostile.ZOO_FILE}",
            lambda: Zoo.load(inside / "zoo").model(next(iter(Zoo.load(inside / "zoo")))),
        ),
        ("zoo/manifest.json", lambda: Zoo.load(inside / "zoo")),
        ("extractor/extractor.json", lambda: load_extractor(inside / "extractor")),
        ("extractor/extractor.safetensors", lambda: load_extractor(inside / "extractor")),
    ):
        load()
        path = inside / file
        moved = path.rename(outside / path.name)
        path.symlink_to(moved)
        with pytest.raises(ValueError, match="link that leads out of its folder"):
            load()
        path.unlink()
        moved.rename(path.with_name(path.name + ".kept"))
        path.symlink_to(path.name + ".kept")  # a link inside the folder is none of our business
        load()


def test_loops_of_links_are_no_files(tmp_path):
    (tmp_path / "manifest.json").symlink_to("manifest.json")
    with pytest.raises(FileNotFoundError, match="holds no zoo"):
        Zoo.load(tmp_path)
    assert member(tmp_path, "manifest.json") == tmp_path / "manifest.json"


def test_lines_are_not_appended_through_links(tmp_path):
    (tmp_path / "times.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a link, not written"):
        append_line(tmp_path / "times.jsonl", "{}")
    assert not (tmp_path / "elsewhere").exists()
    append_line(tmp_path / "log", "a")
    append_line(tmp_path / "log", "b")
    assert (tmp_path / "log").read_text() == "a\nb\n"


def test_the_weights_of_one_model_are_not_taken_for_anothers(tmp_path):
    hostile.TARGETS["zoo"].make(tmp_path)
    zoo = Zoo.load(tmp_path)
    first, second = (tmp_path / entry["file"] for entry in zoo.entries)
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="it is the file of .*/seed0"):
        zoo.model(zoo.model_ids[1])
    assert [entry["seed"] for entry in zoo.written(zoo)] == [0]


def test_a_zoo_that_names_a_model_twice_is_refused(tmp_path):
    hostile.TARGETS["zoo"].make(tmp_path)
    file = tmp_path / "manifest.json"
    content = json.loads(file.read_text())
    content["models"] *= 2
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="comes twice"):
        Zoo.load(tmp_path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"format": "fpkit-gallery-9"}, "its format is 'fpkit-gallery-9', this fpkit reads"),
        ({"models": '["left", "left"]'}, "need a name of their own"),
        ({"models": '["left", ""]'}, "need a name of their own"),
        ({"models": '["left", 3]'}, "its models must be a list of str"),
        ({"counts": "[1, -1]"}, "its count|a count of"),
        ({"counts": "[3, true]"}, "its counts must be a list of int"),
        ({"images": '[["a", "a"], []]'}, "a count of 3 for 2 images"),
        ({"images": "[[], [], []]"}, "need a name of their own"),
        ({"extra": ""}, "unknown field 'extra'"),
        ({"extractor_hash": "\x1b[2J"}, r"made with the extractor '\\x1b\[2J', the one in use"),
    ],
)
def test_galleries_fit_together(tmp_path, header, reason):
    hostile.TARGETS["gallery"].make(tmp_path)
    path = tmp_path / "my.gallery"
    with open_tensors(path) as file:
        tensors, metadata = file.read(), file.metadata
    save_safetensors_atomic(path, tensors, metadata=metadata | header)
    with pytest.raises(ValueError, match=reason):
        Gallery.load(path, extractor_hash=hostile.HASH)


@pytest.mark.parametrize("field", ["widths", "residual", "denoiser", "width"])
def test_a_long_value_in_a_configuration_makes_no_long_message(tmp_path, field):
    """Found by benchmarks/fuzz.py: 30 kB of text among the widths came back in the reason."""
    paper = field in ("denoiser", "width")
    kind, config = (
        (PaperExtractor.kind, PaperConfig()) if paper else (Extractor.kind, ExtractorConfig())
    )
    values = asdict(config) | {field: ["x" * 30_000] * 2 if field == "widths" else "x" * 30_000}
    metadata = {"kind": kind, "config": json.dumps(values)}
    save_safetensors_atomic(tmp_path / "extractor.safetensors", {}, metadata=metadata)
    (tmp_path / "extractor.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no fpkit extractor") as refused:
        load_extractor(tmp_path)
    assert len(str(refused.value)) < 1000


def test_no_memory_is_taken_for_what_a_file_only_claims(tmp_path):
    """An extractor of 2**16 channels would take 150 GB; a process with 3 GB says no in time."""
    hostile.TARGETS["extractor"].make(tmp_path)
    path = tmp_path / "extractor.safetensors"
    with open_tensors(path) as file:
        tensors, metadata = file.read(), file.metadata
    config = json.loads(metadata["config"]) | {"widths": [2**16] * 2, "dim": 2**16}
    save_safetensors_atomic(path, tensors, metadata=metadata | {"config": json.dumps(config)})
    code = """
import resource, sys
from fpkit.extractor import load_extractor
resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**30,) * 2)
try:
    load_extractor(sys.argv[1])
except ValueError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "holds no fpkit extractor: tensor" in done.stdout and "has the shape" in done.stdout


def test_arrays_are_mapped_without_evaluating_their_header(tmp_path):
    path = tmp_path / "x.npy"
    for array in (np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.ones((3, 2), ">f4").T):
        np.save(path, array)
        found = map_array(path)
        assert found.dtype == array.dtype and np.array_equal(found, array)
    np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)
    for data in (path.read_bytes(), b"\x93NUMPY\x01\x00\x10\x00(1).__class__   \n", b"", b"PK"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="no array of numbers as np.save writes"):
            map_array(path)
    np.save(path, np.zeros(9, np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"uint8 \(9,\) does not fill 8 bytes"):
        map_array(path)


# ---- submitted notebooks -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "-" * 100_000 + "1", "(" * 10_000, "a" + ".b" * 100_000, "f" + "()" * 50_000,
        "x = '\ud800'", "a\0b", "a\n" * 300_000, "'\\d'",
    ],
)  # fmt: skip
def test_code_of_any_depth_is_searched_for_checks(code):
    assert checks_in(code) == []
    assert checks_in(code + "\nteach.check('one', 1)") in (
        [Check(name="one", answer=None)], [Check(name="one", answer="1")],
    )  # fmt: skip


def test_notebooks_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "x.ipynb"
    path.write_text("[" * 10**5)
    with pytest.raises(ValueError, match="x.ipynb is no notebook"):
        read_notebook(path)
    with path.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(ValueError, match="17179869184 bytes, at most 33554432 are read"):
        read_notebook(path)


def test_links_among_submissions_are_left_out(tmp_path, capsys):
    lessons = {"00_x": Lesson(question="Why?", needs=None, minutes=None, exercises=())}
    for student in ("ann", "bob"):
        (tmp_path / "in" / student).mkdir(parents=True)
    good = tmp_path / "in" / "ann" / "00_x.ipynb"
    good.write_text("{}")
    (tmp_path / "in" / "bob" / "00_x.ipynb").symlink_to(good)
    assert [one.student for one in find_submissions([tmp_path / "in"], lessons)] == ["ann"]
    assert "is a link: a submission must be a file of its own" in capsys.readouterr().err


def test_a_kernel_that_cannot_be_talked_to_crashes_one_notebook_only(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    def fail(*_, **__):
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    monkeypatch.setattr(nbclient.NotebookClient, "execute", fail)
    state, message = _run(nbformat.v4.new_notebook(), tmp_path, 10)
    assert state == "crashed" and "surrogates not allowed" in message


def test_limits_hold_what_fpkit_makes():
    """The limits are far above the largest files that ship."""
    for path in (ROOT / "data").rglob("*.safetensors"):
        assert path.stat().st_size * 10 < WEIGHTS_BYTES
    for path in (ROOT / "data").rglob("*.json"):
        assert path.stat().st_size * 50 < artefacts.JSON_BYTES
