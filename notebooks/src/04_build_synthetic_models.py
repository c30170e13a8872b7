# %% [markdown]
# # How do you build models with fingerprints of your choice?
#
# An extractor that shall recognise generators it has never met must learn from very many
# fingerprints, and nobody has thousands of real generators at hand. The way out: small networks,
# *synthetic models*, made by the thousand. Here you choose architectures, train models, watch
# where their fingerprints come from, and build a zoo of them.

# %%
import tempfile

import numpy as np
import torch

import fpkit as fp
from fpkit import made_model, nearest, pictures, plots, teach, widgets

budget = teach.budget()
teach.runtime_badge("04_build_synthetic_models")

# %% [markdown]
# **You will be able to**
# - *name* the axes along which synthetic models vary, and *count* the models they allow,
# - *train* a model, and *judge* its reconstruction by the residual $\eta$,
# - *build* a zoo of models and *read* its manifest,
# - *compare* what the architecture and what the seed add to a fingerprint.
#
# **You need** lessons 00 and 02; what training a network means.
#
# **It takes** 50 minutes.
#
# | word | meaning |
# |---|---|
# | axis | one choice about the architecture, with its options; written as a letter |
# | seed | the number from which a model's first, random weights are drawn |
# | $\eta$ | the mean squared error at which a model counts as trained: 0.005 |
# | stack | models of one architecture that train side by side, one per seed |
# | manifest | the list of a zoo's models, with how the training of each ended |

# %% [markdown]
# ## 1. Six axes
#
# A synthetic model squeezes an image and paints it anew. The squeezing half is the same in all of
# them. The painting half is made of blocks $y = N(A(F(U z)))$, and six axes say how:
#
# | letter | axis | options |
# |---|---|---|
# | K | blocks, each doubling the resolution | 1, 2 |
# | L | convolutions per block | 1, 2 |
# | U | upsampling | nearest, bilinear, deconv |
# | A | activation | none, relu, sigmoid, tanh |
# | N | normalisation | none, batch, instance |
# | S | activation and normalisation before or after the convolution | pre, post |
#
# An `ArchSpec` is one choice on each, and its id spells it out.

# %%
spec = fp.ArchSpec(blocks=1, upsample="deconv", norm="none")
print(spec.id)
print("in all:", len(fp.PAPER), "architectures; with newer options:", len(fp.EXTENDED))
for one in fp.PAPER.sample(3, seed=0):
    print(one.id)

# %% [markdown]
# ### Exercise 1: count models (5 minutes, easy)
#
# How many of the architectures of `fp.PAPER` upsample with a deconvolution and have no
# normalisation? How many models is that with 20 seeds each? Answer with two numbers.
#
# <details><summary>Hint</summary>
#
# Multiply the options that are left on each axis, or let `fp.PAPER.restrict(...)` keep only the
# options you name and take its `len`.
# </details>

# %%
### BEGIN SOLUTION
#: count = ..., ...  # your code here: architectures, models
archs = len(fp.PAPER.restrict(upsample="deconv", norm="none"))
count = archs, 20 * archs
### END SOLUTION

teach.check("count-architectures", count)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# archs = len(fp.PAPER.restrict(upsample="deconv", norm="none"))
# count = archs, 20 * archs
# ```
# 2 (K) x 2 (L) x 1 (U) x 4 (A) x 1 (N) x 2 (S) = 32 architectures, 640 models.
# </details>

# %% [markdown]
# ## 2. What such a model does to an image
#
# It learns one thing: to return what it was given. We measure how badly it does by the mean
# squared error over pixels in [0, 1], the *residual* of its training.
#
# **Predict.** A model with one block halves the resolution and works with 32 channels there. Is
# its code, what lies between the two halves, smaller than the image?
#
# <details><summary>Reveal</summary>
#
# No: 32 channels at half the width and half the height are $32/4 = 8$ numbers for each pixel,
# which has 3. Nothing has to be lost. What a model gets wrong is what its decoder cannot paint,
# or has not learnt to.
# </details>

