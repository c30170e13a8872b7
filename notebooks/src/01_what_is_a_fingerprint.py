# %% [markdown]
# # What is the fingerprint of a network?
#
# A picture of many images' noise, sorted by frequency: that is all. But each word of it is a
# decision. Which noise? Which window? How many images? Averaged how? In this lesson you make a
# fingerprint step by step, and measure what every step is good for.

# %%
import numpy as np

import fpkit as fp
from fpkit import nearest, pictures, plots, teach, widgets

budget = teach.budget()
teach.runtime_badge("01_what_is_a_fingerprint")

# %% [markdown]
# **You will be able to**
# - *choose* a residual and a window, and say what the other choice would have done,
# - *predict* how the error of a fingerprint falls with the number of images,
# - *estimate* how many images a faint fingerprint needs,
# - *read* the same pattern as peaks in a spectrum and as lags in an autocorrelation.
#
# **You need** lesson 00.
#
# **It takes** 60 minutes.
#
# | word | meaning |
# |---|---|
# | window | weights that fade a crop out towards its borders before the Fourier transform |
# | pattern | what is not radial in a spectrum: its dB minus their mean over each ring |
# | relative variance | variance over squared mean: 0.01 is an error of 10% |
# | lag | the distance in pixels at which an image is compared with itself |

# %% [markdown]
# ## 1. The residual: which noise?
#
# Two models of the zoo, both trained to copy their input. *comb* upsamples by learnt kernels and
# leaves a strong lattice, *blur* upsamples by interpolation and leaves a faint trace. Each paints
# its own scenes.

# %%
names = {
    "comb": "K2-L2-Udeconv-Arelu-Nnone-Spre/seed0",
    "blur": "K1-L1-Ubilinear-Asigmoid-Nbatch-Spost/seed0",
}
zoo, count = fp.Zoo.load(), budget.choose(quick=64, full=256)
scenes = {"comb": fp.procedural_images(count, seed=1), "blur": fp.procedural_images(count, seed=2)}
images = {k: zoo.apply(names[k], scenes[k])[..., 16:-16, 16:-16] for k in names}

# %% [markdown]
# A residual is an image minus a guess of it without noise. The guess may be the mean colour
# (`none`: hardly a guess), a blur (`highpass`) or the median of 3 x 3 pixels (`median`).
#
# **Predict.** Which of the three leaves most of the *scene* in the spectrum, and where?
#
# <details><summary>Reveal</summary>
#
# `none`: it takes nothing away, so the scene stays, and scenes are strong at low frequencies, in
# the middle of the spectrum. The other two take the slow changes away.
# </details>

# %%
ways, power = ("none", "highpass", "median"), {}
for k in names:
    for way in ways:
        power[k, way] = fp.average_spectrum(images[k], residual=way).mean(axis=0)
        slow, fast = fp.to_db(fp.radial_profile(power[k, way])[1][[6, 64]])
        print(f"{k}, {way}: {slow - fast:.0f} dB")
cells = [pictures.Cell(values=fp.to_db(power["comb", way]), limits=(-55, -10)) for way in ways]
teach.show(pictures.montage({"comb": cells}, columns=ways, bar=(-55, -10, "dB")))

# %% [markdown]
# **What you see.** The printed numbers compare the slow ring at 0.05 cycles/pixel with the fast one
# at 0.5. Without a denoiser the scene outshines the network by about 30 dB in *comb*, a factor of
# 1000 in power, and by 50 dB in *blur*. Both denoisers bring the two rings of *comb* level. The
# lattice of *comb* is there in all three: a residual does not make the fingerprint, it only turns
# the scene down. We go on with `median`, which leaves edges out.

# %% [markdown]
# ## 2. The window: what the edge of a crop does
#
# The Fourier transform takes a crop as one tile of an endless floor. Where tiles meet, left and
# right border do not fit, and that jump is a sharp vertical edge: power at all horizontal
# frequencies, a bright cross. A Hann window fades the borders out, so that there is no jump.
#
# **Predict.** Which of the two models suffers more from the jump?
#
# <details><summary>Reveal</summary>
#
# *blur*. Its own power at high frequencies is tiny, and the little that leaks there from the
# jump is all one sees. A window matters most for the faintest signal.
# </details>

# %%
shown = []
for k in names:
    for window in ("none", "hann"):
        found = fp.average_spectrum(images[k], residual="none", window=window).mean(axis=0)
        fast = fp.to_db(fp.radial_profile(found)[1][64])
        print(f"{k}, window {window}: {fast:.1f} dB on the ring at 0.5 cycles/pixel")
        shown.append(pictures.Cell(values=fp.to_db(found), limits=(-55, -10)))
