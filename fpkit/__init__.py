"""fpkit: fingerprints of image generators, to see, to measure and to teach.

>>> import fpkit as fp
>>> spec = fp.ArchSpec(upsample="deconv")
>>> images = fp.procedural_images(4, 64, seed=0)
>>> fp.average_spectrum(images, crop=64).shape
(3, 64, 64)
"""

from fpkit.arch import AXES, ArchSpec, model_id, paper_specs
from fpkit.bench import bench
from fpkit.decoders import RandomDecoder
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.gallery import Gallery, Identification, verify
from fpkit.images import ImageReadError, grid_crops, list_models, read_image, read_images
from fpkit.procedural import procedural_images
from fpkit.residual import residual
from fpkit.spectrum import (
    autocorrelation,
    average_spectrum,
    power_spectrum,
    radial_profile,
    to_db,
)
from fpkit.synthesis import Synthesis, synthesize
from fpkit.training import TrainConfig, train
from fpkit.zoo import Zoo

__version__ = "0.1.0"

__all__ = [
    "AXES",
    "ArchSpec",
    "Extractor",
    "ExtractorConfig",
    "Gallery",
    "Identification",
    "ImageReadError",
    "RandomDecoder",
    "Synthesis",
    "TrainConfig",
    "Zoo",
    "autocorrelation",
    "average_spectrum",
    "bench",
    "grid_crops",
    "list_models",
    "load_extractor",
    "model_id",
    "paper_specs",
    "power_spectrum",
    "procedural_images",
    "radial_profile",
    "read_image",
    "read_images",
    "residual",
    "synthesize",
    "to_db",
    "train",
    "verify",
]
