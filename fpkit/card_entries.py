"""Calibrations on an extractor's model card: each bound to the weights that it was fitted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fpkit.artefacts import shown

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CardEntry:
    """One kind of calibration.

    Attributes
    ----------
    key
        Of the entry on a card.
    noun
        What messages call it, such as ``"lineage calibration"``.
    command
        That makes it.
    """

    key: str
    noun: str
    command: str

    def of(
        self, calibration: Any, report: Mapping[str, Any], *, extractor_hash: str
    ) -> dict[str, Any]:
        """What goes onto a card under `key`; :meth:`read` reads it.

        Parameters
        ----------
        calibration
            A dataclass.
        report
            How it was fitted, and how well it does.
        extractor_hash
            ``extractor.hash`` of the extractor that it was fitted for.
        """
        return {"extractor": extractor_hash, "calibration": asdict(calibration), **report}

    def read(self, card: Mapping[str, Any], build: Callable[[Any], T], *, extractor_hash: str) -> T:
        """The calibration on a card, as `build` makes it of what is stored.

        Raises
        ------
        ValueError
            If there is none, or it is damaged or was made for other weights; says how to make it.
        """
        entry = card.get(self.key)
        if entry is None:
            raise ValueError(f"this extractor's card has no {self.noun}: run `{self.command}`")
        try:
            made_for, calibration = entry["extractor"], build(entry["calibration"])
            if not isinstance(made_for, str):
                raise TypeError(f"extractor is {shown(made_for)}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"the card's {self.noun} is damaged ({shown(str(error), most=300)}): run "
                f"`{self.command}`"
            ) from error
        if made_for != extractor_hash:
            raise ValueError(
                f"the card's {self.noun} was made for the extractor {shown(made_for[:12])}, this "
                f"is {extractor_hash[:12]}: run `{self.command}`"
            )
        return calibration
