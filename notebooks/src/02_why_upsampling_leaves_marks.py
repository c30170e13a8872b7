# %% [markdown]
# # Why does upsampling leave marks?
#
# In lesson 00 a network drew a lattice into the spectrum of its images, and nobody had asked for
# it. Here you compute that lattice before you look: repeating, multiplying, and nothing else. At
# the end you read off a fingerprint how often an unknown network upsamples.

# %%
import numpy as np
import torch

import fpkit as fp
from fpkit import generation_block, observations, pictures, plots, teach, widgets

budget = teach.budget()
teach.runtime_badge("02_why_upsampling_leaves_marks")

# %% [markdown]
# **You will be able to**
# - *predict* at which frequencies upsampling by 2, 4 and 8 leaves copies of the spectrum,
# - *compute* how strongly nearest, bilinear and learnt upsampling weaken each copy,
# - *repair* a transposed convolution that draws a checkerboard,
# - *count* the upsamplings of a network from its fingerprint.
#
# **You need** lesson 00, and what a Fourier transform does to a shift and to a convolution.
#
# **It takes** 45 minutes.
#
# | word | meaning |
# |---|---|
# | frequency | cycles per pixel: 0.5 is the fastest pattern that pixels can show (Nyquist) |
# | zero insertion | put a zero between any two pixels: half of every upsampling |
# | copy | a repetition of the small image's spectrum in the large image's spectrum |
# | kernel, taps | the numbers that a convolution multiplies neighbours with |
# | response | by what factor a kernel changes each frequency; squared, it acts on power |

# %% [markdown]
# ## 1. New pixels, old spectrum
#
# Every upsampling by 2 is two steps: insert zeros, then blur them away with a kernel,
# $Uz = k * z_0$. The first step needs no kernel and no choice. Write $z_0$ for the image with the
# zeros in it: its Fourier sum runs over the same pixels as before, now at even places,
#
# $$Z_0(f) = \sum_n z(n)\,e^{-2\pi i f \cdot 2n} = Z(2f).$$
#
# **Predict.** $Z$ repeats itself with period 1. With which period does $Z(2f)$ repeat itself, and
# how often does the small spectrum fit into the large one?
#
# <details><summary>Reveal</summary>
#
# With period 1/2. In two dimensions the small spectrum fits in 2 x 2 times, side by side and
# unchanged: frequency 0 of the small image shows up at 0 *and* at 0.5, in both directions.
# </details>

# %%
scene = fp.procedural_images(1, 64, seed=3, kinds=("leaves",)).double().mean(dim=1)
small = torch.nn.functional.avg_pool2d(generation_block.periodic_part(scene), 2)
result = observations.replicas("zero", small - small.mean())
print("error of the closed form:", f"{result.error:.0e}", "of the strongest frequency")


# %%
def centred(power):
    return np.fft.fftshift(fp.to_db(power, floor=1e-8))


tiled = np.tile(result.source[0], (2, 2)) / 4
spectra = [centred(power) for power in (result.source[0], tiled, result.measured[0])]
titles = ["32 x 32 pixels", "closed form:\n2 x 2 copies", "zeros inserted,\nmeasured"]
teach.show(pictures.montage({"": spectra}, columns=titles, cell_size=192))

# %% [markdown]
# **What you see.** The closed form is not an approximation: the error is rounding. The spectrum has
# four bright centres. One is in the middle; three lie on the border, at 0.5 across, 0.5 down and
# both, and the border is shared by opposite sides. (The factor 1/4 is bookkeeping: four times as
# many pixels share the same energy.)
#
# The scene was made periodic first, and its mean taken away. Section "What can go wrong" says why.

