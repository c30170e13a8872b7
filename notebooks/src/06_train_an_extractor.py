# %% [markdown]
# # Can a network learn to tell apart networks that it never met?
#
# An extractor must compare images of generators that did not exist when it was trained. So we do
# not teach it names. We teach it a *space*: images of one model close together, images of
# different models far apart. In this notebook you train one from scratch, watch it learn, and test
# it on architectures that were kept out of its training.

# %%
import tempfile

import numpy as np
import torch

import fpkit as fp
from fpkit import losses, pictures, scatter, stream, teach, training, widgets

budget = teach.budget()
teach.runtime_badge("06_train_an_extractor")

# %% [markdown]
# **You will be able to**
# - *explain* what cross-entropy and the triplet loss ask of an embedding,
# - *compute* a batch-hard triplet loss and *draw* the batches that it needs,
# - *train* an extractor and *read* its curves while it learns,
# - *test* it honestly: on held-out architectures, against chance and an untrained network.
#
# **You need** lesson 04 (synthetic models), lesson 00 (embeddings, scores), a little PyTorch.
#
# **It takes** 60 minutes.
#
# | word | meaning |
# |---|---|
# | anchor | the image that a loss looks at |
# | positive, negative | another image of the anchor's model; an image of another model |
# | margin | how much nearer positives must be than negatives before the loss is content |
# | P x K batch | P models, K images of each |
# | held out | kept away from the training, for the test alone |

# %% [markdown]
# ## 1. Two things to ask of an embedding
#
# The extractor turns an image into a vector $e$ of length 1. Yang et al. (2025) train it with the
# sum of two losses.
#
# **Cross-entropy.** A linear classifier on top of $e$ must name the training model $y$:
# $L_{CE} = -\log \mathrm{softmax}(W e + b)_y$.
#
# **Triplet.** No names, only distances. The farthest positive $p$ of an anchor $a$ must be nearer
# than its nearest negative $n$, by a margin $m = 0.3$:
#
# $$L_T = \max\left(0,\; |a - p| - |a - n| + m\right), \quad\text{averaged over all anchors.}$$
#
# **Predict.** After the training somebody brings images of a new model. Of what use is the
# classifier $W$ then?
#
# <details><summary>Reveal</summary>
#
# Of none: it knows the names of the training models only, and is thrown away. What stays is the
# embedding. Cross-entropy is a detour: to name many models, the embedding has to keep what makes
# them different. The triplet loss asks directly for what we need, comparisons.
# </details>
#
# Four images as points on a circle, two of model A and two of model B:

# %%
angles = torch.tensor([0.0, 50.0, 80.0, 180.0]).deg2rad()
points = torch.stack([angles.cos(), angles.sin()], dim=1)
models = torch.tensor([0, 0, 1, 1])
distance = (points[:, None] - points[None]).norm(dim=2)
print(np.round(distance.numpy(), 2))
teach.show(scatter.scatter_picture(points, ["A", "A", "B", "B"], size=200))

# %% [markdown]
# **Predict.** Points 0 and 1 are A, points 2 and 3 are B. Which anchor has the largest loss?
#
# <details><summary>Reveal</summary>
#
# Point 2 (B at 80°). Its only positive is 1.53 away (100° along the circle), its nearest negative
# 0.52 (30°): the loss is 1.53 - 0.52 + 0.3 = 1.31. Point 0 is served best: 0.85 - 1.29 + 0.3 is
# below zero, so it counts 0.
# </details>

# %%
for anchor in range(4):
    same = models == models[anchor]
    gap = distance[anchor][same].max() - distance[anchor][~same].min()
    print(f"point {anchor}: gap {gap:5.2f}, loss {max(0, gap + 0.3):.2f}")
print(f"mean: {losses.batch_hard_triplet(points, models):.3f}")

# %% [markdown]
# **What you see.** Three of the four anchors still pull and push. This way of choosing, the
# *hardest* positive and the *hardest* negative of each anchor within the batch, is called
# **batch hard** (Hermans, Beyer and Leibe 2017). Most triplets of a batch are easy after a few
# steps and teach nothing; the hardest still do.

# %% [markdown]
# ### Exercise 1: write the batch-hard triplet loss (15 minutes, medium)
#
# Write `batch_hard(embeddings, labels, margin)` with PyTorch: embeddings are (n, d), labels (n,).
# Every anchor has at least one positive and one negative. A loop over anchors is fine. The result
# must have a gradient, so no `.item()` and no NumPy.
#
# <details><summary>Hint</summary>
#
# `torch.cdist(embeddings, embeddings)` has all distances, and a gradient that is finite even for a
# distance of 0. For one anchor, `labels == labels[anchor]` selects its model. The anchor itself is
# at distance 0, so it never is the *farthest* positive.
# </details>