teach.show(pictures.montage({"blur": shown[2:]}, columns=["no window", "Hann"]))

# %% [markdown]
# **What you see.** For *blur* the window takes about 12 dB away at the highest frequencies: more
# than nine tenths of what stood there had leaked in from elsewhere. For *comb* it changes that ring
# by a dB or two, and removes the cross.

# %% [markdown]
# ## 3. The average: how many images?
#
# `power_spectrum` gives one spectrum per image. Averages of one, of eight and of
# all of them:

# %%
spectra = {k: fp.power_spectrum(fp.residual(images[k])).mean(dim=1).double().numpy() for k in names}
steps = (1, 8, count)
cells = [fp.to_db(spectra["comb"][:n].mean(axis=0)) for n in steps]
columns = [f"{n} image{'s' if n > 1 else ''}" for n in steps]
teach.show(pictures.montage({"comb": cells}, columns=columns))

# %% [markdown]
# **Predict.** With four times as many images, how much smaller is the grain of a spectrum?
#
# <details><summary>Reveal</summary>
#
# Half as large. The *variance* of a mean of n independent values is 1/n of that of one value, so
# the error falls with the square root of n.
# </details>
#
# ### Exercise 1: measure the 1/n law (10 minutes, medium)
#
# Write `relative_variance(spectra, n)`. `spectra` is (m, h, w), the power spectra of m images. Take
# them in groups of n that follow each other (m is a multiple of n), average every group, and see
# how the groups scatter: variance over groups divided by the squared mean, at every frequency.
# Return the mean over all frequencies. Use the unbiased variance (`ddof=1`): there are few groups.
#
# <details><summary>Hint</summary>
#
# `spectra.reshape(-1, n, h, w).mean(axis=1)` has the average of each group.
# </details>


# %%
### BEGIN SOLUTION
#: def relative_variance(spectra, n):
#:     return ...  # your code here
def relative_variance(spectra, n):
    groups = spectra.reshape(-1, n, *spectra.shape[1:]).mean(axis=1)
    return (groups.var(axis=0, ddof=1) / groups.mean(axis=0) ** 2).mean()


### END SOLUTION


teach.check("relative-variance", relative_variance)

# %% [markdown]
# Expected: the product of n and your variance stays near 1 for both models. (The last line is
# rough: of 64 images, groups of 16 leave four values to scatter.)

# %%
for n in (1, 2, 4, 8, 16):
    found = {k: relative_variance(spectra[k], n) for k in names}
    print(f"n = {n:2}", *(f"{k}: {n * v:.2f}" for k, v in found.items() if v is not ...), sep="   ")

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def relative_variance(spectra, n):
#     groups = spectra.reshape(-1, n, *spectra.shape[1:]).mean(axis=1)
#     return (groups.var(axis=0, ddof=1) / groups.mean(axis=0) ** 2).mean()
# ```
# </details>
#
# One image has a relative variance near 1: at every frequency its error is as large as the value
# itself! That is no flaw of the image. Noise has that in every single spectrum, however large the
# crop: a larger crop gives more frequencies, not better ones. Only averaging helps, over images,
# crops, rings or colours. (Three colours would help more if they did not move together.)
#
# In decibels, the error of one image is about 4 dB. The law says $4/\sqrt n$ for n images:

# %%
sizes = np.array([1, 2, 4, 8, 16])


def scatter(power, n):
    return fp.to_db(power.reshape(-1, n, 128, 128).mean(axis=1)).std(axis=0, ddof=1).mean()


curves = {k: (sizes, [scatter(spectra[k], n) for n in sizes]) for k in names}
curves["law: 4 / sqrt(n)"] = sizes, 4 / np.sqrt(sizes)
teach.show(pictures.line_chart(curves, x_label="images", y_label="error (dB)"))

# %% [markdown]
# **What you see.** Both models follow the same law: the error has nothing to do with the network.
# What differs is how much there is to see. A peak 15 dB above its surroundings, as *comb* has, is
# clear in one image. A bump of 1 dB needs sixteen images to be as large as its error.

# %% [markdown]
# ## 4. When does a fingerprint show?
#
# Here is a test that needs no eye: make the fingerprint twice, from different images, and
# correlate the two. Only what both share can be the network's. We take the *pattern*, what is not
# radial: the radial part depends on the scenes too.


# %%
def agreement(power, n):
    parts = power.reshape(-1, n, 128, 128).mean(axis=1)
    found = [nearest.spectral_pattern(part).ravel() for part in parts]
    pairs = [np.corrcoef(found[i], found[i + 1])[0, 1] for i in range(0, len(found), 2)]
    return np.mean(pairs)


