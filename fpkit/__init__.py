"""fpkit: fingerprints of image generators, to see, to measure and to teach.

>>> import fpkit as fp
>>> spec = fp.ArchSpec(upsample="deconv")
>>> images = fp.procedural_images(4, 64, seed=0)
>>> fp.average_spectrum(images, crop=64).shape
(3, 64, 64)
"""

from fpkit.arch import AXES, EXTENDED, PAPER, ArchSpace, ArchSpec, model_id
from fpkit.bench import bench
from fpkit.coherence import spectral_coherence
from fpkit.corpus import read_embeddings
from fpkit.decoders import RandomDecoder
from fpkit.encoder import load_encoder
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.folders import list_models
from fpkit.gallery import Gallery, Identification, verify
from fpkit.images import ImageReadError, grid_crops, read_image, read_images
from fpkit.matching import match_spectrum
from fpkit.metrics import coverage, diversity, ffd
from fpkit.procedural import procedural_images
from fpkit.realworld import real_fingerprints
from fpkit.residual import residual
from fpkit.spectrum import (
    autocorrelation,
    average_spectrum,
    power_spectrum,
    radial_profile,
    to_db,
)
from fpkit.synthesis import Synthesis, synthesize, synthesize_stack
from fpkit.synthesizer import (
    MixedSynthesizer,
    RandomSynthesizer,
    Synthesizer,
    ZooSynthesizer,
)
from fpkit.train_plan import TrainConfig, train_preset
from fpkit.training import train
from fpkit.zoo import Zoo
from fpkit.zoo_build import build_zoo, training_images
from fpkit.zoo_plan import ZooPlan, preset_plan

__version__ = "0.1.0"

__all__ = [
    "AXES",
    "EXTENDED",
    "PAPER",
    "ArchSpace",
    "ArchSpec",
    "Extractor",
    "ExtractorConfig",
    "Gallery",
    "Identification",
    "ImageReadError",
    "MixedSynthesizer",
    "RandomDecoder",
    "RandomSynthesizer",
    "Synthesis",
    "Synthesizer",
    "TrainConfig",
    "Zoo",
    "ZooPlan",
    "ZooSynthesizer",
    "autocorrelation",
    "average_spectrum",
    "bench",
    "build_zoo",
    "coverage",
    "diversity",
    "ffd",
    "grid_crops",
    "list_models",
    "load_encoder",
    "load_extractor",
    "match_spectrum",
    "model_id",
    "power_spectrum",
    "preset_plan",
    "procedural_images",
    "radial_profile",
    "read_embeddings",
    "read_image",
    "read_images",
    "real_fingerprints",
    "residual",
    "spectral_coherence",
    "synthesize",
    "synthesize_stack",
    "to_db",
    "train",
    "train_preset",
    "training_images",
    "verify",
]