# %%
zoo = fp.Zoo.load()
scene = fp.procedural_images(1, seed=3)
chosen = ["K1-L1-Udeconv-Asigmoid-Nbatch-Spost", "K2-L1-Unearest-Atanh-Nnone-Spre"]
chosen.append("K2-L2-Ubilinear-Anone-Ninstance-Spost")
code = zoo.model(f"{chosen[0]}/seed0").encoder(scene)
print(f"image {tuple(scene.shape[1:])}, code {tuple(code.shape[1:])}")

# %%
cells = [pictures.Cell(values=scene[0], caption="the image")]
for arch in chosen:
    painted = zoo.apply(f"{arch}/seed0", scene)
    error = float((painted - scene).square().mean())
    print(f"{arch:38s} error here {error:.4f}, root of it {255 * error**0.5:4.1f} of 255 greys")
    cells.append(pictures.Cell(values=painted[0], caption=f"error {error:.4f}"))
titles = ["given", "K1 batch", "K2 none", "K2 instance"]
teach.show(pictures.montage({"": cells}, columns=titles, cell_size=96))

# %% [markdown]
# **What you see.** The first two returned the image, somewhat coarser. The third cannot get the
# colours right: instance normalisation after the last convolution gives *every* image the same
# mean and the same contrast. The method stops a training at $\eta = 0.005$, which is a typical
# error of $255\sqrt{0.005} \approx 18$ grey levels: a synthetic model need not be a good one. Its
# fingerprint counts, not its pictures.

# %% [markdown]
# ## 3. Train one, and watch
#
# `fp.synthesize` trains one model on crops of the images you give it, and stops at $\eta$ or after
# `max_steps`. Its result holds the model and the history of its loss.
#
# **Predict.** Three models of one block that differ only in normalisation: none, batch, instance.
# Which gets stuck?
#
# <details><summary>Reveal</summary>
#
# Instance. It throws away the mean of each image, and no amount of training brings it back.
# Batch normalisation shifts all images of a batch alike: it starts worse and can catch up.
# </details>

# %%
images = fp.procedural_images(48, 128, seed=0)
how = {"max_steps": budget.choose(quick=80, full=400), "device": budget.device, "progress": False}
trained = {}
for norm in ("none", "batch", "instance"):
    one = fp.ArchSpec(blocks=1, norm=norm)
    trained[norm] = fp.synthesize(one, images, **how)
    print(f"{norm:8s} residual {trained[norm].residual:.4f} after {trained[norm].steps} steps")

# %%
curves = {}
for norm, made in trained.items():
    greys = 255 * np.sqrt(np.convolve(made.history, np.ones(8) / 8, mode="valid"))
    curves[norm] = np.arange(len(greys)), greys
steps = max(len(x) for x, _ in curves.values())
curves["eta"] = [0, steps], 2 * [255 * 0.005**0.5]
teach.show(pictures.line_chart(curves, x_label="step", y_label="error (grey levels)"))

# %% [markdown]
# **What you see.** Most is learnt in the first 30 steps. Without normalisation the error comes
# close to $\eta$ and gets there within 400 steps; batch normalisation needs longer. With instance
# normalisation the residual stays near 0.03, however long you train.
#
# How common is that? The starter zoo had 400 steps for each of its 80 models, and its manifest
# says who got there.

# %%
entry = zoo.entries[0]
print({key: entry[key] for key in ("arch_id", "seed", "residual", "reached", "steps")})
print(sum(entry["reached"] for entry in zoo.entries), "of", len(zoo), "reached eta")

# %% [markdown]
# ### Exercise 2: who gets there? (10 minutes, medium)
#
# Write `share_reached(entries, field)`. Given entries of a manifest and a field of `ArchSpec`, e.g.
# `"norm"`, return a dictionary from each option found there to the **share** of its models that
# reached $\eta$, 0 to 1.
#
# Expected for `"norm"`: about a half without, somewhat more with batch, none with instance.
#
# <details><summary>Hint</summary>
#
# `getattr(fp.ArchSpec.parse(entry["arch_id"]), field)` is the option of one entry. Collect the
# values of `entry["reached"]` in a list per option, then take means: True counts 1, False 0.
# </details>