sizes = np.array([1, 2, 4, 8, 16, 32])
curves = {k: (sizes, [agreement(spectra[k], n) for n in sizes]) for k in names}
print(*(f"{k}: {', '.join(f'{r:.2f}' for r in curve[1])}" for k, curve in curves.items()), sep="\n")
for reach in (1.8, 45):
    n = np.arange(1, 33)
    curves[f"n / (n + {reach})"] = n, n / (n + reach)
teach.show(pictures.line_chart(curves, x_label="images in each half", y_label="correlation"))

# %% [markdown]
# **What you see.** *comb* shows at once, *blur* hardly after 32 images. Yet both run along curves
# of one shape, $r = n / (n + k)$, with one number k per model. It follows from the 1/n law: the
# network's pattern has a variance S, the grain of one image N, and two averages of n images
# correlate by $S / (S + N/n)$. So k = N/S: as many images as it takes until the pattern is as
# strong as the grain.
#
# ### Exercise 2: how many images until it shows? (5 minutes, medium)
#
# Two averages of `n` images each correlated by `r`. Write `images_until(target, n, r)`: how many
# images must each average have until the correlation is `target`? Return a number, not rounded.
#
# <details><summary>Hint</summary>
#
# Solve $r = n / (n + k)$ for k, then $target = m / (m + k)$ for m.
# </details>


# %%
### BEGIN SOLUTION
#: def images_until(target, n, r):
#:     return ...  # your code here
def images_until(target, n, r):
    k = n * (1 - r) / r
    return k * target / (1 - target)


### END SOLUTION


teach.check("images-until", images_until)

# %% [markdown]
# Expected: about 16 images for *comb*, several hundred for *blur*.

# %%
for k, n in {"comb": 4, "blur": 32}.items():
    print(k, images_until(0.9, n, agreement(spectra[k], n)))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def images_until(target, n, r):
#     k = n * (1 - r) / r
#     return k * target / (1 - target)
# ```
# Psychologists know it as the formula of Spearman and Brown: how long must a test be until it is
# reliable?
# </details>

# %% [markdown]
# ## 5. Averaging what?
#
# `average_spectrum` averages *power*. One could also average the decibels, or the residuals
# themselves, before any Fourier transform.
#
# **Predict.** Averaging 64 residuals and then taking the spectrum: where does power survive?
#
# <details><summary>Reveal</summary>
#
# Only where the pattern lies at the same pixels, with the same sign, in every image. Everything
# else cancels: it falls by the factor 64, which is 18 dB.
# </details>

# %%
residual = fp.residual(images["comb"])
power = {
    "average of the spectra": spectra["comb"].mean(axis=0),
    "spectrum of the average": fp.power_spectrum(residual.mean(dim=0)).mean(dim=0).numpy(),
}
averaged, locked = decibels = [fp.to_db(p) for p in power.values()]
print(f"typical difference: {np.median(averaged - locked):.1f} dB")
print(f"difference at (1/4, 1/4): {(averaged - locked)[32, 32]:.1f} dB")
print(
    f"mean of dB minus dB of mean: {(fp.to_db(spectra['comb']).mean(0) - averaged).mean():.1f} dB"
)
cells = [pictures.Cell(values=values) for values in decibels]
teach.show(pictures.montage({"": cells}, columns=["average of\nspectra", "spectrum of\naverage"]))

# %% [markdown]
# **What you see.** The noise fell by about 18 dB, as it should. The peaks of the lattice fell by a
# few dB only: this part is *locked* to the pixel grid, the same in every image. Early methods
# (Marra et al. 2019) use the average residual, and so see that part alone. A network that colours
# the noise without a lattice, as *blur* does, is invisible to them.
#
# And the average of decibels is lower, because the logarithm pulls low values down further than
# it lifts high ones; quiet images then count as much as loud ones. Neither is wrong, but the two
# must not be mixed.
#
# ### Exercise 3: the share that is locked (15 minutes, hard)
#
# Write `locked_share(residuals)` for an (n, h, w) array: at each frequency, the power of the
# average residual divided by the average power, an (h, w) array, frequency zero at [0, 0]. No
# window. Two things to know: pure noise does not give 0 but 1/n, so take this off: return
# (share - 1/n) / (1 - 1/n), which is 0 for noise (on average) and 1 for a pattern that never
# changes.
#
# <details><summary>Hint</summary>
#
# With `f = np.fft.fft2(residuals)`, the two powers are `abs(f.mean(axis=0)) ** 2` and
# `(abs(f) ** 2).mean(axis=0)`.
# </details>


# %%
### BEGIN SOLUTION
#: def locked_share(residuals):
#:     return ...  # your code here
def locked_share(residuals):
    f, n = np.fft.fft2(residuals), len(residuals)
    share = abs(f.mean(axis=0)) ** 2 / (abs(f) ** 2).mean(axis=0)
    return (share - 1 / n) / (1 - 1 / n)


