import numpy as np
import pytest
import torch

from fpkit.procedural import procedural_images
from fpkit.spectrum import average_spectrum, radial_profile


@pytest.mark.parametrize("kind", ["leaves", "noise", "texture"])
def test_shape_range_and_seed(kind):
    images = procedural_images(3, 48, seed=5, kinds=(kind,))
    assert images.shape == (3, 3, 48, 48) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.03
    assert torch.equal(images, procedural_images(3, 48, seed=5, kinds=(kind,)))
    assert not torch.equal(images, procedural_images(3, 48, seed=6, kinds=(kind,)))
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("kind", ["leaves", "noise"])
def test_power_falls_as_in_photographs(kind):
    images = procedural_images(6, 128, seed=0, kinds=(kind,))
    frequency, profile = radial_profile(average_spectrum(images, residual="none").mean(0))
    middle = (frequency > 0.04) & (frequency < 0.3)
    slope = np.polyfit(np.log(frequency[middle]), np.log(profile[middle]), 1)[0]
    assert -3.5 < slope < -1.3  # photographs: about -2


def test_bad_arguments():
    with pytest.raises(ValueError, match="n=0"):
        procedural_images(0, seed=0)
    with pytest.raises(ValueError, match="size=4"):
        procedural_images(1, 4, seed=0)
    with pytest.raises(ValueError, match="kinds"):
        procedural_images(1, seed=0, kinds=("cats",))


def test_images_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = procedural_images(6, 128, seed=4)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert torch.equal(procedural_images(6, 128, seed=4), two)
    finally:
        torch.set_num_threads(threads)
