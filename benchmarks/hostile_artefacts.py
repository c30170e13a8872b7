"""Galleries, zoos, weights, cards and checkpoints as a stranger might send them.

``TARGETS`` are valid artefacts with the way to load and use them; ``MUTATIONS`` spoil the bytes of
one of their files. ``benchmarks/fuzz.py`` and the tests bring the two together.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fpkit.arch import ArchSpec
from fpkit.assets import extractor_path, save_safetensors_atomic
from fpkit.blocks import SyntheticModel
from fpkit.embedder import CARD
from fpkit.embedding_cache import EmbeddingCache
from fpkit.encoder import SharedEncoder, load_encoder
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.gallery import Gallery, verify
from fpkit.generators import Generator, make_encoder
from fpkit.images import decode_image, load_tiles
from fpkit.learner import Learner
from fpkit.lesson import checks_in
from fpkit.lineage import ENTRY, Calibration, stored_calibration
from fpkit.manifest import read_facts
from fpkit.realworld import RealFingerprint, real_fingerprints, save_fingerprints
from fpkit.stream import StreamConfig
from fpkit.swap import SpectrumClassifier, SwapPair, load_swap_pair, save_swap_pair
from fpkit.synthesis import Synthesis
from fpkit.train_plan import TrainConfig
from fpkit.verdicts import ENTRY as VERDICTS
from fpkit.verdicts import Conditions, stored_verdicts
from fpkit.zoo import Zoo

Json = Any
SMALL = ExtractorConfig(crop=32, widths=(4, 4), positions=1, dim=6)
HASH = "0123456789abcdef"

# ---- what is spoilt ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target:
    """An artefact: ``make`` writes a valid one into a folder, ``use`` loads it and works with it.

    ``file`` is the one to spoil; ``safetensors`` and ``json`` say what is in it.
    """

    make: Callable[[Path], None]
    use: Callable[[Path], object]
    file: str
    kind: str  # "safetensors", "json" or "bytes"


def _gallery(folder: Path) -> None:
    gallery = Gallery(HASH, dim=4)
    rows = np.random.default_rng(0).standard_normal((5, 4))
    gallery.enrol("left", rows[:3], images=["a", "b", "c"])
    gallery.enrol("right", rows[3:])
    gallery.save(folder / "my.gallery")


def _use_gallery(folder: Path) -> None:
    gallery = Gallery.load(folder / "my.gallery", extractor_hash=HASH)
    if len(gallery):
        answer = gallery.identify(np.ones((1, gallery.dim)))[0]
        assert answer.model in gallery.models and -1.001 <= answer.score <= 1.001
    gallery.save(folder / "again.gallery")
    again = Gallery.load(folder / "again.gallery", extractor_hash=HASH)
    assert (again.models, again.counts) == (gallery.models, gallery.counts)


def _synthesis(seed: int) -> Synthesis:
    spec = ArchSpec(blocks=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SyntheticModel(spec).eval()
    return Synthesis(
        model=model,
        spec=spec,
        seed=seed,
        residual=0.03,
        steps=10,
        seconds=1.0,
        history=np.ones(10),
        reached=True,
    )


def _zoo(folder: Path) -> None:
    zoo = Zoo.create(folder, source="test", recipe={"seeds": 2})
    for seed in range(2):
        zoo.add(_synthesis(seed))


def _use_zoo(folder: Path) -> None:
    zoo = Zoo.load(folder)
    for name in zoo:
        assert zoo.apply(name, torch.full((1, 3, 16, 16), 0.5)).isfinite().all()
    assert len(zoo.written(zoo)) == len(zoo)


def _extractor(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extractor = Extractor(SMALL).eval()
    calibration = Calibration(
        intercept=0.0,
        slope=3.0,
        by_images=0.1,
        slope_by_images=0.2,
        fewest=1.0,
        most=9.0,
        bound=4.0,
    )
    entry = ENTRY.of(calibration, {"note": "test"}, extractor_hash=extractor.hash)
    verdicts = json.loads((extractor_path() / CARD).read_text(encoding="utf-8"))[VERDICTS.key]
    verdicts |= {"extractor": extractor.hash}
    extractor.card = {"lineage": entry, VERDICTS.key: verdicts}
    extractor.save(folder)


def _use_extractor(folder: Path) -> None:
    extractor = load_extractor(folder)
    size = extractor.config.crop
    first, second = extractor.embed(torch.linspace(0, 1, 2 * 3 * size**2).reshape(2, 3, size, size))
    assert -1.001 <= verify(first, second) <= 1.001


def _use_card(folder: Path) -> None:
    extractor = load_extractor(folder)
    verdicts = stored_verdicts(extractor.card, extractor_hash=extractor.hash)
    verdicts.verify(0.5, Conditions(crops=4, jpeg=False), far=0.05)
    stored = stored_calibration(extractor.card, extractor_hash=extractor.hash)
    assert np.isfinite(stored.log_ratio([0.5], images=2, enrolled=3)).all()


def _learner() -> Learner:
    from fpkit.distributed import Ranks

    config = TrainConfig(steps=4, extractor=SMALL, stream=StreamConfig())
    return Learner(
        config, synthesis="test", classes=2, device=torch.device("cpu"), ranks=Ranks(0, 1)
    )


def _train_step(learner: Learner, step: int) -> float:
    crops = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
    return learner.step(crops, torch.tensor([0, 0, 1, 1]), step)


def _checkpoint(folder: Path) -> None:
    learner = _learner()
    rows = [{"step": k + 1, "loss": _train_step(learner, k), "seconds": 0.1} for k in range(2)]
    learner.save(folder / "checkpoint.safetensors", 2, 0.2, rows)


def _use_checkpoint(folder: Path) -> None:
    learner = _learner()
    step, _, log = learner.load(folder / "checkpoint.safetensors")
    assert len(log) == step
    _train_step(learner, step)


def _fingerprints(folder: Path) -> None:
    generator = np.random.default_rng(0)
    profile = 1 + generator.random((2, 64))
    fingerprint = RealFingerprint(
        model="left",
        family="gan",
        decoder="left",
        content="faces",
        format="png",
        images=2,
        sizes=("128x128",),
        repo="",
        sources=("a", "b"),
        licence="",
        spectra={"median": np.ones((128, 128))},
        profiles={"median": profile},
    )
    save_fingerprints(folder, [fingerprint], source="test")


def _use_fingerprints(folder: Path) -> None:
    for fingerprint in real_fingerprints(folder):
        for name, spectrum in fingerprint.spectra.items():
            assert np.isfinite(spectrum).all()
            assert len(fingerprint.profiles[name]) == fingerprint.images


def _encoder(folder: Path) -> None:
    save_safetensors_atomic(folder / "encoder.safetensors", SharedEncoder().state_dict())


def _use_encoder(folder: Path) -> None:
    load_encoder.cache_clear()
    assert load_encoder(folder)(torch.rand(1, 3, 16, 16), 8).shape == (1, 32, 2, 2)


def _swap(folder: Path) -> None:
    spec = ArchSpec()
    line = torch.linspace(1, 2, 16 * 9)
    pair = SwapPair(
        encoder=make_encoder(),
        first=Generator(spec),
        second=Generator(spec),
        classifier=SpectrumClassifier(mean=line, scale=line, weight=line, bias=torch.ones(())),
    )
    save_swap_pair(pair, folder / "deconv.safetensors", provenance={"steps": "0"})


def _use_swap(folder: Path) -> None:
    pair = load_swap_pair("deconv", folder=folder)
    pair.first(pair.encoder(torch.rand(1, 3, 16, 16)))


def _embeddings(folder: Path) -> None:
    with EmbeddingCache(folder / "cache", HASH, 4) as cache:
        for key in "ab":
            cache.add(key * 32, np.full(4, 0.5, np.float32), 0.25)
    next((folder / "cache").iterdir()).rename(folder / "cache" / f"{HASH[:12]}-0.safetensors")


def _use_embeddings(folder: Path) -> None:
    cache = EmbeddingCache(folder / "cache", HASH, 4)
    for key in "ab":
        if found := cache.find(key * 32):
            assert found[0].shape == (4,)


def _tiles(folder: Path) -> None:
    np.save(folder / "tiles.npy", np.zeros((3, 8, 8, 3), np.uint8))


def _use_tiles(folder: Path) -> None:
    assert load_tiles(folder / "tiles.npy", side=8, least=1).sum() >= 0


def _manifest(folder: Path) -> None:
    from fpkit.images import write_png

    for name in ("a.png", "b.png"):
        write_png(folder / "left" / name, torch.zeros(3, 8, 8))
    text = "model,file,family,decoder,content,format\nleft,a.png,gan,left,faces,png\n"
    (folder / "manifest.csv").write_text(text, encoding="utf-8")


def _use_manifest(folder: Path) -> None:
    assert len(read_facts(folder)) == 2


def _notebook(folder: Path) -> None:
    import nbformat

    cells = [
        nbformat.v4.new_markdown_cell("### Exercise 1: add (2 minutes, easy)", id="a"),
        nbformat.v4.new_code_cell("teach.check('sum', a + b)", id="b"),
    ]
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    (folder / "work.ipynb").write_text(text, encoding="utf-8")


def _use_notebook(folder: Path) -> None:
    from fpkit.grading import read_notebook

    for cell in read_notebook(folder / "work.ipynb").cells:
        if cell.cell_type == "code":
            checks_in(cell.source)


def _image(folder: Path) -> None:
    from fpkit.images import write_png

    write_png(folder / "image.png", torch.linspace(0, 1, 3 * 8 * 9).reshape(3, 8, 9))


def _use_image(folder: Path) -> None:
    image = decode_image((folder / "image.png").read_bytes(), name="image.png", max_pixels=10**6)
    assert image.shape[0] == 3 and 0 <= image.min() and image.max() <= 1


ZOO_FILE = "K1-L1-Unearest-Arelu-Nbatch-Spost-seed0.safetensors"
CACHE_FILE = f"cache/{HASH[:12]}-0.safetensors"
TARGETS = {
    "image": Target(make=_image, use=_use_image, file="image.png", kind="bytes"),
    "gallery": Target(make=_gallery, use=_use_gallery, file="my.gallery", kind="safetensors"),
    "zoo": Target(make=_zoo, use=_use_zoo, file="manifest.json", kind="json"),
    "model": Target(make=_zoo, use=_use_zoo, file=ZOO_FILE, kind="safetensors"),
    "extractor": Target(
        make=_extractor, use=_use_extractor, file="extractor.safetensors", kind="safetensors"
    ),
    "card": Target(make=_extractor, use=_use_card, file="extractor.json", kind="json"),
    "manifest": Target(make=_manifest, use=_use_manifest, file="manifest.csv", kind="bytes"),
    "checkpoint": Target(
        make=_checkpoint, use=_use_checkpoint, file="checkpoint.safetensors", kind="safetensors"
    ),
    "notebook": Target(make=_notebook, use=_use_notebook, file="work.ipynb", kind="json"),
    "fingerprints": Target(
        make=_fingerprints, use=_use_fingerprints, file="fingerprints.json", kind="json"
    ),
    "spectra": Target(
        make=_fingerprints,
        use=_use_fingerprints,
        file="fingerprints.safetensors",
        kind="safetensors",
    ),
    "encoder": Target(
        make=_encoder, use=_use_encoder, file="encoder.safetensors", kind="safetensors"
    ),
    "swap": Target(make=_swap, use=_use_swap, file="deconv.safetensors", kind="safetensors"),
    "embeddings": Target(
        make=_embeddings, use=_use_embeddings, file=CACHE_FILE, kind="safetensors"
    ),
    "tiles": Target(make=_tiles, use=_use_tiles, file="tiles.npy", kind="bytes"),
}

# ---- how it is spoilt --------------------------------------------------------------------------

Mutation = Callable[[bytes, random.Random], bytes]

_DEEP = "[" * 100_000
_VALUES: tuple[Json, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**53 + 1, 2**63, -(2**63), 1.5, -0.0, 1e308, 5e-324,
    "", "x", "../../x", "/etc/passwd", "C:\\x", "..\\x", "a\0b", "a\nb\x1b[2J", "\u202e", "\ud800",
    "x" * 100_000, [], {}, [[]], [0], {"x": 0}, ["x"] * 1000, "__import__('os').abort()",
    "K1-L1-Unearest-Arelu-Nbatch-Spost/seed\u0663", "fpkit-gallery-1", "sha256",
)  # fmt: skip
_RAW = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, _DEEP, "{", "\xff", '"\\u12', "1_0")
_HOLE = "<hole>"


def _places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something can be put: every key and index, strings of JSON too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, child in inner:
        found.append((*path, key))
        if isinstance(child, dict | list):
            found += _places(child, (*path, key))
    return found


def spoil_json(text: str, chance: random.Random) -> str:
    """One thing in a JSON text is wrong: a value, a key, a number of copies."""
    value = json.loads(text)
    places = _places(value)
    if not places or chance.random() < 0.05:
        return chance.choice([json.dumps(chance.choice(_VALUES)), *_RAW])
    *path, key = chance.choice(places)
    parent = value
    for step in path:
        parent = parent[step]
    what = chance.choice(["value", "raw", "drop", "add", "twice", "swap", "nested"])
    child = parent[key]
    if what == "nested" and isinstance(child, str) and child[:1] in ("[", "{"):
        parent[key] = spoil_json(child, chance)
    elif what == "drop":
        del parent[key]
    elif what == "add" and isinstance(parent, dict):
        parent[chance.choice(["extra", "", "../x", "\x1b[2J", "x" * 10_000])] = child
    elif what == "add":
        parent.insert(key, child)
    elif what == "swap":
        other = parent[
            chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        ]
        parent[key] = other
    elif what == "twice" and isinstance(parent, dict):
        parent[_HOLE] = child
        text = json.dumps(value)
        return text.replace(json.dumps(_HOLE), json.dumps(key), 1)
    elif what == "raw":
        parent[key] = _HOLE
        return json.dumps(value).replace(json.dumps(_HOLE), chance.choice(_RAW), 1)
    else:
        parent[key] = chance.choice(_VALUES)
    return json.dumps(value)


def split(blob: bytes) -> tuple[str, bytes]:
    """Header and data of a safetensors file."""
    length = int.from_bytes(blob[:8], "little")
    return blob[8 : 8 + length].decode(), blob[8 + length :]


def joined(header: str, data: bytes, *, renewed: bool) -> bytes:
    """A safetensors file; with a renewed checksum if its header can still be read."""
    if renewed:
        try:
            content = json.loads(header)
            del content["__metadata__"]["sha256"]
            digest = sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
            digest.update(data)
            old = json.loads(header)["__metadata__"]["sha256"]
            header = header.replace(old, digest.hexdigest())
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
            pass
    text = header.encode("utf-8", errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


def _bytes_mutations() -> dict[str, Mutation]:
    def cut(blob: bytes, chance: random.Random) -> bytes:
        return blob[: chance.randrange(len(blob))]

    def grown(blob: bytes, chance: random.Random) -> bytes:
        return blob + chance.randbytes(chance.randrange(1, 64))

    def flipped(blob: bytes, chance: random.Random) -> bytes:
        place = chance.randrange(len(blob))
        return blob[:place] + bytes([blob[place] ^ 1 << chance.randrange(8)]) + blob[place + 1 :]

    def zeroed(blob: bytes, chance: random.Random) -> bytes:
        place = chance.randrange(len(blob))
        return blob[:place] + bytes(len(blob) - place)

    def overwritten(blob: bytes, chance: random.Random) -> bytes:
        place = chance.randrange(len(blob))
        noise = chance.randbytes(chance.randrange(1, 16))
        return blob[:place] + noise + blob[place + len(noise) :]

    def doubled(blob: bytes, chance: random.Random) -> bytes:
        place = chance.randrange(len(blob))
        return blob[:place] + blob[place // 2 :]

    def replaced(blob: bytes, chance: random.Random) -> bytes:
        pickled = b"\x80\x04cposix\nsystem\nX\x04\x00\x00\x00true\x85R."
        return chance.choice([b"", b"\0", b"{}", b"[]", b"null", b"\xff\xfe", b"PK\3\4", pickled])

    return {f.__name__: f for f in (cut, grown, flipped, zeroed, overwritten, doubled, replaced)}


def _json_mutations() -> dict[str, Mutation]:
    def json_spoilt(blob: bytes, chance: random.Random) -> bytes:
        return spoil_json(blob.decode(), chance).encode("utf-8", errors="surrogatepass")

    def json_deep(blob: bytes, chance: random.Random) -> bytes:
        return (_DEEP if chance.random() < 0.5 else '{"a":' * 100_000).encode()

    def json_wide(blob: bytes, chance: random.Random) -> bytes:
        return b"[" + chance.choice([b"[],", b"{},", b'{"a":0},', b"0,"]) * 300_000 + b"0]"

    def json_oversized(blob: bytes, chance: random.Random) -> bytes:
        return blob + b" " * 2**25

    return {f.__name__: f for f in (json_spoilt, json_deep, json_wide, json_oversized)}


def _tensor_mutations() -> dict[str, Mutation]:
    def header_length(blob: bytes, chance: random.Random) -> bytes:
        length = int.from_bytes(blob[:8], "little")
        size = chance.choice([0, 1, length - 1, length + 1, 2**27, 2**32, 2**60, 2**63, 2**64 - 1])
        return struct.pack("<Q", size) + blob[8:]

    def header_spoilt(blob: bytes, chance: random.Random) -> bytes:
        header, data = split(blob)
        return joined(spoil_json(header, chance), data, renewed=chance.random() < 0.9)

    def metadata_spoilt(blob: bytes, chance: random.Random) -> bytes:
        header, data = split(blob)
        content = json.loads(header)
        strings = _spoilt_strings(content["__metadata__"], chance)
        if chance.random() < 0.5:
            text = json.dumps(content | {"__metadata__": strings})
        else:
            spoilt = spoil_json(json.dumps(strings), chance)
            text = json.dumps(content | {"__metadata__": _HOLE})
            text = text.replace(json.dumps(_HOLE), spoilt)
        return joined(text, data, renewed=True)

    def tensor_spoilt(blob: bytes, chance: random.Random) -> bytes:
        header, data = split(blob)
        content = json.loads(header)
        name = chance.choice([name for name in content if name != "__metadata__"])
        field = chance.choice(["dtype", "shape", "data_offsets"])
        content[name][field] = {
            "dtype": ["F64", "F32", "F16", "BF16", "I64", "U8", "F8_E4M3", "Q4", 3],
            "shape": [[], [2**62, 2**62], [0, 2**62], [-1], [1.0], [True], [1] * 99, [2**40], "x"],
            "data_offsets": [[0, 2**60], [-8, 0], [8, 0], [0], [0.0, 8.0], [0, len(data)], {}],
        }[field][chance.randrange(7)]
        return joined(json.dumps(content), data, renewed=True)

    def tensor_moved(blob: bytes, chance: random.Random) -> bytes:
        header, data = split(blob)
        content = json.loads(header)
        names = [name for name in content if name != "__metadata__"]
        one, other = chance.choice(names), chance.choice(names)
        content[chance.choice([other, "extra", "../../x", ""])] = content.pop(one)
        return joined(json.dumps(content), data, renewed=True)

    def data_not_finite(blob: bytes, chance: random.Random) -> bytes:
        header, data = split(blob)
        place = chance.randrange(0, max(1, len(data) - 8), 8)
        bad = struct.pack("<d", chance.choice([np.nan, np.inf, -np.inf, 1e300]))
        if chance.random() < 0.5:
            bad = np.array([np.nan, np.inf], np.float32).tobytes()
        return joined(header, data[:place] + bad + data[place + 8 :], renewed=True)

    def data_flipped(blob: bytes, chance: random.Random) -> bytes:
        header, data = split(blob)
        place = chance.randrange(len(data))
        flipped = data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        return joined(header, flipped, renewed=False)

    found = (header_length, header_spoilt, metadata_spoilt, tensor_spoilt, tensor_moved)
    return {f.__name__: f for f in (*found, data_not_finite, data_flipped)}


def _spoilt_strings(metadata: dict[str, str], chance: random.Random) -> dict[str, str]:
    """One of the strings is JSON: spoil what it says."""
    inner = [name for name, text in metadata.items() if text[:1] in ("[", "{")]
    if not inner:
        return metadata
    name = chance.choice(inner)
    return {**metadata, name: spoil_json(metadata[name], chance)}


_BYTES, _JSON, _TENSORS = _bytes_mutations(), _json_mutations(), _tensor_mutations()
MUTATIONS: dict[str, dict[str, Mutation]] = {
    "bytes": _BYTES,
    "json": {**_BYTES, **_JSON},
    "safetensors": {**_BYTES, **_TENSORS},
}
"""Kind of file to the ways in which it can be spoilt; each is a function of bytes and a seed."""
