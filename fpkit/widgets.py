"""All interactive views for Jupyter: each has its module, its state in traits and ``.static()``."""

from fpkit.block_explorer import BlockExplorer
from fpkit.synthesis_explorer import SynthesisExplorer

__all__ = ["BlockExplorer", "SynthesisExplorer"]
