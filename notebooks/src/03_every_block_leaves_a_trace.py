# %% [markdown]
# # Which part of a network writes the fingerprint?
#
# A generation block upsamples, convolves, bends every value through an activation and normalises.
# Lesson 02 looked at the upsampling. Here you take the other parts one by one, predict from a
# formula what each does to a spectrum, and check the formula. At the end two trained networks
# exchange their last blocks, and a classifier says whose images these are.

# %%
import numpy as np
import torch

import fpkit as fp
from fpkit import harmonics, normalisation, observations, pictures, plots, swap, teach, widgets

budget = teach.budget()
teach.runtime_badge("03_every_block_leaves_a_trace")

# %% [markdown]
# **You will be able to**
# - *predict* what a convolution does to a spectrum from its kernel alone,
# - *explain* where an activation puts new frequencies, and why they fold back,
# - *distinguish* what normalisation does by itself from what training makes of it,
# - *locate* the fingerprint in a network by swapping its blocks.
#
# **You need** lesson 02; cosines and the idea of a Fourier transform.
#
# **It takes** 50 minutes.
#
# | word | meaning |
# |---|---|
# | frequency response | what a kernel multiplies each frequency by, written $H(f)$ |
# | harmonic | a multiple of a frequency: $2f$, $3f$, ... |
# | Nyquist frequency | 0.5 cycles/pixel, the highest that pixels can show |
# | folding | a frequency above Nyquist appears as a lower one |
# | stitch | a 1x1 convolution that translates the channels of one network for another |

# %% [markdown]
# ## 1. Convolution: every kernel is a filter
#
# Convolve an image with a kernel, and its spectrum is **multiplied** by the response of the
# kernel: $Y(f) = H(f)\,X(f)$. Nothing moves, no frequency is created; some are made stronger,
# others weaker. A network learns its kernels for other reasons, and each of them filters.
#
# **Predict.** Take a blur, the difference of neighbours, and a kernel out of a trained network.
# Which of the three leaves the middle of the spectrum (slow changes) as it was?
#
# <details><summary>Reveal</summary>
#
# The blur. The difference removes what does not change. The trained kernel treats the
# frequencies in its own way, but hardly will it leave any of them alone.
# </details>

# %%
zoo = fp.Zoo.load()
scene = fp.procedural_images(1, 64, seed=0)[0].mean(0, keepdim=True)
trained = zoo.model("K2-L2-Udeconv-Arelu-Nnone-Spost/seed0").decoder[1][4].weight[:1, :1]
kernels = {
    "blur": torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])[None, None] / 16,
    "difference": torch.tensor([[-1.0, 1.0]])[None, None],
    "trained": trained,
}


def decibels(power):
    return fp.to_db(np.fft.fftshift(power), floor=1e-9)


rows = {}
for name, kernel in kernels.items():
    filtered = observations.convolution(scene - scene.mean(), kernel)
    parts = filtered.source[0], filtered.response[0, 0], filtered.measured[0], filtered.predicted[0]
    rows[name] = [decibels(part) for part in parts]
    print(f"{name:10s} largest difference, measured and predicted: {filtered.error:.0e}")
titles = ["image", "response", "measured", "predicted"]
teach.show(pictures.montage(rows, columns=titles, cell_size=120))

# %% [markdown]
# **What you see.** The last two columns agree to rounding (1e-15 of the largest power): this is
# no rule of thumb. The blur keeps the middle and kills the corners, the difference draws a dark
# vertical line through frequency 0, and the trained kernel removes a broken ring of frequencies.
# (The dark point in the middle is the mean, which we took away.)
#
# With many channels $Y(f) = \sum_i H_i(f) X_i(f)$. Feed white noise, which has all frequencies
# alike, into the last convolution of a network, and the response of the layer appears:

