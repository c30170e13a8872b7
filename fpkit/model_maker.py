"""The state of `SynthesisExplorer`: settings in, models out, one after another; nothing drawn."""

import threading
from contextlib import suppress
from dataclasses import replace

import traitlets
from torch import Tensor

from fpkit.arch import EXTENDED, PAPER, ArchSpec
from fpkit.made_model import MadeModel, Settings, make_model
from fpkit.panel import Cancelled, Panel
from fpkit.procedural import procedural_images

KEPT = 6  # models in the history: as many as there are colours that everyone tells apart


class ModelMaker(Panel):
    """Makes models of its settings, at once or in the background, and keeps the last six.

    See :class:`fpkit.synthesis_explorer.SynthesisExplorer` for parameters and traits.
    """

    spec = traitlets.Instance(ArchSpec)
    seed = traitlets.Int(0, min=0)
    steps = traitlets.Int(60, min=2)
    extended = traitlets.Bool(False)
    auto = traitlets.Bool(False)
    current = traitlets.Instance(MadeModel, allow_none=True)
    history = traitlets.Tuple()

    def __init__(
        self,
        images: Tensor | None = None,
        probes: Tensor | None = None,
        *,
        spec: ArchSpec | None = None,
        max_steps: int = 60,
    ) -> None:
        self.images = procedural_images(32, seed=0) if images is None else images
        self.probes = procedural_images(16, seed=1) if probes is None else probes
        self._made = 0
        self._turn = threading.Lock()
        self._following = False  # the work in the background will see new settings
        spec = spec or ArchSpec(norm="none")
        super().__init__(spec=spec, steps=max_steps, extended=spec not in PAPER)
        self.observe(self._options_changed, names="extended")
        self.observe(self._settings_changed, names=["spec", "seed", "steps"])
        self.status = "Choose the settings, then press “Make model”."

    @property
    def settings(self) -> Settings:
        """``spec``, ``seed`` and ``steps`` in one value."""
        return Settings(spec=self.spec, seed=self.seed, steps=self.steps)

    def make(self) -> MadeModel:
        """Train the model of the current settings, wait, and show its fingerprint.

        A model that is still in the history is shown again without training. An error is shown
        in the widget and raised; so is a RuntimeError while the widget is busy.
        """
        return self.run(lambda: self._make_model(self.settings))

    def make_in_background(self) -> None:
        """The same without waiting: watch ``busy``, ``cancel()`` it or ``wait()`` for it.

        With ``auto``, settings that change meanwhile end the training, and that of the new ones
        begins.
        """
        with self._turn:
            if self._following:
                return
            self._following = True
        self.wait()  # after its last look at the settings the work ends in a moment
        self.start(self._follow)

    def recall(self, number: int) -> None:
        """Go back to model `number` of the history: show it again, with its settings."""
        for made in self.history:
            if made.number == number:
                with self.hold_trait_notifications():
                    self.spec, self.seed = made.spec, made.seed
                    self.steps = made.settings.steps
                self._show(made, f"{made.label}: shown again from the history")
                return
        there = ", ".join(str(made.number) for made in self.history) or "none"
        raise ValueError(f"no model {number} in the history: there is {there}")

    def _make_model(self, settings: Settings) -> MadeModel:
        for known in self.history:
            if known.settings == settings:
                self._show(known, f"{known.label}: shown again from the history")
                return known
        self.progress, self.status = 0.0, f"Training {settings.spec.id} ..."

        def report(step: int, loss: float) -> None:
            self.checkpoint(f"Cancelled at step {step + 1}: nothing was kept of that model.")
            if self.auto and self.settings != settings:
                raise _Outdated
            self.progress = (step + 1) / settings.steps
            self.status = (
                f"Training {settings.spec.id}: step {step + 1} of {settings.steps}, loss {loss:.4f}"
            )

        number = self._made + 1
        made = make_model(settings, self.images, self.probes, number=number, callback=report)
        self._made = number
        slot = (number - 1) % KEPT
        self.history = (*self.history[:slot], made, *self.history[slot + 1 :])
        self._show(
            made,
            f"{made.label}: residual {made.residual:.4f} after {made.steps} steps "
            f"in {made.seconds:.1f} s",
        )
        return made

    def _show(self, made: MadeModel, status: str) -> None:
        self.progress, self.current, self.status = 1.0, made, status

    def _follow(self) -> None:
        """Make the model of the settings, and again while `auto` is on and they have changed."""
        try:
            while True:
                settings = self.settings
                with suppress(_Outdated):
                    self._make_model(settings)
                with self._turn:
                    if not self.auto or self.settings == settings:
                        self._following = False
                        return
        except BaseException:
            self._following = False
            raise

    def _settings_changed(self, change: traitlets.Bunch) -> None:
        if change["name"] == "spec" and self.spec not in PAPER:
            self.extended = True
        if self.auto:
            self.make_in_background()
        elif not self.busy:
            self.status = "Settings changed: press “Make model” to see their fingerprint."
            if self.spec not in EXTENDED:
                self.status += " (fpkit.EXTENDED leaves this combination out.)"

    def _options_changed(self, _: traitlets.Bunch) -> None:
        """Without the extended options the spec returns to those of the paper."""
        if not self.extended:
            usual, fields = ArchSpec(), vars(self.spec)
            beyond = [field for field in fields if fields[field] not in getattr(PAPER, field)]
            self.spec = replace(self.spec, **{field: getattr(usual, field) for field in beyond})


class _Outdated(Cancelled):
    """The settings have changed while their model was being made."""
