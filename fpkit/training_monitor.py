"""Watch an extractor being trained; stop it, and go on exactly where it stopped."""

import json
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import torch
import traitlets
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fpkit.embedder import Embedder
from fpkit.extractor import load_extractor
from fpkit.learner import Row
from fpkit.live_figure import LiveFigure
from fpkit.panel import Panel
from fpkit.stream import FingerprintStream, Sources
from fpkit.synthesizer import RandomSynthesizer, ZooSynthesizer
from fpkit.train_plan import TrainConfig
from fpkit.training import CHECKPOINT, LOG, split_zoo, train
from fpkit.training_plots import (
    Snapshot,
    learning_curves,
    snapshot_scatter,
    snapshot_title,
    take_snapshot,
    training_picture,
)
from fpkit.validation import validation_models
from fpkit.zoo import Zoo

_MODELS, _IMAGES = 6, 8  # in a snapshot: how many models, images of each
_PAUSE = 0.5  # seconds between two redraws at least: a browser must keep up with a fast training


class TrainingMonitor(Panel):
    """Train an extractor in the background; see its loss, its skill and its embeddings meanwhile.

    Skill is how many images of held-out models it names right after one image of each; a snapshot
    shows where it puts images of up to six of them. Both are renewed at every validation.

    Parameters
    ----------
    config : TrainConfig
        ``validate_every`` sets how often skill and snapshot are renewed.
    sources : Sources
        The images that pass through the models.
    zoo : Zoo, optional
        As for :func:`fpkit.training.train`; without one, all models are random decoders.
    out : str or Path
        Folder of the training. If it holds a checkpoint, the training goes on from there.
    device : str or torch.device

    Attributes
    ----------
    rows : tuple of dict (trait, read it)
        The log so far, at most half a second old.
    step : int (trait, read it)
        Steps done.
    snapshots : tuple of Snapshot (trait, read it)
        Since this widget was made: after the first step, and at every validation.
    shown : int (trait)
        Which of them is shown; the newest, once there is a new one.
    extractor : Extractor, PaperExtractor or None (trait, read it)
        The trained one, once the training is done.
    chance : float
        The share of images that guessing would name right.

    Examples
    --------
    >>> monitor = TrainingMonitor(config, sources, out="run")  # doctest: +SKIP
    >>> monitor.begin()                                        # doctest: +SKIP
    >>> monitor.stop()                                         # doctest: +SKIP
    """

    rows = traitlets.Tuple()
    step = traitlets.Int(0)
    snapshots = traitlets.Tuple()
    shown = traitlets.Int(0)
    extractor = traitlets.Instance(Embedder, allow_none=True)

    def __init__(
        self,
        config: TrainConfig,
        sources: Sources,
        zoo: Zoo | None = None,
        *,
        out: str | Path,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = config
        self.sources = sources
        self.zoo = zoo
        self.out = Path(out)
        self.device = device
        self.held_out = [] if zoo is None else split_zoo(zoo, config)[1]
        self.chance = 1 / validation_models(self.held_out)
        self._log = self._stored_log()
        self._drawn = 0.0
        super().__init__()
        self._build()
        self.observe(self._draw_curves, names="rows")
        self.observe(self._show_newest, names="snapshots")
        self.observe(self._draw_snapshot, names=["snapshots", "shown"])
        self.observe(self._show_state, names=["busy", "step", "extractor"])
        self.rows, self.step = tuple(self._log), len(self._log)
        self.progress = self.step / config.steps
        if self.step == config.steps:
            self.extractor = load_extractor(self.out, device=device)
        self.status = self._standing()
        self._show_state()

    # -- doing ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Train in the background, from the checkpoint on if there is one; returns at once.

        Raises
        ------
        RuntimeError
            If it is training already.
        """
        self.start(self._train)

    def stop(self) -> None:
        """Ask the training to stop after the step at hand, with a checkpoint; see :meth:`wait`."""
        if self.busy:
            self.status = "Stopping after this step ..."
        self.cancel()

    def train(self, *, stop_after: int | None = None) -> None:
        """Train here and now, as :meth:`begin` does in the background.

        Parameters
        ----------
        stop_after : int, optional
            Leave after this many steps, with a checkpoint.
        """
        self.run(lambda: self._train(stop_after))

    def static(self) -> Image.Image:
        """Curves, and the first, the middle and the last snapshot, as one picture.

        Raises
        ------
        ValueError
            If nothing was trained yet.
        """
        return training_picture(self._log, self.snapshots, chance=self.chance)

    def _train(self, stop_after: int | None = None) -> None:
        if self.step == self.config.steps:
            self.status = self._standing()
            return
        self.status = f"Preparing models and images (step {self.step}) ..."
        try:
            extractor = train(
                self.config,
                sources=self.sources,
                out=self.out,
                zoo=self.zoo,
                device=self.device,
                stop_after=stop_after,
                progress=False,
                callback=self._after_step,
            )
        finally:
            self.rows = tuple(self._log)
        if self.step == self.config.steps:
            self.extractor = extractor
        self.status = self._standing()

    def _after_step(self, row: Row, extractor: Embedder) -> None:
        # a killed training may have logged steps after its checkpoint: they are done anew
        self._log = [*self._log[: int(row["step"]) - 1], row]
        validated = "one_shot" in row
        if validated or row["step"] == 1:
            before = self.snapshots[-1] if self.snapshots else None
            embeddings = self._embed(extractor)
            fresh = take_snapshot(embeddings, self._models, step=int(row["step"]), before=before)
            self.snapshots = (*self.snapshots, fresh)
        if validated or time.monotonic() - self._drawn > _PAUSE:
            self.rows = tuple(self._log)
            self._drawn = time.monotonic()
        self.step = int(row["step"])
        self.progress = self.step / self.config.steps
        if not self._cancelled.is_set():
            self.status = self._standing()
        self.checkpoint(f"{self._standing()} Stopped, with a checkpoint: “Resume” goes on exactly.")

    # -- what is shown -------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The held-out models of the snapshots, at most six."""
        known = [name.split("/")[0] for name in self.held_out[:_MODELS]]
        return known or [f"random decoder {i + 1}" for i in range(_MODELS)]

    @property
    def _models(self) -> list[str]:
        return [name for name in self.names for _ in range(_IMAGES)]

    @cached_property
    def _probes(self) -> Tensor:
        """Crops of the models of `_models`, of scenes drawn anew."""
        stream = replace(
            self.config.stream,
            models=len(self.names),
            images=_IMAGES,
            sources=2 * _IMAGES,
            jpeg_share=0.0,
            matched_share=0.0,
            seed=self.config.stream.seed + 104_729,  # neither of the training nor its validation
        )
        models: ZooSynthesizer | RandomSynthesizer = RandomSynthesizer()
        if self.zoo is not None and self.held_out:
            models = ZooSynthesizer(self.zoo, self.held_out[:_MODELS])
        crop = self.config.extractor.crop
        crops, labels = FingerprintStream(stream, self.sources, models, crop=crop)[0]
        return crops[labels.argsort(stable=True)]  # a zoo draws its models in any order

    @torch.no_grad()
    def _embed(self, extractor: Embedder) -> Tensor:
        mode = extractor.training
        extractor.eval()
        raw = extractor(self._probes.to(extractor.cohort.device))
        extractor.train(mode)
        return functional.normalize(raw).cpu()

    def _stored_log(self) -> list[Row]:
        if not (self.out / CHECKPOINT).is_file():
            return []
        lines = (self.out / LOG).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def _standing(self) -> str:
        """Where the training stands, in a line."""
        if not self._log:
            return f"{self.config.steps} steps to do: press “Start”."
        parts = [f"Step {self.step} of {self.config.steps}, loss {self._log[-1]['loss']:.2f}"]
        found = [row for row in self._log if "one_shot" in row]
        if found:
            parts.append(
                f"held-out images named right: {found[-1]['one_shot']:.0%} (chance "
                f"{self.chance:.0%}) at step {found[-1]['step']:.0f}"
            )
        return "; ".join(parts) + "."

    def _build(self) -> None:
        self._start = ipywidgets.Button(
            description="Start", button_style="primary", icon="play",
            tooltip="Train in the background, from the last checkpoint on if there is one",
        )  # fmt: skip
        self._stop = ipywidgets.Button(
            description="Stop", icon="stop",
            tooltip="Finish the step at hand, write a checkpoint, stop",
        )  # fmt: skip
        self._start.on_click(lambda _: self.begin())
        self._stop.on_click(lambda _: self.stop())
        self._curves = LiveFigure(self._curve_figure())
        self._scatter = LiveFigure(snapshot_scatter(None, self._models))
        self._slider = ipywidgets.IntSlider(
            min=0, max=self.config.steps, description="snapshot at step", continuous_update=False,
            style={"description_width": "120px"}, layout=ipywidgets.Layout(width="460px"),
        )  # fmt: skip
        self._slider.observe(self._choose, names="value")
        wrap = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        top = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start")
        actions = ipywidgets.Box([self._start, self._stop, self.bar], layout=wrap)
        seen = ipywidgets.VBox([self._scatter, self._slider])
        self.children = [actions, self.message, ipywidgets.Box([self._curves, seen], layout=top)]

    def _curve_figure(self) -> go.Figure:
        return learning_curves(self.rows, chance=self.chance, steps=self.config.steps)

    def _draw_curves(self, _: traitlets.Bunch) -> None:
        with self._curves.batch_update():
            for trace, fresh in zip(self._curves.data, self._curve_figure().data, strict=True):
                trace.update(x=fresh.x, y=fresh.y)

    def _show_newest(self, _: traitlets.Bunch) -> None:
        self.shown = len(self.snapshots) - 1

    def _choose(self, change: traitlets.Bunch) -> None:
        if not self.snapshots:
            return
        steps, wanted = [snapshot.step for snapshot in self.snapshots], change["new"]
        if wanted > steps[self.shown]:  # up to the next one, else an arrow key could not leave it
            self.shown = min(len(steps) - 1, sum(step < wanted for step in steps))
        else:
            self.shown = max(0, sum(step <= wanted for step in steps) - 1)
        self._slider.value = steps[self.shown]

    @traitlets.validate("shown")
    def _valid_shown(self, proposal: traitlets.Bunch) -> int:
        last = max(0, len(self.snapshots) - 1)
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(f"shown must be 0 to {last}, got {proposal['value']}")
        return int(proposal["value"])

    def _draw_snapshot(self, _: traitlets.Bunch) -> None:
        snapshot: Snapshot = self.snapshots[self.shown]
        self._slider.value = snapshot.step
        with self._scatter.batch_update():
            self._scatter.data[0].update(
                x=snapshot.points[:, 0].astype(np.float32),
                y=snapshot.points[:, 1].astype(np.float32),
            )
            self._scatter.layout.title.text = snapshot_title(snapshot)

    def _show_state(self, _: traitlets.Bunch | None = None) -> None:
        done = self.extractor is not None
        self._start.description = "Done" if done else "Resume" if self.step else "Start"
        self._start.disabled = self.busy or done
        self._stop.disabled = not self.busy