# %% [markdown]
# ## 2. The kernel weighs the copies
#
# Convolving multiplies spectra, so the second step multiplies every copy by the kernel's response:
#
# $$P_{large}(f) = |K(f)|^2\; P_{small}(2f) / 4.$$
#
# Nearest neighbour has the taps (1, 1) in either direction. Bilinear interpolation has
# (1, 3, 3, 1)/4.
#
# **Predict.** What does the kernel (1, 1) do to the pattern +1, -1, +1, -1?
#
# <details><summary>Reveal</summary>
#
# It adds neighbours, and neighbours cancel: the response at 0.5 is 0. At 0 they add up to 2, so
# power is multiplied by 4. Between them lies a cosine; which one, you find now.
# </details>

# %% [markdown]
# ### Exercise 1: the response of nearest neighbour (8 minutes, medium)
#
# Write `gain(f)`: by which factor do the taps (1, 1) multiply the **power** at frequency `f`, an
# array in cycles/pixel? One direction only.
#
# <details><summary>Hint</summary>
#
# Pass $e^{2\pi i f n}$ through: the second tap sees the neighbour, which is turned by $2\pi f$.
# So $K(f) = 1 + e^{-2\pi i f}$, and the power is its squared magnitude.
# </details>


# %%
### BEGIN SOLUTION
#: def gain(f):
#:     return ...  # your code here
def gain(f):
    return 4 * np.cos(np.pi * f) ** 2


### END SOLUTION


teach.check("nearest-gain", gain)

# %% [markdown]
# Expected: 4 at frequency 0, 2 at 0.25, 0 at 0.5.
#
# <details><summary>Solution</summary>
#
# ```python
# def gain(f):
#     return 4 * np.cos(np.pi * f) ** 2
# ```
# $|1 + e^{-2\pi i f}|^2 = 2 + 2\cos 2\pi f = 4\cos^2 \pi f$. The square is there because power
# is asked for, not magnitude.
# </details>
#
# The other kernels, from their taps. `frequency_response` is a Fourier transform of the taps, and
# `TAPS` are those that the networks of this course use.

# %%
frequency = np.arange(321) / 640
curves = {}
for name in ("nearest", "bilinear", "bicubic", "fir"):
    response = observations.frequency_response([observations.TAPS[name]], (1, 640))[0, :321]
    decibels = fp.to_db(abs(response) ** 2, floor=1e-7)
    curves[name] = frequency, decibels
    print(f"{name:9} at 0.1, 0.25, 0.4, 0.5: {decibels[[64, 160, 256, 320]].round(1)} dB")
labels = {"x_label": "frequency (cycles/pixel)", "y_label": "gain of power (dB)"}
figure = plots.radial_profiles(curves, size=(720, 380))
teach.show(pictures.line_chart(curves, **labels), figure=figure)

# %% [markdown]
# **What you see.** What lies at 0.1 has a copy at 0.5 - 0.1 = 0.4. There nearest has -4 dB: hardly
# a filter, ten dB below its own original. Bilinear is 29 dB below its original, bicubic 35, and
# `fir`, the long filter of StyleGAN3, 44. *All* of them are zero at 0.5 exactly: a flat image stays
# flat. (The chart ends at -70 dB.)
#
# Now on the scene, with torch's own upsampling:


# %%
def cell(decibels, caption):
    return pictures.Cell(values=decibels, limits=(-60, 20), caption=caption)


kinds = ("zero", "nearest", "bilinear", "bicubic", "fir")
results = {kind: observations.replicas(kind, small - small.mean()) for kind in kinds}
print("largest error:", f"{max(r.error for r in results.values()):.0e}")
cells = [cell(centred(r.measured[0]), kind) for kind, r in results.items()]
teach.show(pictures.montage({"": cells}, cell_size=128, bar=(-60, 20, "dB")))

# %% [markdown]
# **What you see.** The same four centres everywhere, differently weighed. Nearest leaves bars along
# the border, with a black line where its response is zero. The better the filter, the darker the
# border: and a dark border is a mark too, of a network that upsamples *well*.