# %%
### BEGIN SOLUTION
#: def share_reached(entries, field):
#:     return ...  # your code here
def share_reached(entries, field):
    flags = {}
    for entry in entries:
        option = getattr(fp.ArchSpec.parse(entry["arch_id"]), field)
        flags.setdefault(option, []).append(entry["reached"])
    return {option: float(np.mean(values)) for option, values in flags.items()}


### END SOLUTION


teach.check("share-reached", share_reached)

# %%
for field in ("norm", "blocks", "upsample"):
    print(field, share_reached(zoo.entries, field))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def share_reached(entries, field):
#     flags = {}
#     for entry in entries:
#         option = getattr(fp.ArchSpec.parse(entry["arch_id"]), field)
#         flags.setdefault(option, []).append(entry["reached"])
#     return {option: float(np.mean(values)) for option, values in flags.items()}
# ```
# Normalisation and the number of blocks decide. So "only models that reached $\eta$" would mean
# "hardly any with two blocks, none with instance normalisation": the zoo would lose its variety.
# fpkit keeps all of them, and the residual beside each.
# </details>

# %% [markdown]
# ## 4. How early is the fingerprint there?
#
# **Predict.** The same model (one block, deconvolution) after 2, 10 and many steps. After two
# steps it can hardly paint. Does it have a fingerprint?
#
# <details><summary>Reveal</summary>
#
# Yes. Where the marks lie follows from the architecture, which is there before any training, and
# how strong they are from the kernels, which begin as random numbers.
# </details>

# %%
probes = fp.procedural_images(10, seed=1)
early, shown, profiles = {}, [], {}
for steps in (2, 10, how["max_steps"]):
    made = fp.synthesize(spec, images, **(how | {"max_steps": steps}))
    with torch.no_grad():
        power = made_model.interior_power(made.model(probes))
    early[f"{steps} steps"] = nearest.spectral_pattern(power)
    small = power.reshape(64, 2, 64, 2).mean((1, 3))  # four neighbours averaged
    shown.append(pictures.Cell(values=fp.to_db(small), caption=f"residual {made.residual:.3f}"))
    frequency, profile = fp.radial_profile(power)
    profiles[f"{steps} steps"] = frequency, fp.to_db(profile)
teach.show(pictures.montage({"": shown}, columns=list(early), cell_size=128))

# %%
teach.show(
    pictures.line_chart(profiles, x_label="frequency (cycles/pixel)", y_label="power (dB)"),
    figure=plots.radial_profiles(profiles, size=(720, 400)),
)

# %%
table = np.corrcoef([pattern.ravel() for pattern in early.values()])
for steps, correlation in zip(early, table[-1], strict=True):
    print(f"{steps:9s} correlation with the last {correlation:.2f}")

# %% [markdown]
# (`spectral_pattern` takes the mean over each ring of equal frequency away from the decibels. What
# is left are bars, crosses and lattices, whatever the blur.)
#
# **What you see.** The bright places at 0.5 cycles per pixel are there after two steps, when the
# model paints fog, and never again so strong. (Each picture has its own range of colours.)
# Training takes some decibels from them and fills in what lies between; the pattern stays alike,
# with a correlation near 0.7. That is why *random* decoders, which nobody trains
# (`fp.RandomSynthesizer`), are of use to an extractor as well.

# %% [markdown]
# ## 5. A zoo, live
#
# The unit of work is a **stack**: all seeds of one architecture in one network of grouped
# convolutions. Models of a stack never mix.
#
# **Predict.** Three models in a stack, and the same three one by one. Do they come out the same?
# Is the stack faster?
#
# <details><summary>Reveal</summary>
#
# The same, up to the rounding of sums in another order. A stack makes fewer and larger
# operations. That pays on a GPU, which one small model cannot keep busy; a CPU gains little.
# </details>

