"""A zoo: synthetic models on disk, and their application to images.

A folder with one ``manifest.json`` and one safetensors file per model. The manifest is rewritten
atomically after every model, so that an interrupted build keeps what it finished.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fpkit.arch import ArchSpec, model_id
from fpkit.assets import write_bytes_atomic, write_text_atomic, zoo_path
from fpkit.blocks import SyntheticModel
from fpkit.images import quantise
from fpkit.synthesis import Synthesis

VERSION = 1
Precision = Literal["float32", "float16"]


class Zoo:
    """Synthetic models in a folder; make one with `Zoo.create`, open one with `Zoo.load`.

    Attributes
    ----------
    path : Path
        The folder.
    source : str
        Where the training images came from.
    entries : list of dict
        One per model: ``model_id, arch_id, seed, residual, reached, steps, seconds, file``.
    """

    def __init__(
        self, path: Path, source: str, precision: Precision, entries: list[dict[str, Any]]
    ) -> None:
        self.path = path
        self.source = source
        self.precision = precision
        self.entries = entries

    @classmethod
    def create(cls, path: str | Path, *, source: str, precision: Precision = "float32") -> "Zoo":
        """Start an empty zoo in a new or empty folder.

        Parameters
        ----------
        path : str or Path
        source : str
            Where the training images come from, kept in the manifest.
        precision : {"float32", "float16"}
            How weights are stored; half precision halves the files and changes outputs by less
            than one 8-bit step.
        """
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
        path = Path(path)
        if (path / "manifest.json").exists():
            raise FileExistsError(f"{path} already holds a zoo: open it with Zoo.load")
        path.mkdir(parents=True, exist_ok=True)
        zoo = cls(path, source, precision, [])
        zoo._write_manifest()
        return zoo

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Zoo":
        """Open the zoo in folder `path`, by default the starter zoo that comes with fpkit."""
        path = zoo_path() if path is None else Path(path)
        file = path / "manifest.json"
        if not file.is_file():
            raise FileNotFoundError(f"{path} holds no zoo: expected {file}")
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            version = manifest["version"]
            if version != VERSION:
                raise ValueError(f"version {version}, this fpkit reads version {VERSION}")
            entries = [dict(entry) for entry in manifest["models"]]
            for entry in entries:
                spec, seed = ArchSpec.parse(entry["arch_id"]), int(entry["seed"])
                # the file name follows from spec and seed: a manifest cannot point elsewhere
                if entry["model_id"] != model_id(spec, seed) or entry["file"] != _file(spec, seed):
                    raise ValueError(f"entry {entry['model_id']!r} does not fit its spec and seed")
            return cls(path, manifest["source"], manifest["precision"], entries)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no valid zoo manifest: {error}") from error

    def add(self, synthesis: Synthesis) -> None:
        """Store a trained model and its record; an entry of the same id is replaced."""
        entry = {
            "model_id": synthesis.model_id,
            "arch_id": synthesis.spec.id,
            "seed": synthesis.seed,
            "residual": round(synthesis.residual, 6),
            "reached": synthesis.reached,
            "steps": synthesis.steps,
            "seconds": round(synthesis.seconds, 2),
            "file": _file(synthesis.spec, synthesis.seed),
        }
        self._store(synthesis.model, entry)

    def copy_from(self, other: "Zoo", name: str) -> None:
        """Store model `name` of another zoo here, in this zoo's precision."""
        self._store(other.model(name), other.entry(name))

    @property
    def model_ids(self) -> list[str]:
        """Ids of all models, in the order of the manifest."""
        return [entry["model_id"] for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.model_ids)

    def __contains__(self, name: object) -> bool:
        return name in self.model_ids

    def entry(self, name: str) -> dict[str, Any]:
        """The manifest's record of model `name`; KeyError with the choices if there is none."""
        for entry in self.entries:
            if entry["model_id"] == name:
                return entry
        few = ", ".join(self.model_ids[:3])
        raise KeyError(f"no model {name!r} in {self.path}: it has {len(self)} models ({few}, ...)")

    def model(self, name: str, *, device: str | torch.device = "cpu") -> SyntheticModel:
        """Model `name` in eval mode, float32, without gradients."""
        entry = self.entry(name)
        file = self.path / entry["file"]
        model = SyntheticModel(ArchSpec.parse(entry["arch_id"]))
        try:
            weights = {key: value.float() for key, value in load_file(file).items()}
            missing = model.load_state_dict(weights, strict=False)
            absent = [k for k in missing.missing_keys if not k.endswith("num_batches_tracked")]
            if absent or missing.unexpected_keys:
                raise ValueError(f"missing {absent}, unexpected {missing.unexpected_keys}")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file} of model {name} is missing from the zoo") from error
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise ValueError(f"{file} does not hold the weights of {name}: {error}") from error
        return model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def apply(self, name: str, images: Tensor) -> Tensor:
        """Pass images through model `name`: what this model would have published.

        Parameters
        ----------
        name : str
            A model id.
        images : Tensor, (n, 3, h, w) float32 in [0, 1]
            Sides that are multiples of ``2 ** blocks``.

        Returns
        -------
        Tensor, (n, 3, h, w)
            In [0, 1], rounded to 8 bit as an image file would be. Zero padding marks the
            border: cut a margin of 8 pixels before looking at spectra.
        """
        return quantise(self.model(name, device=images.device)(images))

    def _store(self, model: SyntheticModel, entry: dict[str, Any]) -> None:
        """Weights first, then the manifest: an interruption leaves no entry without a file."""
        half = self.precision == "float16"
        weights = {
            name: (value.half() if half and value.is_floating_point() else value).contiguous()
            for name, value in model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        write_bytes_atomic(self.path / entry["file"], save(weights))
        self.entries = [e for e in self.entries if e["model_id"] != entry["model_id"]] + [entry]
        self._write_manifest()

    def _write_manifest(self) -> None:
        manifest = {
            "version": VERSION,
            "source": self.source,
            "precision": self.precision,
            "models": self.entries,
        }
        write_text_atomic(self.path / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _file(spec: ArchSpec, seed: int) -> str:
    return f"{spec.id}-seed{seed}.safetensors"