# %% [markdown]
# ## 3. When the kernel is learnt
#
# A transposed convolution inserts zeros as well, and then uses taps that training has found.
# Nothing makes these vanish at 0.5. The simplest family is $(w, 1, w)$, scaled to keep the
# brightness. At 0.5 the signs alternate, and what remains is proportional to $1 - 2w$.
#
# **Predict.** Which $w$ leaves no checkerboard? What do three equal taps do?
#
# <details><summary>Reveal</summary>
#
# $w = 1/2$ (it is linear interpolation). Three equal taps, $w = 1$, leave as much as $w = 1/4$,
# with the sign reversed: pixels at even places see two taps, those at odd places only one.
# </details>

# %%
code = (small - small.mean()) / small.std()


def measured(caption, code=code, **settings):
    views = generation_block.block_views(generation_block.BlockSettings(**settings), code)
    return cell(views.decibels(views.measured), caption)


cells = [measured(f"w = {w}", upsampling="deconv", overlap=w) for w in (0, 0.25, 0.5, 0.75, 1)]
teach.show(pictures.montage({"": cells}, cell_size=128, bar=(-60, 20, "dB")))

# %% [markdown]
# **What you see.** The copies fade until $w = 1/2$ and come back. Pixel shuffle is the same thing
# in other clothes: four convolutions make four images of the small size, and the shuffle lays them
# into one another. If the four kernels are equal it is nearest neighbour; if they differ, copies
# return. `roughness` adds random numbers to the kernels:

# %%
steps = (0.0, 0.05, 0.3, 1.0)
cells = [measured(f"roughness {r}", upsampling="shuffle", roughness=r) for r in steps]
teach.show(pictures.montage({"": cells}, cell_size=128, bar=(-60, 20, "dB")))

# %% [markdown]
# **What you see.** The black lines of nearest fill up at once: a little is enough. Exact zeros need
# exact symmetry, and training has no reason to keep it.

# %% [markdown]
# ### Exercise 2: repair a transposed convolution (8 minutes, medium)
#
# A flat image must stay flat. With stride 2, pixels at even places see the taps 0, 2, 4, ... and
# those at odd places the taps 1, 3, .... Write `repair(taps)`: a **new** array in which the even
# taps add up to 1 and the odd taps too, each group scaled as a whole.
#
# <details><summary>Hint</summary>
#
# `fixed = np.array(taps, dtype=float)` makes a copy. `fixed[0::2]` are the even taps.
# </details>


# %%
### BEGIN SOLUTION
#: def repair(taps):
#:     return ...  # your code here
def repair(taps):
    fixed = np.array(taps, dtype=float)
    fixed[0::2] /= fixed[0::2].sum()
    fixed[1::2] /= fixed[1::2].sum()
    return fixed


### END SOLUTION


teach.check("even-taps", repair)

# %% [markdown]
# Expected: three equal taps become (0.5, 1, 0.5), and the power at 0.5 becomes 0. (Unsolved, this
# prints `Ellipsis`.)

# %%
taps = repair(np.ones(3))
print(taps, "power at 0.5:", taps if taps is ... else (taps * [1, -1, 1]).sum() ** 2)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def repair(taps):
#     fixed = np.array(taps, dtype=float)
#     fixed[0::2] /= fixed[0::2].sum()
#     fixed[1::2] /= fixed[1::2].sum()
#     return fixed
# ```
# This removes the copy of frequency 0 alone. Its surroundings keep a weak copy, as with nearest.
# </details>

# %% [markdown]
# ## 4. Upsample again
#
# A generator upsamples several times. The second upsampling repeats a spectrum that is already
# repeated.
#
# **Predict.** Where are the centres after 1, 2 and 3 upsamplings by 2?
#
# <details><summary>Reveal</summary>
#
# $n$ upsamplings make every $2^n$-th pixel alike: centres at the multiples of $1/2^n$.
# </details>

# %% [markdown]
# ### Exercise 3: predict the grid (5 minutes, easy)
#
# Write `grid(n)`: the list of all frequencies above 0 and up to 0.5 at which copies of frequency 0
# appear along one axis after `n` upsamplings by 2.
#
# <details><summary>Hint</summary>
#
# Multiples $k/2^n$. The last one is 0.5, so $k$ ends at $2^{n-1}$.
# </details>