# %%
few = {"max_steps": 20, "progress": False}
stack = fp.synthesize_stack(spec, images, seeds=range(3), **few)
alone = [fp.synthesize(spec, images, seed=seed, **few) for seed in range(3)]
with torch.no_grad():
    a, b = (255 * torch.stack([m.model(probes) for m in group]) for group in (stack, alone))
print(f"seconds: stack {3 * stack[-1].seconds:.1f}, one by one {sum(m.seconds for m in alone):.1f}")
print(f"stack against alone: {(a - b).abs().mean():.3f} grey levels on average")
print(f"seed 0 against seed 1: {(a[0] - a[1]).abs().mean():.3f}")

# %% [markdown]
# `fp.build_zoo` trains the stacks of a plan on all cores (here on one), writes each model into a
# file of its own, and keeps the manifest. Four architectures, three seeds each:

# %%
archs = ["Unearest-Arelu-Nnone-Spost", "Ubilinear-Arelu-Nnone-Spost"]
archs += ["Udeconv-Arelu-Nnone-Spost", "Udeconv-Atanh-Nnone-Spre"]
steps = budget.choose(quick=40, full=400)
archs = tuple(f"K1-L1-{arch}" for arch in archs)
plan = fp.ZooPlan(archs=archs, seeds=3, max_steps=steps, precision="float32")

# %%
folder = tempfile.TemporaryDirectory()
source = {"source": "procedural_images(48, 128, seed=0)", "out": f"{folder.name}/zoo"}
mine = fp.build_zoo(plan, images, **source, jobs=1, device=budget.device)
for entry in mine.entries[::3]:
    print(entry["model_id"], entry["residual"], entry["steps"])

# %% [markdown]
# A build that was stopped, by a power cut too, goes on where it was: finished models stay.

# %%
again = fp.build_zoo(plan, images, **source, jobs=1, resume=True, progress=False)
print(len(again), "models; made anew:", len(again) - len(mine))

# %% [markdown]
# ## 6. What does a seed add, what an architecture?
#
# The fingerprints of two seeds, a row for each architecture.
#
# **Predict.** Which will be more alike: two seeds of one architecture, or one seed of two
# architectures?
#
# <details><summary>Reveal</summary>
#
# As a rule, two seeds of one architecture. The table below has an exception that you should find.
# </details>

# %%
powers = {name: made_model.interior_power(mine.apply(name, probes)) for name in mine}
rows = {}
for arch in plan.archs:
    two = [powers[f"{arch}/seed{seed}"] for seed in (0, 1)]
    small = [fp.to_db(power.reshape(64, 2, 64, 2).mean((1, 3))) for power in two]
    rows[arch[6:].replace("-N", "\nN")] = small
teach.show(pictures.montage(rows, columns=["seed 0", "seed 1"], cell_size=128))

# %%
patterns = {name: nearest.spectral_pattern(power) for name, power in powers.items()}
table = np.corrcoef([pattern.ravel() for pattern in patterns.values()])
cell = pictures.Cell(values=table, limits=(-1, 1), palette="cividis")
bar = {"bar": (-1, 1, ""), "bar_palette": "cividis", "cell_size": 240}
teach.show(pictures.montage({"": [cell]}, columns=["correlation of 12 patterns"], **bar))

# %% [markdown]
# ### Exercise 3: same and other (10 minutes, medium)
#
# Write `same_and_other(patterns)`: given a dictionary from `"<arch>/seed<k>"` to a pattern (h, w),
# return two numbers: the mean correlation over pairs of models of the **same** architecture, and
# over pairs of **different** architectures. A model and itself are no pair.
#
# Expected for our zoo: both positive, the first clearly larger.
#
# <details><summary>Hint</summary>
#
# `itertools.combinations(patterns, 2)` gives every pair of names once;
# `name.split("/")[0]` is the architecture.
# </details>


# %%
### BEGIN SOLUTION
#: def same_and_other(patterns):
#:     return ..., ...  # your code here
def same_and_other(patterns):
    found = {True: [], False: []}
    names = list(patterns)
    for i, a in enumerate(names):
        for b in names[:i]:
            alike = np.corrcoef(patterns[a].ravel(), patterns[b].ravel())[0, 1]
            found[a.split("/")[0] == b.split("/")[0]].append(alike)
    return float(np.mean(found[True])), float(np.mean(found[False]))


