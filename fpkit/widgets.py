"""All interactive views for Jupyter: each has its module, its state in traits and ``.static()``."""

from fpkit.attribution_desk import AttributionDesk
from fpkit.block_explorer import BlockExplorer
from fpkit.embedding_map import EmbeddingMap
from fpkit.fingerprint_browser import FingerprintBrowser
from fpkit.synthesis_explorer import SynthesisExplorer
from fpkit.training_monitor import TrainingMonitor

__all__ = [
    "AttributionDesk",
    "BlockExplorer",
    "EmbeddingMap",
    "FingerprintBrowser",
    "SynthesisExplorer",
    "TrainingMonitor",
]