# %%
### BEGIN SOLUTION
#: def batch_hard(embeddings, labels, margin):
#:     return ...  # your code here
def batch_hard(embeddings, labels, margin):
    distance = torch.cdist(embeddings, embeddings)
    same = labels[:, None] == labels[None]
    farthest = distance.masked_fill(~same, 0).amax(1)
    nearest = distance.masked_fill(same, torch.inf).amin(1)
    return torch.relu(farthest - nearest + margin).mean()


### END SOLUTION


teach.check("batch-hard", batch_hard)

# %% [markdown]
# Expected: on the four points above it gives the mean that you saw, 0.490. (Unsolved, it prints
# `Ellipsis`.)

# %%
print(batch_hard(points, models, 0.3))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def batch_hard(embeddings, labels, margin):
#     distance = torch.cdist(embeddings, embeddings)
#     same = labels[:, None] == labels[None]
#     farthest = distance.masked_fill(~same, 0).amax(1)
#     nearest = distance.masked_fill(same, torch.inf).amin(1)
#     return torch.relu(farthest - nearest + margin).mean()
# ```
# `fpkit.losses.batch_hard_triplet` does the same, and leaves out anchors without a positive.
# </details>

# %% [markdown]
# ## 2. Batches with company
#
# A triplet needs a positive *in the batch*. The paper has 5760 synthetic models; suppose that a
# batch holds 200 images, each of a model drawn at random.
#
# **Predict.** How many of the 200 anchors find a positive: all, half, or hardly any?
#
# <details><summary>Reveal</summary>
#
# Hardly any: about 3%. For the others the triplet loss is empty, and nobody notices, because
# cross-entropy goes on falling.
# </details>

# %%
generator = np.random.default_rng(0)
drawn = generator.integers(5760, size=(100, 200))  # 100 batches
lonely = np.mean([np.mean([(batch == m).sum() == 1 for m in batch]) for batch in drawn])
print(f"anchors without a positive: {lonely:.1%}")

# %% [markdown]
# ### Exercise 2: how lonely is an image? (5 minutes, easy)
#
# Each image of a batch comes from one of `models` models, drawn at random and independently. Write
# `lonely_share(models, batch)`: the probability that a given image is the only one of its model.
#
# <details><summary>Hint</summary>
#
# One other image misses my model with probability $1 - 1/M$. How many other images are there?
# </details>


# %%
### BEGIN SOLUTION
#: def lonely_share(models, batch):
#:     return ...  # your code here
def lonely_share(models, batch):
    return (1 - 1 / models) ** (batch - 1)


### END SOLUTION


teach.check("lonely-images", lonely_share)

# %% [markdown]
# Expected: 0.966 for the paper's numbers, as counted above; 0.64 for the 70 models and batches of
# 32 that we use below.

# %%
print(lonely_share(5760, 200), lonely_share(70, 32))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def lonely_share(models, batch):
#     return (1 - 1 / models) ** (batch - 1)
# ```
# </details>
#
# The cure is to draw in two stages: first P models, then K images of each. Every anchor then has
# K - 1 positives and (P - 1) K negatives.

# %% [markdown]
# ### Exercise 3: draw a P x K batch (10 minutes, medium)
#
# `labels` is an array with the model of every image you own. Write
# `pk_batch(labels, models, images, generator)`: the places (indices into `labels`) of a random
# batch of `models` different models with `images` different images of each. Models that own too few
# images are left out. All randomness comes from `generator`, a `np.random.Generator`.
#
# <details><summary>Hint</summary>
#
# `np.unique(labels, return_counts=True)` has the models and how many images each owns;
# `np.flatnonzero(labels == name)` the places of one; `generator.choice(x, k, replace=False)`
# draws k different ones.
# </details>


# %%
### BEGIN SOLUTION
#: def pk_batch(labels, models, images, generator):
#:     return ...  # your code here
def pk_batch(labels, models, images, generator):
    names, counts = np.unique(labels, return_counts=True)
    chosen = generator.choice(names[counts >= images], models, replace=False)
    places = [np.flatnonzero(labels == name) for name in chosen]
    return np.concatenate([generator.choice(own, images, replace=False) for own in places])


### END SOLUTION


teach.check("pk-batch", pk_batch)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def pk_batch(labels, models, images, generator):
#     names, counts = np.unique(labels, return_counts=True)
#     chosen = generator.choice(names[counts >= images], models, replace=False)
#     places = [np.flatnonzero(labels == name) for name in chosen]
#     return np.concatenate([generator.choice(own, images, replace=False) for own in places])
# ```
# Expected: for `labels` of 3, 8 and 11, two models and two images, something like two places of 8
# and two of 3, others for another seed.
# </details>

