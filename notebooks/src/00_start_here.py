# %% [markdown]
# # Which network made this image?
#
# Networks that make images sign them without meaning to. The signature, the model's
# **fingerprint**, can hardly be seen in the pixels and stands out in the spectrum of the noise.
# In this notebook you see two fingerprints, make a network that leaves one of your choice, and
# let a trained extractor decide which images come from the same network.

# %%
import numpy as np

import fpkit as fp
from fpkit import metrics, pictures, plots, teach, widgets

teach.runtime_badge("00_start_here")

# %% [markdown]
# **You will be able to**
# - *show* the fingerprint of a network: residual, power spectrum, average over images,
# - *predict* where upsampling leaves marks in a spectrum,
# - *make* a small network and *compare* its fingerprint with those of its relatives,
# - *verify* whether two images come from the same network.
#
# **You need** Python and arrays; a Fourier transform should not frighten you. No GPU, no network.
#
# **It takes** 45 minutes.
#
# | word | meaning |
# |---|---|
# | residual | image minus its denoised self: what is left when the subject is gone |
# | power spectrum | how much of the residual's variance sits at which frequency, in decibels (dB) |
# | fingerprint | the average of that spectrum over many images of **one** model: a picture |
# | embedding | a list of numbers that the extractor computes from **one** image |
# | zoo | a folder of small networks, *synthetic models*, that come with fpkit |

# %% [markdown]
# ## 1. Two images, two sources
#
# Each synthetic model of the zoo is a small autoencoder: it squeezes an image and paints it anew.
# We let two of them repaint the same kind of scenes, but never the same scene. The scenes are
# drawn from random numbers (discs that hide each other, clouds, stripes) and have the statistics
# of photographs: strong slow changes, weak fast ones, edges.

# %%
zoo = fp.Zoo.load()
models = {
    "A": "K1-L1-Udeconv-Asigmoid-Nbatch-Spost/seed0",
    "B": "K1-L1-Ubilinear-Asigmoid-Nbatch-Spost/seed0",
}
scenes = {"A": fp.procedural_images(24, seed=1), "B": fp.procedural_images(24, seed=2)}
images = {name: zoo.apply(models[name], scenes[name])[..., 16:-16, 16:-16] for name in models}
print("images, channels, height, width:", *images["A"].shape)

# %% [markdown]
# (Zero padding marks the outermost pixels of such a network's output. A crop of a real image has
# no such mark, so we cut off the border and keep the inner 128 x 128 pixels.)
#
# **Predict.** You get one image of A and one of B. Where will the two networks differ most
# visibly: in the colours, in the residual, or in the residual's spectrum?
#
# <details><summary>Reveal</summary>
#
# In the spectrum. Both networks were trained to reproduce their input, so the colours are right.
# The residual shows the edges of the scene and some texture. Only the spectrum sorts that texture
# by its period, and a network's texture has the same periods in every image.
# </details>

# %%
rows = {}
for name in models:
    residuals = fp.residual(images[name][:1], method="median")
    one = fp.to_db(fp.average_spectrum(images[name][:1]).mean(axis=0))
    many = fp.to_db(fp.average_spectrum(images[name]).mean(axis=0))
    grey = pictures.Cell(values=residuals[0].mean(0), limits=(-0.06, 0.06), palette="grey")
    rows[f"model {name}"] = [images[name][0], grey, one, many]
titles = ["image", "residual", "its spectrum", "average of 24"]
teach.show(pictures.montage(rows, columns=titles))

# %% [markdown]
# **What you see.** Left to right the subject fades and the network shows. In the middle of a
# spectrum is frequency 0 (slow changes), at its border 0.5 cycles per pixel (one pixel bright, one
# dark). Model A upsamples with a learnt kernel: its border is bright, so a pattern with a period of
# two pixels runs through the whole image, and nobody painted it on purpose. Model B upsamples by
# bilinear interpolation, a blur: its border is dark. Averaging 24 images removes what belongs to
# one scene.

# %% [markdown]
# ## 2. Is it really the model?
#
# The scenes differed too, so perhaps we look at the scenes. The control experiment: let both
# networks paint *both* sets of scenes, and compare the four fingerprints.
#
# **Predict.** Which pairs of the four will look alike?
#
# <details><summary>Reveal</summary>
#
# Those of the same network, whatever the scenes. If it were the scenes, the pairs would be the
# other way round.
# </details>


# %%
def fingerprint(images):
    return fp.average_spectrum(images[..., 16:-16, 16:-16]).mean(axis=0)


powers = {
    f"{name}, scenes {s}": fingerprint(zoo.apply(models[name], scenes[s]))
    for name in "AB"
    for s in "AB"
}
profiles = {name: fp.radial_profile(power) for name, power in powers.items()}
profiles = {name: (frequency, fp.to_db(power)) for name, (frequency, power) in profiles.items()}
teach.show(
    pictures.line_chart(profiles, x_label="frequency (cycles/pixel)", y_label="power (dB)"),
    figure=plots.radial_profiles(profiles, size=(720, 400)),
)