### END SOLUTION


teach.check("same-and-other", same_and_other)

# %%
print("same architecture, other architecture:", same_and_other(patterns))
for seed in range(3):
    a, b = (patterns[f"{arch}/seed{seed}"].ravel() for arch in plan.archs[2:])
    print(f"relu-post and tanh-pre, both of seed {seed}: {np.corrcoef(a, b)[0, 1]:.2f}")

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def same_and_other(patterns):
#     found = {True: [], False: []}
#     names = list(patterns)
#     for i, a in enumerate(names):
#         for b in names[:i]:
#             alike = np.corrcoef(patterns[a].ravel(), patterns[b].ravel())[0, 1]
#             found[a.split("/")[0] == b.split("/")[0]].append(alike)
#     return float(np.mean(found[True])), float(np.mean(found[False]))
# ```
# </details>
#
# **What you see.** Architecture is the stronger of the two on average. But look at the two short
# bright lines that run along the diagonal: the two deconvolution architectures are *twins*, seed by
# seed, more alike than two seeds of either. They have weights of the same shapes, so the same seed
# draws them the same first weights, and training moves these only a little (trained on to $\eta$,
# the twins still correlate with 0.94, two seeds with 0.75). In such a pair the seed tells more than
# activation and order do. A zoo for training should give twins different seeds, or an extractor is
# asked to tell apart what is hardly different.

# %% [markdown]
# ## 7. Your own
#
# All axes, the paper's six and, with **options beyond the paper**, those of newer generators.
# **Make model** trains in the background and **Cancel** stops it. Below your fingerprints stand
# the nearest of 38 real models whose spectra were measured.
#
# **Predict.** One, two and three blocks with deconvolutions: at which distances do the peaks lie?
#
# <details><summary>Reveal</summary>
#
# K blocks enlarge by $2^K$, so marks repeat every $1/2^K$ cycles per pixel: 1/2, 1/4, 1/8.
# </details>

# %%
explorer = widgets.SynthesisExplorer(images, probes, spec=spec)
explorer

# %%
for blocks in (1, 2, 3):
    explorer.spec = fp.ArchSpec(blocks=blocks, upsample="deconv", norm="none")
    explorer.make()
teach.show(explorer.static())

# %% [markdown]
# **What you see.** Each further block halves the distance between the peaks. The second row shows
# the real model whose pattern is most like it, with the correlation of the two: 1 would be equal
# patterns, 0 nothing in common. The correlations are modest: real kernels
# weight the peaks otherwise. And *near* is no proof of *akin*: decoders of latent diffusion
# enlarge by 8 too, and yet the nearest model to ours of three blocks is none of them.
#
# **Try.** Which settings bring you nearest to a real model of your choice? Then choose "radial
# profile" under *nearest by*: other models become the nearest. Which of the two would you trust?

# %% [markdown]
# ## What can go wrong
#
# - **Only good models.** Whoever keeps just those that reach $\eta$ keeps the easy architectures.
# - **Twins.** Equal seeds make relatives across architectures; draw them anew for each.
# - **The border.** Zero padding marks the outermost pixels. Cut them off, as `interior_power` does,
#   or the extractor learns borders that no crop of a real image has.
# - **The images.** A model trained on one kind of picture is tested on another: measure
#   fingerprints of all models on the *same* probes, or the probes differ and not the models.
#
# ## Recap
#
# Six axes and a seed make thousands of models, each a small autoencoder trained to return its
# input. $\eta$ says when to stop, not what to keep. Where marks lie follows from the architecture
# and is there from the first step; seeds and training weight them.
#
# ## Where to go next
#
# - **Is the zoo like the real world?** Lesson 05 measures it.
# - **A larger zoo:** `fpkit zoo build --preset starter --out my_zoo`, then `fpkit zoo report`.
# - **The code:** `fpkit/blocks.py` has the blocks, `fpkit/synthesis.py` the training.