# %% [markdown]
# ## 3. What a batch must not give away
#
# Here is our plan: P = 8 models of the zoo, K = 4 images of each, an eighth of the architectures
# held out with all their models.

# %%
config = fp.TrainConfig(
    steps=budget.choose(quick=80, full=2000),
    loss="ce+triplet",
    learning_rate=2e-3,
    warmup=10,
    validate_every=budget.choose(quick=10, full=100),
    stream=stream.StreamConfig(
        models=budget.choose(quick=8, full=24),
        images=4,
        random_share=0.0,  # zoo models only: a random decoder is drawn once, and has no class
        jpeg_share=0.0,
        matched_share=0.0,
        off_grid_share=0.0,
        sources=8,
        device=budget.device.type,
    ),
    extractor=fp.ExtractorConfig(widths=(32, 48, 64)),
)
zoo = fp.Zoo.load()
training_ids, held_out = training.split_zoo(zoo, config)
print(len(training_ids), "models to train on,", len(held_out), "held out, for example", held_out[0])

# %% [markdown]
# The stream makes batches on the fly: procedural scenes pass through the drawn models, and a crop
# of 128 x 128 pixels is cut from the middle. Batch number $i$ depends on the seed and on $i$ only.

# %%
sources = stream.Sources(procedural=96)
batches = stream.FingerprintStream(
    config.stream, sources, config.stream.synthesizer(zoo, training_ids)
)
crops, labels = batches[0]
rows = {f"model {label}": crops[labels == label] for label in labels.unique().tolist()[:4]}
teach.show(pictures.montage(rows, cell_size=80))

# %% [markdown]
# **What you see.** Four of the eight models. Each row is one model, and the scenes repeat from row
# to row, only turned, mirrored or shifted.
#
# **Predict.** Why do all models of a batch repaint the *same* few scenes?
#
# <details><summary>Reveal</summary>
#
# If model A always painted clouds and model B always stripes, the easiest way to tell them apart
# would be the subject. With shared scenes two images of one model mostly show different subjects,
# two images of different models often the same one: the subject is now misleading, and only the
# traces of the model help.
# </details>

# %% [markdown]
# ## 4. Before any training
#
# A test needs an opponent. So measure first: of each held-out model we make twelve images of new
# scenes, take one as its template and ask which template is nearest to each of the others. That is
# **one-shot identification**; with ten models, guessing is right in 10% of the cases.

# %%
scenes = fp.procedural_images(12 * len(held_out), seed=3).split(12)
pairs = zip(held_out, scenes, strict=True)
probes = torch.stack([zoo.apply(name, own)[..., 16:-16, 16:-16] for name, own in pairs])


def one_shot(extractor, probes):
    e = extractor.embed(probes.flatten(0, 1)).unflatten(0, probes.shape[:2])
    scores = torch.einsum("mid,njd->ijmn", e, e)  # image i of model m with template j of model n
    right = scores.argmax(-1) == torch.arange(len(e))
    return right[~torch.eye(probes.shape[1], dtype=torch.bool)].double().mean().item()


# %% [markdown]
# The first opponent is the same network with random weights. What it sees is standardised as it
# will be in the training: log power and coherence of the spectrum, each frequency with mean 0 and
# variance 1 over synthetic models.
#
# **Predict.** How many of the images does a network name right that never learnt anything?
#
# <details><summary>Reveal</summary>
#
# About half, because the *maps* that it sees already hold the answer, in spectra, and random
# weights keep much of what is similar in their input similar in their output. Whoever compares
# with chance alone praises the training for what the Fourier transform did.
# </details>

# %%
torch.manual_seed(0)
untrained = fp.Extractor(config.extractor)
untrained.measure(untrained.maps(torch.cat([batches[i][0] for i in range(4)])))
found = {"untrained": one_shot(untrained.eval(), probes)}
print(f"chance {1 / len(held_out):.0%}, untrained {found['untrained']:.0%}")

# %% [markdown]
# ## 5. Train
#
# `widgets.TrainingMonitor` trains in the background. **Stop** finishes the step at hand and writes
# a checkpoint; **Resume** goes on exactly there, and the result is the same to the last bit. Above:
# the loss. Below it: validation during the training, on single crops of the held-out models and of
# 16 random decoders, 26 sources in all, so chance is 4%. At the right: where the extractor puts
# images of six held-out models, drawn in the plane in which they spread most (a principal component
# analysis).

# %%
folder = tempfile.TemporaryDirectory()
monitor = widgets.TrainingMonitor(config, sources, zoo, out=folder.name, device=budget.device)
monitor