# %%
### BEGIN SOLUTION
#: def grid(n):
#:     return ...  # your code here
def grid(n):
    return [k / 2**n for k in range(1, 2 ** (n - 1) + 1)]


### END SOLUTION


teach.check("upsampling-grid", grid)

# %%
print([grid(n) for n in (1, 2, 3)])
codes = {n: torch.nn.functional.avg_pool2d(code, 2 ** (n - 1)) for n in (1, 2, 3)}
cells = [measured(f"{n} x", codes[n], upsampling="deconv", repeats=n) for n in codes]
teach.show(pictures.montage({"": cells}, cell_size=192, bar=(-60, 20, "dB")))

# %% [markdown]
# **What you see.** 1, 2, 4 places between 0 and 0.5: 0.5; 0.25, 0.5; 0.125, 0.25, 0.375, 0.5.
# They are not equally bright: each later kernel weighs what the earlier ones left. So the *last*
# upsampling has the last word, which lesson 03 tests on whole networks.
#
# <details><summary>Solution</summary>
#
# ```python
# def grid(n):
#     return [k / 2**n for k in range(1, 2 ** (n - 1) + 1)]
# ```
# </details>

# %% [markdown]
# ## 5. Your own block
#
# One block $y = N(A(F(Uz)))$, up to three in a row. Left the spectrum **measured** on the pixels of
# the output, in the middle **computed** from the input's spectrum without looking at the output.
# Below, the mean over all rows: *input repeated* is the spectrum before any kernel.
#
# **Try.** (a) `nearest`, then `bilinear`, then `shuffle` with a little roughness. (b) Turn
# `sharpness` to -1 and +1: can a 3x3 convolution hide the copies? (c) Activation `relu` with
# `closed form` 1: a straight line cannot make new frequencies, so all that stands out in the
# difference is new. Turn `closed form` up: powers of the signal fill it in. (d) Input *one plane
# wave*: the new frequencies are harmonics.

# %%
explorer = widgets.BlockExplorer(upsampling="bilinear", activation="relu", degree=1)
explorer

# %%
teach.show(explorer.static())

# %%
for degree in (1, 2, 4, 8):
    explorer.degree = degree
    print(f"degree {explorer.degree}: {explorer.views.difference:5.2f} dB off")
explorer.activation = "none"
print(f"no activation: {explorer.views.difference:.0e} dB off")

# %% [markdown]
# **What you see.** Bilinear interpolation leaves next to nothing near 0.5, and so does the curve
# *computed* with the best straight line for ReLU. *Measured* is some 30 dB above it: ReLU makes
# frequencies that were not there. The higher the degree, the closer the computed side comes;
# without an activation both agree to rounding. Lesson 03 has more about activations.
#
# A surprise: set `nearest`, and the zero at 0.5 survives ReLU. Equal neighbours stay equal,
# whatever an activation does to each of them. Turn `sharpness` a little, and it fills up: after a
# convolution neighbours differ.

# %% [markdown]
# ## 6. Read a fingerprint
#
# The zoo holds trained networks with transposed convolutions: `K1` upsample once, `K2` twice.
# Training was free to find kernels without copies.
#
# **Predict.** Did it?
#
# <details><summary>Reveal</summary>
#
# Hardly ever. Nothing in the training asks for it: copies far below the scene cost next to no
# reconstruction error.
# </details>

# %%
zoo = fp.Zoo.load()
names = [name for name in zoo.model_ids if "deconv" in name]
probes = fp.procedural_images(budget.choose(quick=8, full=64), seed=3)
powers = {n: fp.average_spectrum(zoo.apply(n, probes)[..., 16:-16, 16:-16]).mean(0) for n in names}