# %%
lines = {}
for name in ("K2-L2-Udeconv-Arelu-Nnone-Spost", "K2-L1-Ubilinear-Anone-Nbatch-Spre"):
    layers = [m for m in zoo.model(f"{name}/seed0").decoder.modules() if hasattr(m, "stride")]
    noise = torch.randn(layers[-1].in_channels, 64, 64, generator=torch.Generator().manual_seed(0))
    filtered = observations.convolution(noise, layers[-1].weight)
    for kind in ("measured", "predicted"):
        power = filtered.measured if kind == "measured" else filtered.response.sum(axis=1)
        frequency, ring = fp.radial_profile(np.fft.fftshift(power.mean(axis=0)))
        lines[f"{name.split('-')[2][1:]}, {kind}"] = frequency, fp.to_db(ring)
axes = {"x_label": "frequency (cycles/pixel)", "y_label": "response (dB)"}
teach.show(pictures.line_chart(lines, **axes), figure=plots.radial_profiles(lines, size=(720, 400)))

# %% [markdown]
# **What you see.** One network's last layer lets slow changes pass best, the other's prefers the
# high frequencies. Nobody asked for either. Both reconstruct images well, as the layers before
# make up for it; but the noise and rounding errors that arise on the way pass through this filter
# and leave with its shape.
#
# ### Exercise 1: build a notch (10 minutes, medium)
#
# Write `notch(frequency)` that returns three taps `[a, b, a]`: the filter must **remove** this
# frequency (0.1 to 0.5 cycles/pixel) and leave frequency 0 as it is. The response of three
# symmetric taps is $H(f) = b + 2a\cos(2\pi f)$.
#
# <details><summary>Hint</summary>
#
# Two conditions, two unknowns: $H(0) = b + 2a = 1$ and $H(\text{frequency}) = 0$. Subtract them.
# At 0.5 the answer is the blur of section 1, `[0.25, 0.5, 0.25]`.
# </details>


# %%
### BEGIN SOLUTION
#: def notch(frequency):
#:     return ...  # your code here: [a, b, a]
def notch(frequency):
    a = 1 / (2 - 2 * np.cos(2 * np.pi * frequency))
    return [a, 1 - 2 * a, a]


### END SOLUTION


teach.check("notch-filter", notch)

# %% [markdown]
# Expected: 1 at frequency 0, and nothing left at 1/4. (Unsolved, it shows a filter that does
# nothing.)

# %%
taps = [0, 1, 0] if notch(0.25) is ... else notch(0.25)
print("taps:", np.round(taps, 3))
response = np.abs(np.fft.rfft(taps, 64))
print("response at 0, 1/8, 1/4, 3/8, 1/2:", response[::8].round(3))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def notch(frequency):
#     a = 1 / (2 - 2 * np.cos(2 * np.pi * frequency))
#     return [a, 1 - 2 * a, a]
# ```
# For 0.25 this is `[0.5, 0, 0.5]`: the mean of the two neighbours, which are each other's opposite
# in a wave of period 4.
# </details>

# %% [markdown]
# ## 2. Activation: new frequencies
#
# A filter cannot create what is not there. An activation can. Send a cosine through it: what
# comes out still repeats with the same period, but it is no cosine any more, so it must be a sum
# of harmonics:
# $\varphi(\cos\theta) = c_0 + c_1\cos\theta + c_2\cos 2\theta + c_3\cos 3\theta + \dots$
#
# **Predict.** ReLU cuts the lower half off; tanh squeezes both halves alike. Which of them makes
# even harmonics, which odd ones?
#
# <details><summary>Reveal</summary>
#
# tanh is odd: shifting the cosine by half a period flips the sign of its output, and only odd
# harmonics do that. ReLU is half of $x + |x|$: the first part is the wave itself ($c_1 = 1/2$),
# the second is even and makes even harmonics only.
# </details>

# %%
print("activation   c0     c1     c2     c3     c4     c5     largest error of the formula")
for name in ("square", "relu", "tanh", "sigmoid"):
    h = harmonics.harmonics(name, count=5)
    print(f"{name:9s} " + " ".join(f"{c:6.3f}" for c in h.measured) + f"   {h.error:.0e}")
print("closed form of ReLU:", np.round([1 / np.pi, 1 / 2, 2 / (3 * np.pi)], 3))

