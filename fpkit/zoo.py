"""A zoo: synthetic models on disk, and their application to images.

A folder with one ``manifest.json`` and one safetensors file per model. Every file carries its
model's entry of the manifest in its header, and files and manifest are replaced atomically: an
interrupted build loses no finished model.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fpkit.arch import ArchSpec
from fpkit.arch import model_id as model_id_of
from fpkit.artefacts import check_fields, member, parse_json, read_json, shown
from fpkit.assets import save_safetensors_atomic, write_text_atomic, zoo_path
from fpkit.blocks import MixedConv2d, SyntheticModel, stack_models
from fpkit.images import quantise
from fpkit.locks import locked
from fpkit.parallel import map_on_cores
from fpkit.synthesis import Precision, Synthesis
from fpkit.tensor_files import open_tensors

VERSION = 2
Storage = Literal["float32", "float16"]
CACHED_PIXELS = 51_200  # two images of 160 pixels
MANIFEST = "manifest.json"

_FIELDS = {"version": int, "source": str, "storage": str, "recipe": dict, "models": list}
_ENTRY = {
    "model_id": str,
    "arch_id": str,
    "seed": int,
    "residual": float,
    "reached": bool,
    "steps": int,
    "file": str,
}
_ID_LENGTH = 200  # file names must be shorter than 256


class Zoo:
    """Synthetic models in a folder; make one with `Zoo.create`, open one with `Zoo.load`.

    Attributes
    ----------
    path : Path
        The folder.
    source : str
        Where the training images came from.
    entries : list of dict
        One per model: ``model_id, arch_id, seed, residual, reached, steps, file``.
    recipe : dict
        How `fpkit.zoo_build.build_zoo` made it, empty if models were added one by one.
    """

    def __init__(
        self,
        path: Path,
        source: str,
        storage: Storage,
        entries: list[dict[str, Any]],
        recipe: dict[str, Any],
    ) -> None:
        self.path = path
        self.source = source
        self.storage = storage
        self.entries = entries
        self.recipe = recipe

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        source: str,
        storage: Storage = "float32",
        recipe: dict[str, Any] | None = None,
    ) -> "Zoo":
        """Start an empty zoo in a new or empty folder.

        Parameters
        ----------
        path : str or Path
        source : str
            Where the training images come from, kept in the manifest.
        storage : {"float32", "float16"}
            How weights are stored; half precision halves the files and changes outputs by less
            than one 8-bit step.
        recipe : dict, optional
            How the zoo is being built, kept in the manifest.
        """
        if storage not in get_args(Storage):
            raise ValueError(f"storage must be one of {get_args(Storage)}, got {storage!r}")
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        zoo = cls(path, source, storage, [], recipe or {})
        with locked(path / MANIFEST):
            if (path / MANIFEST).exists():
                raise FileExistsError(f"{path} already holds a zoo: open it with Zoo.load")
            zoo._write_manifest()
        return zoo

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Zoo":
        """Open the zoo in folder `path`, by default the starter zoo that comes with fpkit."""
        path = zoo_path() if path is None else Path(path)
        if not (path / MANIFEST).is_file():
            raise FileNotFoundError(f"{path} holds no zoo: expected {path / MANIFEST}")
        try:
            manifest = read_json(member(path, MANIFEST))
            version = manifest.get("version") if isinstance(manifest, dict) else None
            if version != VERSION:
                raise ValueError(f"version {shown(version)}, this fpkit reads version {VERSION}")
            check_fields(manifest, _FIELDS)
            if manifest["storage"] not in get_args(Storage):
                raise ValueError(f"storage {shown(manifest['storage'])} is unknown")
            entries = [_checked(entry) for entry in manifest["models"]]
            names = Counter(entry["model_id"] for entry in entries).most_common(1)
            if names and names[0][1] > 1:
                raise ValueError(f"the model {names[0][0]} comes twice")
        except ValueError as error:
            raise ValueError(f"{path / MANIFEST} is no valid zoo manifest: {error}") from error
        return cls(path, manifest["source"], manifest["storage"], entries, manifest["recipe"])

    def add(self, synthesis: Synthesis) -> None:
        """Store a trained model and its record; an entry of the same id is replaced."""
        self.register([self.write(synthesis)])

    def write(self, synthesis: Synthesis) -> dict[str, Any]:
        """Write the file of a trained model and return its entry, which `register` then takes.

        For builders that write many models, perhaps in several processes, before they renew the
        manifest.
        """
        entry = {
            "model_id": synthesis.model_id,
            "arch_id": synthesis.spec.id,
            "seed": synthesis.seed,
            "residual": round(synthesis.residual, 6),
            "reached": synthesis.reached,
            "steps": synthesis.steps,
            "file": _file(synthesis.spec, synthesis.seed),
        }
        self._store(synthesis.model, entry)
        return entry

    def register(
        self, entries: Iterable[dict[str, Any]], *, order: Sequence[str] | None = None
    ) -> None:
        """Take the entries of written models into the manifest, replacing those of equal id.

        What another process has added to the manifest meanwhile stays in it, and comes into this
        zoo. With `order`, a sequence of model ids, the manifest is sorted by it.
        """
        with locked(self.path / MANIFEST):
            known = {entry["model_id"]: entry for entry in self.entries}
            for entry in Zoo.load(self.path).entries:
                known.setdefault(entry["model_id"], entry)
            for entry in entries:
                known.pop(entry["model_id"], None)
                known[entry["model_id"]] = entry
            self.entries = list(known.values())
            self._models.clear()
            if order is not None:
                place = {name: i for i, name in enumerate(order)}
                self.entries.sort(key=lambda entry: place.get(entry["model_id"], len(place)))
            self._write_manifest()

    def written(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Entries of those of these models whose files are complete, in the manifest or not."""
        found = []
        for name in names:
            try:
                found.append(self._read(name)[0])
            except (ValueError, FileNotFoundError):
                continue  # not written by this class, or damaged: it is made anew
        return found

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
        try:
            stored, model = self._read(name)
            if stored != entry:
                raise ValueError("its header and the manifest say different things about it")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file} of model {name} is missing from the zoo") from error
        except ValueError as error:
            raise ValueError(f"{file} does not hold the weights of {name}: {error}") from error
        return model.eval().requires_grad_(False).to(device)

    def _read(self, name: str) -> tuple[dict[str, Any], SyntheticModel]:
        """Entry and weights in the file of model `name`; ValueError unless all fits together."""
        spec, seed = parse_model_id(name)
        model = SyntheticModel(spec)
        with open_tensors(member(self.path, _file(spec, seed))) as file:
            entry = _checked(parse_json(file.metadata.get("entry", "null")))
            if entry["model_id"] != name:
                raise ValueError(f"it is the file of {entry['model_id']}")
            wanted = model.state_dict()
            file.expect(wanted, optional=[k for k in wanted if k.endswith("num_batches_tracked")])
            weights = {key: value.float() for key, value in file.read().items()}
        model.load_state_dict(weights, strict=False)
        return entry, model

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

    @torch.inference_mode()
    def apply_many(
        self,
        names: Sequence[str],
        images: Tensor,
        *,
        precision: Precision = "float32",
        grouped: bool | None = None,
    ) -> Tensor:
        """Pass images through many models: P models x K images, each model its own images.

        Parameters
        ----------
        names : sequence of str
            P model ids.
        images : Tensor, (P, K, 3, h, w) float32 in [0, 1]
            On the device where the models shall run. Sides that are multiples of 2 to the power
            of the models' blocks.
        precision : {"float32", "bfloat16"}
            Of all but the last convolution. bfloat16 takes half the time on processors that know
            it, and adds noise of the size of 8-bit rounding, as generators run in half precision
            do.
        grouped : bool, optional
            Run models of one architecture together, by grouped convolutions; by default where
            that pays: not on the CPU, where models run beside each other on its cores instead.

        Returns
        -------
        Tensor, (P, K, 3, h, w) float32
            In [0, 1], rounded to 8 bit; what `apply` gives model by model, up to rounding.

        Raises
        ------
        ValueError
            If `images` has another shape.
        KeyError
            If a model is not in the zoo.
        """
        if images.dim() != 5 or images.shape[0] != len(names) or images.shape[2] != 3:
            raise ValueError(
                f"images must be ({len(names)}, k, 3, h, w) for {len(names)} models, "
                f"got {tuple(images.shape)}"
            )
        device = images.device
        if grouped is None:
            grouped = device.type != "cpu"
        groups: dict[object, list[int]] = {}
        for place, name in enumerate(names):
            groups.setdefault(self.entry(name)["arch_id"] if grouped else place, []).append(place)
        output = torch.empty_like(images, dtype=torch.float32)
        # on the CPU, a few images at a time, so that what layers hand on stays in the cache
        pixels = images.shape[3] * images.shape[4]
        chunk = max(1, CACHED_PIXELS // pixels) if device.type == "cpu" else images.shape[1]

        def run(places: list[int]) -> None:
            with torch.inference_mode():  # of this thread
                model = self._stack([names[place] for place in places], device, precision)
                # (models, k, 3, h, w) -> (k, models * 3, h, w)
                inputs = images[places].transpose(0, 1).flatten(1, 2).to(getattr(torch, precision))
                inputs = inputs.contiguous(memory_format=torch.channels_last)
                made = torch.cat([model(part).float() for part in inputs.split(chunk)])
                output[places] = quantise(made.unflatten(1, (len(places), 3)).transpose(0, 1))

        work = list(groups.values())
        map_on_cores(lambda job: run(work[job]), len(work), device=device)
        return output

    @cached_property
    def _models(self) -> dict[tuple[str, torch.device, Precision], SyntheticModel]:
        """Models in memory; a copy of the zoo in another process reads its own."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_models"}

    def _stack(
        self, names: Sequence[str], device: torch.device, precision: Precision
    ) -> SyntheticModel:
        """These models side by side on `device`; single ones are kept in memory."""
        if len(names) > 1:
            joint = stack_models([self._stack([name], device, "float32") for name in names])
            return in_bfloat16(joint) if precision == "bfloat16" else joint
        key = names[0], device, precision
        if key not in self._models:
            model = self.model(names[0], device=device).to(memory_format=torch.channels_last)
            self._models[key] = in_bfloat16(model) if precision == "bfloat16" else model
        return self._models[key]

    def _store(self, model: SyntheticModel, entry: dict[str, Any]) -> None:
        half = self.storage == "float16"
        weights = {
            name: value.half() if half and value.is_floating_point() else value
            for name, value in model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        header = {"entry": json.dumps(entry, allow_nan=False)}
        save_safetensors_atomic(self.path / entry["file"], weights, metadata=header)

    def _write_manifest(self) -> None:
        manifest = {
            "version": VERSION,
            "source": self.source,
            "storage": self.storage,
            "recipe": self.recipe,
            "models": self.entries,
        }
        write_text_atomic(self.path / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def in_bfloat16(model: SyntheticModel) -> SyntheticModel:
    """A copy of `model` that convolves bfloat16 images; its last convolution stays in float32,
    as the steps of bfloat16 are coarser than those of an 8-bit image."""
    model = copy.deepcopy(model)
    kinds = nn.Conv2d | nn.ConvTranspose2d | MixedConv2d
    inner = {part for m in model.modules() if isinstance(m, MixedConv2d) for part in m.branches}
    *others, last = [m for m in model.modules() if isinstance(m, kinds) and m not in inner]
    for module in others:
        module.to(torch.bfloat16)
    last.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return model


def _file(spec: ArchSpec, seed: int) -> str:
    return f"{spec.id}-seed{seed}.safetensors"


def parse_model_id(name: str) -> tuple[ArchSpec, int]:
    """Architecture and seed of a model id; the inverse of :func:`fpkit.arch.model_id`."""
    arch_id, _, seed = name.rpartition("/seed")
    if not (seed.isascii() and seed.isdecimal()) or len(name) > _ID_LENGTH:
        raise ValueError(f"a model id must be ARCH_ID/seedN, got {shown(name)}")
    spec = ArchSpec.parse(arch_id)
    if model_id_of(spec, int(seed)) != name:
        raise ValueError(f"the model id {name} must be written {model_id_of(spec, int(seed))}")
    return spec, int(seed)


def _checked(entry: object) -> dict[str, Any]:
    """`entry` if it fits together; the file name follows from spec and seed, so that a manifest
    cannot point elsewhere."""
    known = check_fields(entry, _ENTRY)
    spec, seed = parse_model_id(known["model_id"])
    if (known["arch_id"], known["seed"], known["file"]) != (spec.id, seed, _file(spec, seed)):
        raise ValueError(f"entry {known['model_id']} does not fit its spec and seed")
    if not 0 <= known["residual"] or known["steps"] < 0:
        raise ValueError(f"entry {known['model_id']} has a negative residual or number of steps")
    return dict(known)