### END SOLUTION


teach.check("locked-share", locked_share)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def locked_share(residuals):
#     f, n = np.fft.fft2(residuals), len(residuals)
#     share = abs(f.mean(axis=0)) ** 2 / (abs(f) ** 2).mean(axis=0)
#     return (share - 1 / n) / (1 - 1 / n)
# ```
# For *comb* the share is between a quarter and a third at (1/4, 1/4) and near 0 almost everywhere
# else: even of the lattice, most changes from image to image.
# </details>

# %% [markdown]
# ## 6. Peaks and lags
#
# The autocorrelation asks: how much is a pixel like the one d pixels further? It is the Fourier
# transform of the power spectrum, so it holds the same facts, told otherwise.
#
# **Predict.** *comb* has peaks at multiples of 1/4 cycles/pixel. What will its autocorrelation
# look like?
#
# <details><summary>Reveal</summary>
#
# A lattice as well, of the inverse distance: a high value at every fourth pixel. Peaks far apart
# mean lags close together.
# </details>

# %%
correlation = {k: fp.autocorrelation(spectra[k].mean(axis=0)) for k in names}
near = {k: plots.central_lags(correlation[k], 24) for k in names}
cells = [pictures.Cell(values=near[k], limits=(-0.1, 0.4), palette="cividis") for k in names]
teach.show(
    pictures.montage({"": cells}, columns=list(names), cell_size=196),
    figure=plots.autocorrelation_heatmap(correlation["comb"], lags=24, title="comb", size=420),
)

# %% [markdown]
# ### Exercise 4: read the distance (3 minutes, easy)
#
# `lags[d]` is the correlation of *comb* at d pixels to the right. At which distance of 2 pixels or
# more is it highest?
#
# <details><summary>Hint</summary>
#
# `lags[2:].argmax()` counts from 2.
# </details>

# %%
lags = correlation["comb"][64, 64:96]

### BEGIN SOLUTION
#: distance = ...  # your code here
distance = 2 + lags[2:].argmax()
### END SOLUTION

teach.check("repeat-distance", distance)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# distance = 2 + lags[2:].argmax()
# ```
# 4 pixels: the two upsamplings by 2. Its multiples 8, 12, 16 follow, each a little lower.
# </details>
#
# Which of the two should one look at? A lattice is a few sharp peaks in the spectrum, on an empty
# background, and easier to see there. A single soft echo (a watermark, a copy shifted by 30 pixels)
# is one dot among the lags, and faint ripples over the whole spectrum.

# %% [markdown]
# ## 7. Browse
#
# Any two models side by side. Hover over a spectrum for frequency and power, over an
# autocorrelation for the lag. Here: *comb* from one image and from all of them.

# %%
own = {"comb, 1 image": images["comb"][:1], "comb, all images": images["comb"]}
browser = widgets.FingerprintBrowser("comb, 1 image", "comb, all images", images=own)
browser

# %%
print(browser.status)
teach.show(browser.static())

# %% [markdown]
# **What you see.** The two radial profiles agree far better than the two spectra: a ring is an
# average too, over hundreds of frequencies. The lattice is there in one image; everything between
# its peaks is grain.
#
# **Try.** Set *scale* to *dB above its ring*. Put a real generator on the right: the list
# *real: superresolution* has several with a lattice. Then set *residual* to *image - mean*.

# %% [markdown]
# ## What can go wrong
#
# - **Too few images.** A fingerprint of five images has an error of nearly 2 dB at every
#   frequency. Whoever looks long enough finds structure in it. Make it twice, from different
#   images, and trust what both show.
# - **Comparing fingerprints of unequal n.** The one with fewer images has more grain, and
#   correlates less with everything.
# - **One loud image.** Power is averaged, so one image full of texture can outweigh ten quiet ones.
# - **Borders.** Without a window their jump draws a cross; with padding, as in these networks, the
#   border itself is marked. Both look like a fingerprint.
#
# ## Recap
#
# Residual: turns the scene down. Window: keeps strong frequencies from leaking into weak ones.
# Average of power over n images: the relative variance is about 1/n, the error in dB about
# $4/\sqrt n$, and two halves agree by $n/(n+k)$. Peaks at multiples of 1/p are lags of p pixels.
#
# ## Where to go next
#
# - **Why is there a lattice at all?** Lesson 02 predicts it, kernel by kernel.
# - **The code**: `fpkit/residual.py` and `fpkit/spectrum.py`, about 250 lines each.
# - **Your own images**: `fpkit fingerprint FOLDER --out fingerprint.html`.