# %%
flat = np.stack([fp.to_db(power).ravel() for power in powers.values()])
for name, row in zip(powers, np.corrcoef(flat), strict=True):
    print(f"{name}: " + "  ".join(f"{value:5.2f}" for value in row))

# %% [markdown]
# **What you see.** The two curves of one network lie almost on each other. The table holds the
# correlations of the four fingerprints: close to 1 for the same network on other scenes, clearly
# lower for the other network on the same scenes. The fingerprint belongs to the network.

# %% [markdown]
# ## 3. Make a network, see its fingerprint
#
# One generation block of a network is $y = N(A(F(U z)))$: upsampling $U$, convolution $F$,
# activation $A$, normalisation $N$. Upsampling by 2 puts new pixels between the old ones, which
# *repeats* the spectrum of $z$ at twice the distance; the kernel then hides the copies, more or
# less well.
#
# **Predict.** Two blocks upsample twice by 2. At which frequencies do you expect copies of the
# bright centre, if the kernel does not hide them?
#
# <details><summary>Reveal</summary>
#
# At all multiples of 1/4 cycles per pixel, in both directions: upsampling by 4 in all makes every
# fourth pixel alike, and a pattern with a period of 4 pixels has frequency 1/4 and its multiples.
# </details>
#
# Here every choice is yours. **Make model** trains a network for a few seconds on the CPU to
# reproduce images, as those of the zoo were (they got longer), and shows its fingerprint. The
# strip at the bottom keeps the last six to compare.

# %%
explorer = widgets.SynthesisExplorer(spec=fp.ArchSpec(upsample="nearest", norm="none"))
explorer

# %% [markdown]
# The same from code, once for each upsampling. The picture needs no kernel:

# %%
for upsample in ("nearest", "bilinear", "deconv"):
    explorer.spec = fp.ArchSpec(upsample=upsample, norm="none")
    explorer.make()
teach.show(explorer.static())

# %% [markdown]
# **What you see.** *nearest* (#1) draws bright bars along the axes; *bilinear* (#2) is smooth and
# hides nearly all copies; *deconv* (#3), whose kernel is learnt, leaves a lattice of peaks.
# Nobody chose the lattice: it follows from the stride. The second row shows, for each of them, the
# real generator whose measured pattern is most alike; alike is not akin.
#
# **Try.** Change only the seed: details move, the kind of pattern stays. Then change the
# activation, or put it *before* the convolution (`order`: `pre`).

# %% [markdown]
# ### Exercise 1: measure the lattice (3 minutes, easy)
#
# Find the frequency of the strongest peak beyond 0.15 cycles/pixel along the **middle row** of the
# *deconv* fingerprint, in cycles/pixel.
#
# <details><summary>Hint</summary>
#
# `lattice[64]` is the middle row (vertical frequency 0) and `frequency` has the frequency of each
# of its 128 values. `np.abs(frequency) > 0.15` selects the values you may look at.
# </details>

# %%
lattice = explorer.current.power
frequency = (np.arange(128) - 64) / 128

### BEGIN SOLUTION
#: peak = ...  # your code here
far = np.abs(frequency) > 0.15
peak = frequency[far][lattice[64][far].argmax()]
### END SOLUTION

teach.check("peak-frequency", peak)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# far = np.abs(frequency) > 0.15
# peak = frequency[far][lattice[64][far].argmax()]
# ```
# A multiple of 1/4, as predicted: ±0.25 (or ±0.5, which is nearly as strong).
# </details>

# %% [markdown]
# ## 4. Same network or not?
#
# A fingerprint needs many images of one source. With one image in hand we ask the **extractor**: a
# network that turns the spectra of one image into an embedding, so that images of the same source
# point in the same direction. The score of two images is the cosine of their embeddings:
# 1 = same direction, about 0 = as unrelated as two synthetic models are on average.

# %%
extractor = fp.load_extractor()
a = extractor.embed(images["A"][:2])
b = extractor.embed(images["B"][:2])
print(f"A and A: {fp.verify(a[0], a[1]):5.2f}    same network, different scenes")
print(f"B and B: {fp.verify(b[0], b[1]):5.2f}    same network, different scenes")
print(f"A and B: {fp.verify(a[0], b[0]):5.2f}    different networks")

# %% [markdown]
# Three pairs prove little, and the extractor may have met A and B in its training. An honest test
# takes networks that it has never seen. The extractor's model card says how it was trained, and
# which architectures were kept out of the training:

# %%
card = extractor.card
print(f"weights {extractor.hash[:12]}: {card['steps']} steps, {card['seconds'] / 60:.0f} minutes")
print(f"hardware: {card['hardware']}")
print(f"networks: {card['zoo']['trained_on']} synthetic models, and random decoders")
print(f"images: {card['images']}")
unseen = [n for n in zoo.model_ids if n.split("/")[0] in card["held_out_architectures"]]
print(f"never seen in training: {len(unseen)} of the {len(zoo)} networks here")