# %% [markdown]
# **What you see.** Predicted and measured agree to eight digits. ReLU's second harmonic has 42% of
# the amplitude of the wave (0.212 to 0.5); tanh's third 7%, sigmoid's 2%. So ReLU is by far the
# loudest writer.
#
# Now in two dimensions, and on pixels. A wave of 6 periods down and 10 across a 64-pixel image
# has harmonics at (12, 20), (24, 40), ... The 40 is beyond 32, the Nyquist frequency. Pixels
# cannot show it, but it does not go away: it **folds** back to $64 - 40 = 24$.

# %%
cells = [
    pictures.Cell(values=decibels(harmonics.image_harmonics(name, cycles=(6, 10)).measured),
                  limits=(-35, 0))
    for name in ("none", "relu", "tanh")
]  # fmt: skip
titles = ["the wave", "after ReLU", "after tanh"]
teach.show(pictures.montage({"": cells}, columns=titles, cell_size=192, bar=(-35, 0, "dB")))

# %% [markdown]
# **What you see.** One smooth wave, two bright points. After ReLU there is a whole lattice, most of
# it folded; after tanh only few faint points. (Decibels of the magnitude here.) A scene has all
# frequencies, so the new points fill the plane; a lattice left by the upsampling breeds more of
# itself.
#
# ### Exercise 2: where does it appear? (5 minutes, easy)
#
# Write `fold(frequency)`: the frequency between 0 and 0.5 cycles/pixel at which a wave of any
# `frequency` (negative ones too) appears on pixels.
#
# <details><summary>Hint</summary>
#
# On whole pixels, frequencies that differ by 1 look the same, and so do $f$ and $-f$. First take
# the remainder by 1.
# </details>


# %%
### BEGIN SOLUTION
#: def fold(frequency):
#:     return ...  # your code here
def fold(frequency):
    rest = frequency % 1
    return min(rest, 1 - rest)


### END SOLUTION


teach.check("fold-frequency", fold)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def fold(frequency):
#     rest = frequency % 1
#     return min(rest, 1 - rest)
# ```
# So the second harmonic of 0.3, at 0.6, appears at 0.4, and its third, at 0.9, at 0.1.
# </details>
#
# **Play.** One block on one input: an input's spectrum, what the block makes of it, and what the
# formulas say. Choose an activation and change `strength` and `offset`: an offset breaks the
# symmetry of tanh, and even harmonics appear.

# %%
explorer = widgets.BlockExplorer(
    source="one plane wave", upsampling="fir", activation="tanh", strength=2.0, offset=1.0
)
explorer

# %%
teach.show(explorer.static())

# %% [markdown]
# **What you see.** The input is one wave; the output, twice as large, has it at half the frequency
# and a row of harmonics beside it, even ones too. (Near 0.48 the weak copy that the upsampling left
# has company as well.) "Computed" puts a polynomial of degree 8 in the place of tanh: its $n$-th
# power is the spectrum convolved $n - 1$ times with itself. It predicts eight harmonics, and must
# be silent about the others.

# %% [markdown]
# ## 3. Normalisation: innocent, and yet
#
# A normalisation subtracts a number from each channel and multiplies it by another. That moves all
# frequencies alike. Batch norm, once trained, can even be merged into the convolution before it:

# %%
block = zoo.model("K1-L2-Ubilinear-Anone-Nbatch-Spost/seed0").decoder[0]
folded = normalisation.fold_batch_norm(block)
x = torch.randn(1, 32, 24, 24, generator=torch.Generator().manual_seed(0))
print("before:", [type(layer).__name__ for layer in block])
print("after: ", [type(layer).__name__ for layer in folded])
print(f"largest difference of the outputs: {(block(x) - folded(x)).abs().max():.0e}")

# %% [markdown]
# The same function without any normalisation. So it cannot leave a trace, can it?
#
# **Predict.** Train the same network with and without batch norm, from the same weights on the same
# images. Will its kernels differ more than those of two runs that differ in the seed?
#
# <details><summary>Reveal</summary>
#
# Yes, much more. Normalisation does not act on the spectrum, but on the *training*: it changes
# which way is downhill, and training ends with other kernels.
# </details>