# %%
shown = [next(name for name in names if name.startswith(k)) for k in ("K1", "K2")]
cells = [pictures.Cell(values=fp.to_db(powers[n]), caption=n.split("-U")[0]) for n in shown]
maps = pictures.montage({"": cells}, cell_size=128)
axis = (np.arange(128) - 64) / 128
rows = {n.split("-U")[0]: (axis[64:], fp.to_db(powers[n][64, 64:])) for n in shown}
labels = {"x_label": "horizontal frequency (cycles/pixel)", "y_label": "middle row (dB)"}
teach.show(pictures.stack([maps, pictures.line_chart(rows, **labels)]))

# %% [markdown]
# **What you see.** Bright points on the grid that you predicted: for `K1` at the border only, for
# `K2` at 1/4 as well, where the middle row rises by more than 10 dB above its neighbours.
# (Frequency 0 is weaker than in section 1: this is the spectrum of a residual, and the denoiser
# keeps slow changes for itself.)

# %% [markdown]
# ### Exercise 4: count the upsamplings (12 minutes, hard)
#
# Write `count(power)`: 1, 2 or 3 upsamplings, from a fingerprint of power, (128, 128), centred.
# The scene is loud near the centre and differs from network to network, so a level proves nothing:
# compare a frequency with its neighbours.
#
# <details><summary>Hint</summary>
#
# Frequency $f$ is at index $64 + 128 f$ of the middle row `power[64]`. In dB, a copy stands out by
# more than 6 dB from the median of the 13 values around it. Look for the *lowest* place of each
# grid: 1/8 tells three, 1/4 two.
# </details>


# %%
### BEGIN SOLUTION
#: def count(power):
#:     return ...  # your code here
def count(power):
    row = fp.to_db(power[64])
    for n in (3, 2):
        i = 64 + 128 // 2**n
        if row[i] - np.median(row[i - 6 : i + 7]) > 6:
            return n
    return 1


### END SOLUTION


teach.check("count-upsamplings", count)

# %% [markdown]
# Expected: nearly all right. (Unsolved, it is none.) Which ones are wrong, and what do they lack?

# %%
wrong = [name for name in names if count(powers[name]) != int(name[1])]
print(f"{len(names) - len(wrong)} of {len(names)} networks counted right")
print("wrong:", *wrong[:3], "..." if len(wrong) > 3 else "")

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def count(power):
#     row = fp.to_db(power[64])
#     for n in (3, 2):
#         i = 64 + 128 // 2**n
#         if row[i] - np.median(row[i - 6 : i + 7]) > 6:
#             return n
#     return 1
# ```
# You have just told something about the inside of a network from its images alone. A network
# that is counted wrong here has no activation (`Anone`) and weak copies at 1/4. Whether the one
# follows from the other, a single network cannot tell.
# </details>

# %% [markdown]
# ## What can go wrong
#
# - **Borders.** The Fourier transform takes an image as a tile of an endless pattern; a jump
#   between opposite borders draws a bright cross through frequency 0. Lesson 00 tapers the
#   borders (a Hann window). Here the scene was made periodic: the closed forms hold to rounding.
# - **The mean.** It is one very strong frequency. Its copies are single bright points, which hide
#   everything else when colours are scaled. Without it, copies have a hole in their middle.
# - **Other lattices.** JPEG works in blocks of 8 and leaves marks at multiples of 1/8, just as
#   three upsamplings do. A stripe pattern in the scene is a peak too: average over many scenes.
# - **Resizing moves everything.** After a resize to 80% the copy at 0.25 sits at 0.3125.
# - **A dark border proves no blur by a network.** A photograph that was enlarged has one as well.
#
# ## Recap
#
# Upsampling inserts zeros, which repeats the spectrum; a kernel weighs the copies. Fixed kernels
# are zero at Nyquist, learnt ones need not be, and $n$ upsamplings put copies at multiples of
# $1/2^n$. All of it is exact until an activation comes.
#
# ## Where to go next
#
# - **Lesson 03**: what convolution, activation, normalisation and the order of blocks add.
# - **The code**: `fpkit/observations.py` has the closed forms, `fpkit/generation_block.py` a whole
#   block; `python benchmarks/observations.py` prints how exact they are.