# %% [markdown]
# **Predict.** Which comes first: does the loss fall, or do models that were never trained on
# separate?
#
# <details><summary>Reveal</summary>
#
# They separate first. The loss starts at about $\log 70 + 0.3 = 4.5$, the price of guessing among
# 70 names plus the margin, and stays near it for a while: each batch shows 8 of the 70 names, so
# the classifier leans towards the names of the last batch and pays for it in the next. The
# embedding gains from every batch.
# </details>
#
# The next cell starts the training and waits for its end. (Instead you may press **Start** above
# and try **Stop** and **Resume**; while a cell waits, buttons have to wait too.)

# %%
monitor.begin()
monitor.wait()
print(monitor.status)

# %%
teach.show(monitor.static())

# %% [markdown]
# **What you see.** The loss jumps from step to step, for every batch has other models, some of them
# twins; only its running mean can be read. It stays at 4 to 6 at first, then falls below 2.
# Meanwhile more than half of the images of unknown sources are named right after ten steps, and
# 70 to 80% in the end, where guessing would give 4%. In the snapshots six held-out models draw
# together into clusters, and near relatives stay neighbours. The picture has two of 128 dimensions:
# clusters that overlap there need not overlap in all.

# %% [markdown]
# ## 6. Did it learn to generalise?
#
# The last opponent is the extractor that fpkit ships: five times as large, trained on photographs
# and thousands of batches. Its model card says that these ten architectures were held out of its
# training too. All three see the same images.

# %%
shipped = fp.load_extractor()
found |= {"yours": one_shot(monitor.extractor, probes), "shipped": one_shot(shipped, probes)}
for name, share in found.items():
    print(f"{name:10} {share:6.1%}   (chance {1 / len(held_out):.0%})")

# %%
shown = {"untrained": untrained, "yours": monitor.extractor, "shipped": shipped}
cells = []
for extractor in shown.values():
    e = extractor.embed(probes[:, :6].flatten(0, 1))
    cells.append(pictures.Cell(values=e @ e.T, limits=(-1, 1), palette="cividis"))
bar = {"bar": (-1, 1, ""), "bar_palette": "cividis"}
teach.show(pictures.montage({"": cells}, columns=list(shown), cell_size=200, **bar))

# %% [markdown]
# **What you see.** Scores of 60 images, six of each held-out model, three times. Untrained: nearly
# all pairs look alike, and only small differences make half of the answers right. Yours: bright
# squares along the diagonal, one per model, and some beside it where two models are relatives. In
# three trainings with other seeds it named 94 to 99% right, untrained networks 51 to 58%.
#
# So little training, and as good as the one that ships? Only at home. The test has the same kind of
# models, scenes and file format as the training. Now the same probes as JPEG files of quality 75,
# which your extractor never saw and the shipped one did:

# %%
through_jpeg = torch.stack([fp.images.jpeg(image, 75) for image in probes.flatten(0, 1)])
for name, extractor in shown.items():
    share = one_shot(extractor, through_jpeg.unflatten(0, probes.shape[:2]))
    print(f"{name:10} {share:6.1%}   (PNG {found[name]:.1%})")

# %% [markdown]
# **What you see.** All lose, and yours loses most: it keeps about half of its right answers, the
# shipped one about 87%. JPEG throws away fine detail and makes steps between its blocks;
# nothing in your training said what to trust then.
#
# ## What can go wrong
#
# - **Held-out images instead of held-out models.** Tested on new images of *training* models, any
#   classifier looks good. Split by architecture, with all seeds.
# - **No untrained opponent.** Chance is 10%, and half the way up needs no training at all.
# - **Batches without positives.** The triplet loss is then zero or missing, and no error says so.
# - **A collapse.** If all embeddings are equal, every gap is 0 and the triplet loss stays at the
#   margin. If a training begins so, a lower learning rate or a longer warm-up helps.
# - **A subject that gives the model away.** Share the scenes within a batch.
# - **A home win.** What is not in the training (JPEG, photographs, other kinds of generators) is
#   not in the result.
#
# ## Recap
#
# Cross-entropy names the training models, the triplet loss compares; both shape one embedding, and
# only that is kept. The triplet loss needs P x K batches. Trained on 70 small models, a
# network tells apart architectures that it never met, better than the same network untrained.
#
# ## Where to go next
#
# - **Another loss.** Set `loss="contrastive"`, which fpkit's own extractor uses: every positive
#   against *all* negatives of the batch. Here it does as well. With `random_share=0.5` (half of the
#   models random decoders, which have no class) it named 99% right in one run of 100 batches of
#   16 x 4, cross-entropy and triplet 91%.
# - **More variety.** `random_share=0.5` mixes in random decoders, `jpeg_share=0.5` JPEG files.
#   `FPKIT_BUDGET=full` trains longer, on a GPU if there is one.
# - **What a training needs to do well on real generators** is in `docs/attribution.md`, with an
#   ablation of one thing at a time in `benchmarks/ablation.md`.
# - **Lesson 07** takes an extractor and asks how far its scores can be trusted.