# %%
effect = normalisation.normalisation_effect(
    fp.ArchSpec(upsample="nearest", activation="relu", order="pre"),
    fp.procedural_images(16, 64, seed=1),
    norms=("none", "batch"),
    seeds=range(budget.choose(quick=2, full=6)),
    max_steps=budget.choose(quick=40, full=200),
)
print(f"direct: the layer changes the shape of a spectrum by at most {effect.direct:.0e} dB")
for what in ("kernels", "fingerprints"):
    across = getattr(effect, f"{what}_across")["none-batch"].mean
    within = getattr(effect, f"{what}_within").mean
    print(f"{what}: other norm {across:.1f} dB apart, other seed {within:.1f} dB apart")

# %% [markdown]
# **What you see.** By itself the layer changes nothing (1e-11 dB is rounding). By way of training
# it moves the responses of the kernels about twice as far as another seed does. In the fingerprint
# little of that is left: 1.8 dB against 1.4. This is a small experiment of two seeds; with five
# seeds and 100 steps (`python benchmarks/observations.py`) it is 2.2 against 0.6 dB for the
# kernels, and 1.2 against 0.9 dB for the fingerprints. The trace is real, indirect and weak.

# %% [markdown]
# ## 4. Order: who has the last word
#
# Axis S of the synthetic models asks whether activation and normalisation come **before** or
# **after** the convolution. With the same parts, does it matter?
#
# **Predict.** A wave of frequency 0.2, a ReLU, and the blur with the response
# $H(f) = \cos^2(\pi f)$ along one axis. In which order is the second harmonic weaker?
#
# <details><summary>Reveal</summary>
#
# With the ReLU first: the harmonic is made at 0.4 and then blurred there, where little passes. With
# the ReLU last the blur weakens the wave at 0.2, where more passes, and nothing filters what the
# ReLU makes.
# </details>


# %%
def blurred(x):
    return (np.roll(x, 1) + 2 * x + np.roll(x, -1)) / 4


wave = np.cos(2 * np.pi * 0.2 * np.arange(200))
outputs = {"ReLU, blur (pre)": blurred(np.maximum(wave, 0))}
outputs["blur, ReLU (post)"] = np.maximum(blurred(wave), 0)
for name, output in outputs.items():
    amplitude = np.abs(np.fft.rfft(output)) / 100
    print(f"{name}: amplitude at 0.2 {amplitude[40]:.3f}, at 0.4 {amplitude[80]:.3f}")

# %% [markdown]
# **What you see.** The wave itself is the same in both orders; its harmonic differs by a factor of
# about seven. (At 0.4 there also is what folds: the third harmonic, of which ReLU has none, then
# the eighth, which is weak.) Whatever comes last signs unfiltered.
#
# ### Exercise 3: the harmonic that gets out (10 minutes, medium)
#
# Write `second(frequency, order)`: the amplitude of the second harmonic of a unit cosine that
# passes a ReLU and the blur, for `order` `"pre"` (ReLU first) or `"post"` (blur first). Use the
# formulas: $c_2 = 2/(3\pi)$, $H(f) = \cos^2(\pi f)$, and that a wave of half the height leaves a
# ReLU as half of what the whole wave gives. Neglect folded harmonics.
#
# <details><summary>Hint</summary>
#
# Pre: $c_2$ times the response at the frequency of the *harmonic*. Post: the amplitude of the wave
# *after the blur*, times $c_2$.
# </details>


# %%
### BEGIN SOLUTION
#: def second(frequency, order):
#:     return ...  # your code here
def second(frequency, order):
    passing = 2 * frequency if order == "pre" else frequency
    return 2 / (3 * np.pi) * np.cos(np.pi * passing) ** 2


### END SOLUTION


teach.check("second-harmonic", second)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def second(frequency, order):
#     passing = 2 * frequency if order == "pre" else frequency
#     return 2 / (3 * np.pi) * np.cos(np.pi * passing) ** 2
# ```
# At 0.2 it gives 0.020 and 0.139; the experiment differs by what folds back.
# </details>