# %% [markdown]
# Six of the unseen networks, six images of each, all 36 x 36 scores. Every image shows another
# scene.
#
# **Predict.** If the extractor works on networks that it does not know, which squares of the score
# table are bright?
#
# <details><summary>Reveal</summary>
#
# Six squares of 6 x 6 along the diagonal: the images of one network among themselves.
# </details>

# %%
six = unseen[:6]
probes = fp.procedural_images(36, seed=3).split(6)
made = [zoo.apply(six[i], probes[i])[..., 16:-16, 16:-16] for i in range(6)]
embeddings = np.concatenate([extractor.embed(part).numpy() for part in made])
scores = embeddings @ embeddings.T
table = pictures.Cell(values=scores, limits=(-1, 1), palette="cividis")
bar = {"bar": (-1, 1, ""), "bar_palette": "cividis"}
teach.show(pictures.montage({"": [table]}, columns=["scores of 36 images"], cell_size=288, **bar))

# %%
source = np.repeat(np.arange(6), 6)
same = source[:, None] == source[None]
pairs = np.triu(np.ones_like(same), k=1)
genuine, impostor = scores[same & pairs], scores[~same & pairs]
print(f"same network: {genuine.mean():.2f}, different networks: {impostor.mean():.2f} on average")
print(f"AUC {metrics.auc(genuine, impostor):.3f}: how often a same-network pair scores higher")

# %% [markdown]
# **What you see.** The squares on the diagonal are bright; where two networks are near relatives,
# so are squares beside it. The AUC says how often a pair of one network scores higher than a pair
# of two: 0.5 would be chance, 1 perfect.
#
# This is still the *easy* case, and honesty asks to say so: the architectures are new, but they are
# of the same kind as those in the training, and so are the scenes. The point of the method is that
# it also works on real generators, which look quite different; how well is measured, and printed
# in the README.

# %% [markdown]
# ### Exercise 2: your own attribution (10 minutes, medium)
#
# Write `closest(spectrum, fingerprints)`: given a spectrum in dB and a dictionary of fingerprints
# in dB, all (h, w), return the **name** of the fingerprint that is most alike. A brighter scene
# adds the same number of dB everywhere, a weaker trace scales the pattern: neither may matter.
#
# <details><summary>Hint</summary>
#
# Correlation ignores both: `np.corrcoef(x.ravel(), y.ravel())[0, 1]`. And `max(..., key=...)`
# finds the best name.
# </details>


# %%
### BEGIN SOLUTION
#: def closest(spectrum, fingerprints):
#:     return ...  # your code here
def closest(spectrum, fingerprints):
    def alike(name):
        return np.corrcoef(spectrum.ravel(), fingerprints[name].ravel())[0, 1]

    return max(fingerprints, key=alike)


### END SOLUTION


teach.check("closest-fingerprint", closest)

# %% [markdown]
# With it, attribute ten new images of A. (Unsolved, it prints `Ellipsis`.)

# %%
known = {name: fp.to_db(powers[f"{name}, scenes {name}"]) for name in "AB"}
fresh = zoo.apply(models["A"], fp.procedural_images(10, seed=4))
print([closest(fp.to_db(fingerprint(image[None])), known) for image in fresh])

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def closest(spectrum, fingerprints):
#     def alike(name):
#         return np.corrcoef(spectrum.ravel(), fingerprints[name].ravel())[0, 1]
#
#     return max(fingerprints, key=alike)
# ```
# This is the method `spectrum` of `fpkit bench`, nearly: no training, and the mark to beat.
# </details>

# %% [markdown]
# ## What can go wrong
#
# - **The subject instead of the source.** If all images of A show faces and all of B show trees,
#   anything that tells faces from trees looks like attribution. That is why section 2 swaps them.
# - **The file format instead of the source.** JPEG codes blocks of 8 x 8 pixels and wipes out weak
#   fingerprints. Never compare PNG images of one model with JPEG images of another.
# - **Resizing** moves every peak, and cropping is harmless. Embed images as they were published.
# - **A high score is no proof.** Models that share their last layers share a fingerprint: for
#   fine-tuned relatives "same network" may only mean "same decoder".
#
# ## Recap
#
# Residual, power spectrum, average: the fingerprint of a network. Upsampling, kernels and
# activations write it; making many small networks shows which choice writes what. An extractor
# trained on such networks compares single images.
#
# ## Where to go next
#
# - **Your own images**, a folder per model: `fpkit enrol my_gallery FOLDER`, then
#   `fpkit identify my_gallery IMAGE`; `fpkit fingerprint FOLDER --out fingerprint.html` to look.
# - **How well does it work on real generators?** The table in the README, and
#   `fpkit bench FOLDER` for your own images.
# - **The code** is short and meant to be read: start with `fpkit/spectrum.py`, then
#   `fpkit/blocks.py`. `Shift-Tab` inside the brackets of a call shows its documentation.
