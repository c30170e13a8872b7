"""All interactive views for Jupyter: each has its module, its state in traits and ``.static()``."""

from fpkit.block_explorer import BlockExplorer
from fpkit.embedding_map import EmbeddingMap
from fpkit.fingerprint_browser import FingerprintBrowser
from fpkit.synthesis_explorer import SynthesisExplorer

__all__ = ["BlockExplorer", "EmbeddingMap", "FingerprintBrowser", "SynthesisExplorer"]
