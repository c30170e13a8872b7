"""Fingerprints in scikit-learn: images -> embeddings, and embeddings -> names of models.

Both are ordinary estimators: they go into pipelines, grids and cross-validation, and take columns
of pandas, polars and pyarrow. Needs ``pip install 'fpkit[corpus]'``; nothing else in fpkit imports
this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fpkit.columns import column, column_names, embedding_matrix
from fpkit.embedder import CROPS_PER_SIDE, Embedder, Precision
from fpkit.extractor import load_extractor
from fpkit.gallery import PRIOR, Gallery, centred_scores
from fpkit.images import ImageReadError, decode_image, read_image
from fpkit.verdicts import (
    Conditions,
    Verdict,
    VerdictCalibration,
    gallery_features,
    stored_verdicts,
)

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "scikit-learn 1.6 or newer is not installed: pip install 'fpkit[corpus]'"
    ) from error

DEFAULT = "default"
AT_ONCE = 16  # images in memory; their crops fill a pass through the network
ROWS = 4096  # of scores in memory against all models, at once
OnError = Literal["raise", "nan"]
Weights = str | Path | Embedder


class FingerprintTransformer(TransformerMixin, BaseEstimator):
    """Images or their files -> embeddings, one row each.

    Nothing is learnt: `fit` loads the weights, and `y` is ignored. Images are read a few at a
    time, so memory does not grow with their number.

    Parameters
    ----------
    extractor : str, Path or Embedder
        ``"default"`` or ``"small"``, the weights that come with fpkit; the folder of others; or
        an extractor that is there already.
    grid : int
        Crops along each side of an image at most, see :meth:`fpkit.embedder.Embedder.embed`.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    on_error : {"raise", "nan"}
        What to do about an image that cannot be read, or is smaller than a crop: raise, or warn
        and give it a row of NaN, which most estimators refuse: leave these rows out.

    Attributes
    ----------
    extractor_ : Embedder

    Notes
    -----
    Embedding takes longer than all that follows: transform once and cross-validate what comes
    after, or give the pipeline a ``memory``.

    Examples
    --------
    >>> from fpkit.procedural import procedural_images
    >>> transformer = FingerprintTransformer(extractor="small")
    >>> transformer.fit_transform(procedural_images(2, 128, seed=0)).shape
    (2, 128)
    """

    def __init__(
        self,
        extractor: Weights = DEFAULT,
        *,
        grid: int = CROPS_PER_SIDE,
        precision: Precision = "float32",
        on_error: OnError = "raise",
    ) -> None:
        self.extractor = extractor
        self.grid = grid
        self.precision = precision
        self.on_error = on_error

    def fit(self, X: Any, y: Any = None) -> FingerprintTransformer:
        """Load the extractor.

        Raises
        ------
        ValueError
            If a parameter has no such value, or the weights are damaged.
        FileNotFoundError
            If there are no weights.
        """
        for name, options in (("precision", Precision), ("on_error", OnError)):
            if getattr(self, name) not in get_args(options):
                raise ValueError(
                    f"{name} must be one of {get_args(options)}, got {getattr(self, name)!r}"
                )
        self.extractor_ = _load(self.extractor)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embeddings (n, d) float32 of unit norm.

        Parameters
        ----------
        X
            A sequence, or a column of pandas, polars or pyarrow, of n images: each a file name
            or Path, the bytes of a file, a mapping with ``bytes`` or ``path`` (an image of
            Hugging Face datasets), or an array (3, h, w), float in [0, 1]; or an array
            (n, 3, h, w). Of a table its only column, or else that named ``path``.

        Raises
        ------
        ImageReadError
            If a file cannot be read.
        ValueError, TypeError
            If an image is smaller than a crop, or no image at all; with ``on_error="nan"`` only
            for the latter.
        """
        check_is_fitted(self)
        found: list[NDArray[np.float32]] = []
        failed: list[Exception] = []
        waiting = enumerate(_items(X))
        while batch := list(islice(waiting, AT_ONCE)):
            found.append(self._rows(batch, failed))
        if failed:
            warnings.warn(
                f"{len(failed)} images have no embedding, their rows are NaN; the first: "
                f"{failed[0]}",
                stacklevel=2,
            )
        return np.concatenate(found) if found else np.zeros((0, self.extractor_.dim), np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """``fingerprint0``, ``fingerprint1``, ...: names of the columns, whatever went in."""
        check_is_fitted(self)
        return np.array([f"fingerprint{i}" for i in range(self.extractor_.dim)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags

    def _rows(self, batch: list[tuple[int, Any]], failed: list[Exception]) -> NDArray[np.float32]:
        """Embeddings of a few images; errors of those that have none go into `failed`."""
        images: list[Tensor] = []
        rows = np.full((len(batch), self.extractor_.dim), np.nan, np.float32)
        there = []
        crop = self.extractor_.config.crop
        for row, (number, item) in enumerate(batch):
            try:
                image = _read(item, number)
                if image.dim() == 3 and min(image.shape[1:]) < crop:
                    raise ImageReadError(
                        f"{_name(item, number)}: {image.shape[2]}x{image.shape[1]} pixels, "
                        f"expected at least {crop}x{crop}: a smaller image cannot be judged"
                    )
            except ImageReadError as error:
                if self.on_error == "raise":
                    raise
                failed.append(error)
                continue
            images.append(image)
            there.append(row)
        rows[there] = self.extractor_.embed(
            images, grid=self.grid, precision=self.precision
        ).numpy()
        return rows


class GalleryClassifier(ClassifierMixin, BaseEstimator):
    """Embeddings -> names of models: one template per class, the most alike one is named.

    With `far`, a name is given only where a calibrated verdict on it says "same"; the others are
    `unknown`. Rows that `y` calls `unknown` are not enrolled, so that strangers may be part of a
    cross-validation: they count as right if nobody is named.

    Parameters
    ----------
    prior : float
        See :func:`fpkit.gallery.centred_scores`.
    far : float, optional
        Share of strangers' images that may be named, on synthetic models, see
        :mod:`fpkit.verdicts`. None: somebody is always named.
    unknown
        The label of images whose model is not enrolled, of the same type as the others.
    extractor : str, Path or Embedder, optional
        Whose embeddings these are, as for :class:`FingerprintTransformer`: the gallery is bound
        to it, and verdicts are on its card. None: any vectors will do, and with `far` those of
        ``"default"`` are meant.
    crops : int
        Assumed of images of which it is not known; so is `jpeg`.
    jpeg : bool
        Whether they were compressed. A table with columns ``crops`` and ``compressed`` beside
        ``embedding``, as `fpkit embed` writes it, says so itself.

    Attributes
    ----------
    classes_ : ndarray
        Labels of the enrolled models, sorted.
    gallery_ : Gallery
        With their templates, in the order of `classes_`; names are the labels as text.
    n_features_in_ : int

    Examples
    --------
    >>> classifier = GalleryClassifier().fit([[1, 0], [0.9, 0.1], [0, 1]], ["a", "a", "b"])
    >>> classifier.predict([[0.2, 1]]).tolist()
    ['b']
    """

    def __init__(
        self,
        *,
        prior: float = PRIOR,
        far: float | None = None,
        unknown: Any = "unknown",
        extractor: Weights | None = None,
        crops: int = 1,
        jpeg: bool = True,
    ) -> None:
        self.prior = prior
        self.far = far
        self.unknown = unknown
        self.extractor = extractor
        self.crops = crops
        self.jpeg = jpeg

    def fit(self, X: Any, y: ArrayLike) -> GalleryClassifier:
        """Enrol the rows of every class.

        Parameters
        ----------
        X
            (n, d) embeddings: an array, a table of d columns, or a table with a column
            ``embedding`` of lists.
        y
            (n,) labels.

        Raises
        ------
        ValueError
            If shapes disagree, a value is missing, no class is left to enrol, or the extractor
            has other embeddings or no calibration of verdicts.
        """
        rows, labels = validate_data(self, embedding_matrix(X), y, dtype="numeric")
        check_classification_targets(labels)
        known = np.array([label != self.unknown for label in labels.tolist()], dtype=bool)
        if not known.any():
            raise ValueError(f"every row of y is {self.unknown!r}: no class is left to enrol")
        extractor = self._extractor(rows.shape[1])
        self.classes_ = np.unique(labels[known])
        if self.far is not None and not isinstance(
            self.unknown, kind := type(self.classes_.tolist()[0])
        ):
            raise ValueError(
                f"labels are {kind.__name__}, unknown is {self.unknown!r}: give one of their type"
            )
        self.gallery_ = Gallery("" if extractor is None else extractor.hash, rows.shape[1])
        for label in self.classes_:
            self.gallery_.enrol(str(label), rows[known & (labels == label)])
        if self.far is not None and extractor is not None:
            self.calibration_: VerdictCalibration = stored_verdicts(
                extractor.card, extractor_hash=extractor.hash
            )
            asked = Conditions(crops=self.crops, jpeg=self.jpeg)
            self.calibration_.galleries.bounds(asked, models=len(self.classes_), far=self.far)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores (n, classes) in [-1, 1]; of two classes (n,), second minus first."""
        scores = self._scores(self._validated(X))
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: Any) -> NDArray[Any]:
        """Label (n,) of every row: of the most alike class, or `unknown`."""
        rows = self._validated(X)
        scores = self._scores(rows)
        named: NDArray[Any] = self.classes_[scores.argmax(axis=1)]
        if self.far is None:
            return named
        answers = self._verdicts(X, scores)
        same = np.array([verdict.answer == "same" for verdict in answers], dtype=bool)
        return np.where(same, named, self.unknown)

    def verdicts(self, X: Any) -> list[Verdict]:
        """Of every row, the verdict on the most alike class; needs `far`.

        Raises
        ------
        ValueError
            If `far` is None.
        """
        rows = self._validated(X)
        if self.far is None:
            raise ValueError("verdicts need a false-accept rate: GalleryClassifier(far=0.05)")
        return self._verdicts(X, self._scores(rows))

    def _extractor(self, dim: int) -> Embedder | None:
        if self.extractor is None and self.far is None:
            return None
        extractor = _load(DEFAULT if self.extractor is None else self.extractor)
        if extractor.dim != dim:
            raise ValueError(
                f"X has {dim} columns, the extractor's embeddings have {extractor.dim}: name the "
                "extractor that made them, or none and no far"
            )
        return extractor

    def _validated(self, X: Any) -> NDArray[np.floating]:
        check_is_fitted(self)
        rows: NDArray[np.floating] = validate_data(
            self, embedding_matrix(X), reset=False, dtype="numeric"
        )
        return rows

    def _scores(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        templates = self.gallery_.templates
        parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)]
        return np.concatenate([centred_scores(p, templates, prior=self.prior) for p in parts])

    def _verdicts(self, X: Any, scores: NDArray[np.float64]) -> list[Verdict]:
        crops, jpeg = self._conditions(X, len(scores))
        scale = self.calibration_.galleries
        features = gallery_features(
            scores,
            templates=self.gallery_.templates,
            enrolled=list(self.gallery_.counts.values()),
            crops=crops,
            jpeg=jpeg,
        )
        best, ratios = scores.max(axis=1), scale.log_ratio(features)
        return [
            scale.verdict(
                float(best[i]),
                float(ratios[i]),
                Conditions(crops=int(crops[i]), jpeg=bool(jpeg[i])),
                models=len(self.classes_),
                far=self.far,
            )
            for i in range(len(scores))
        ]

    def _conditions(self, X: Any, count: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Crops and whether compressed, of each row: from the table, or as assumed."""
        crops, jpeg = np.full(count, self.crops), np.full(count, self.jpeg)
        names = column_names(X)
        if "crops" in names:
            crops = np.array(column(X, "crops"), dtype=int)
        if "compressed" in names:
            jpeg = np.array(column(X, "compressed"), dtype=bool)
        return crops, jpeg


def _load(extractor: Any) -> Embedder:
    if isinstance(extractor, Embedder):
        return extractor
    if not isinstance(extractor, str | Path):
        raise TypeError(
            f"extractor must be 'default', 'small', a folder or an Embedder, got {extractor!r}"
        )
    return load_extractor(None if extractor == DEFAULT else extractor)


def _items(X: Any) -> Iterator[Any]:
    """The images of whatever holds them, in order."""
    names = column_names(X)
    if names:
        if len(names) > 1 and "path" not in names:
            raise ValueError(f"expected one column, or one named 'path', got {names}")
        return iter(column(X, "path" if len(names) > 1 else names[0]))
    if isinstance(X, str | bytes | Path | Mapping):
        raise TypeError(f"X must hold images, got one {type(X).__name__}: put it into a list")
    if hasattr(X, "to_pylist"):
        X = X.to_pylist()
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    if not isinstance(X, Iterable):
        raise TypeError(f"X must be a sequence of images, got {type(X).__name__}")
    return iter(X)


def _read(item: Any, number: int) -> Tensor:
    """(3, h, w) of one item."""
    if isinstance(item, Mapping):
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes | bytearray | memoryview):
        return decode_image(bytes(item), name=_name(item, number))
    if isinstance(item, str | Path):
        return read_image(item)
    if isinstance(item, Tensor):
        return item
    if isinstance(item, np.ndarray) and item.ndim == 3:
        return torch.from_numpy(np.array(item))  # a copy: torch warns of memory it may not write
    raise TypeError(
        f"image {number} is {type(item).__name__}, expected a file name, the bytes of a file, or "
        "an array (3, h, w) in [0, 1]"
    )


def _name(item: Any, number: int) -> str:
    return str(item) if isinstance(item, str | Path) else f"image {number}"