# %% [markdown]
# ## 5. Whose image is it? Swap the last blocks
#
# If what comes last signs, then the last blocks of a network should decide whose image it is. Two
# networks of four up blocks, of one architecture, trained from different seeds, share an encoder;
# a classifier tells their images by the spectrum. We continue the first blocks of one with the last
# blocks of the other.
#
# Trained apart, the two give their channels different meanings. A **stitch**, a 1x1 convolution,
# translates between them; it mixes channels and has no response of its own.
#
# **Predict.** How many of the four blocks must be swapped until nearly all images are attributed to
# the network that the *last* blocks come from?
#
# <details><summary>Reveal</summary>
#
# Two, with a stitch. One is not enough for both directions.
# </details>

# %%
pair = swap.load_swap_pair("deconv")
count = budget.choose(quick=24, full=200)
codes = pair.encoder(fp.procedural_images(count, 128, seed=5))
others = pair.encoder(fp.procedural_images(8, 128, seed=6))
print(f"classifier, unswapped images: {swap.accuracy(pair, codes):.0%} right")
for fit_codes, kind in ((others, "stitched"), (None, "raw")):
    print(f"{kind}: share attributed to the network of the last blocks")
    for r in swap.swap_results(pair, codes, fit_codes=fit_codes):
        print(f"  last {r.count}, {r.direction}: {r.share:4.0%}  [{r.low:.0%}, {r.high:.0%}]")

# %%
stitched = swap.swap_last(pair.first, pair.second, 2, codes=others)
raw = swap.swap_last(pair.first, pair.second, 2)
rows = {"image": [], "spectrum": []}
for model in (pair.first, stitched, raw, pair.second):
    painted = swap.paint(model, codes)
    rows["image"].append(painted[0])
    power = fp.average_spectrum(painted, residual="none").mean(axis=0)
    rows["spectrum"].append(pictures.Cell(values=fp.to_db(power), limits=(-55, 0)))
titles = ["first", "first + last 2\nof second", "the same\nwithout stitch", "second"]
teach.show(pictures.montage(rows, columns=titles, cell_size=112))

# %% [markdown]
# **What you see.** With two blocks and a stitch, 96% to 100% of the images are attributed to the
# network of the last two blocks, although the other network painted what they show. One block
# depends on the direction. And **raw swaps** of one or two blocks answer at random, or worse:
# channels without meaning make colours and textures that neither network ever had, and the
# classifier must choose one of two wrong names. Three blocks decide either way.
#
# ### Exercise 4: read the table (3 minutes, easy)
#
# What is the smallest number of **stitched** last blocks that takes at least 90% of the images
# along in *both* directions?
#
# <details><summary>Hint</summary>
#
# For each count look at the worse of its two directions.
# </details>

# %%
### BEGIN SOLUTION
#: blocks_that_sign = ...  # your answer: a number
blocks_that_sign = 2
### END SOLUTION

teach.check("blocks-that-sign", blocks_that_sign)

# %% [markdown]
# <details><summary>Solution</summary>
#
# `2`: with one block a direction has about 20%, with two the worse one has 96%.
# </details>

# %% [markdown]
# ## What can go wrong
#
# - **Borders.** The formulas hold for images that repeat. Real layers pad with zeros, which marks
#   the border: cut it off before you compare spectra.
# - **White noise is no image.** A layer's response says what it would do to any input; what it does
#   to *its* inputs also depends on the correlations between channels.
# - **A harmonic is not always visible.** An activation before the last convolution is filtered by
#   it; a fingerprint need not show what the activation made.
# - **Attribution among two.** The classifier of section 5 knows two names. "Attributed to the
#   second" may mean "even less like the first", as the raw swaps show.
# - **One pair.** 24 images, one pair of networks: `benchmarks/block_swap.md` has several pairs and
#   variants, and those where the answer was less clear.
#
# ## Recap
#
# Upsampling copies the spectrum, convolution weights it, activation adds multiples of what is there
# and folds them, normalisation changes nothing at once and a little by way of training. What comes
# last is filtered least: the last two blocks sign the image.
#
# ## Where to go next
#
# - Lesson 04: combine the parts into synthetic models, hundreds at a time.
# - `fpkit/observations.py`, `fpkit/harmonics.py` and `fpkit/swap.py` are short: the formulas of
#   this lesson are in them.
# - `python benchmarks/observations.py` checks all of them for every upsampler and activation.
