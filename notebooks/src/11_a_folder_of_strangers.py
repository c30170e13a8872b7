# %% [markdown]
# # A folder of strangers: how many networks made it, and do we know any?
#
# Until now every image came with a name, or was asked about beside images that had one. A moderator
# has neither: a folder of images from everywhere, and the question how many networks are at work
# in it, and which images belong together. Here you sort such a folder, find out how good a sorting
# is, choose where to cut, and compare what you found with the networks that you know.

# %%
import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

import fpkit as fp
from fpkit import discovery, estimators, pictures, projection, scatter, teach, verdicts

budget = teach.budget()
teach.runtime_badge("11_a_folder_of_strangers")

# %% [markdown]
# **You will be able to**
# - *embed* a folder with a scikit-learn estimator and *see* groups in its scores,
# - *judge* a grouping by a number that chance cannot raise,
# - *choose* where to cut without looking at the folder,
# - *compare* whole groups with a gallery, and *tell* new networks from known ones.
#
# **You need** lesson 07; lesson 08 for the map.
#
# **It takes** 50 minutes.
#
# | word | meaning |
# |---|---|
# | group, cluster | images that a method puts together; it gives numbers, not names |
# | maker | the network that made an image: the truth, which a real folder does not tell |
# | purity | share of the images whose maker is the commonest one of their group |
# | adjusted Rand index | agreement of groups with the truth over pairs: 0 by chance, 1 perfect |
# | linkage | how far apart two groups are, computed from their images |
# | outlier | an image that is like no other |

# %% [markdown]
# ## 1. A folder without names
#
# Ten networks made it: six synthetic models that the extractor never saw, and four random decoders.
# Every image shows a scene of its own, and the files are numbered at random. `truth` is kept aside
# to judge with; nothing that sorts the images may look at it.

# %%
extractor, zoo = fp.load_extractor(), fp.Zoo.load()
held_out = set(extractor.card["held_out_architectures"])
unseen = [name for name in zoo.model_ids if name.split("/")[0] in held_out]
makers = [*unseen[:6], 0, 1, 2, 3]  # a name: of the zoo; a number: a random decoder


def images_of(maker, count, seed):
    from torch import Generator

    scenes = fp.procedural_images(count, 192, seed=seed)
    if isinstance(maker, str):
        made = zoo.apply(maker, scenes)
    else:
        made = fp.RandomDecoder(maker)(scenes, generator=Generator().manual_seed(0))
    return made[..., 16:-16, 16:-16]


# %%
def write_folder(makers, each, seed):
    from tempfile import TemporaryDirectory

    place = TemporaryDirectory(prefix="strangers")  # it goes when the kernel does
    truth = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(makers)), each))
    for k, maker in enumerate(makers):
        numbers = np.flatnonzero(truth == k)
        for number, image in zip(numbers, images_of(maker, each, seed + k), strict=True):
            fp.images.write_png(f"{place.name}/{number:03d}.png", image)
    return place, truth


each = budget.choose(quick=16, full=48)
folder, truth = write_folder(makers, each, seed=100)
files = [f"{folder.name}/{number:03d}.png" for number in range(len(truth))]
embeddings = estimators.FingerprintTransformer(extractor).fit_transform(files)
print("images, numbers per embedding:", *embeddings.shape)

# %% [markdown]
# `FingerprintTransformer` is an estimator of scikit-learn: file names in, one row per image out, to
# be put before anything that scikit-learn has. For a million images there is
# `fpkit embed FOLDER --out DIR`, which goes on where it was stopped.
#
# **Predict.** Draw the score of every pair of images as a picture. What will you see with the
# images in the order of the folder? And in the order of their makers?
#
# <details><summary>Reveal</summary>
#
# Salt and pepper in the order of the folder. In the order of the makers ten bright squares along
# the diagonal, and fainter ones off it where two makers are relatives. It is the same matrix: the
# groups are in it either way, only the eye needs the order. To find such an order is what
# clustering does.
# </details>

# %%
scores = embeddings @ embeddings.T
order = np.argsort(truth, kind="stable")
step = len(truth) // 80  # at most 80 images are drawn
views = [scores[::step, ::step], scores[np.ix_(order, order)][::step, ::step]]
cells = [pictures.Cell(values=view, limits=(0, 1)) for view in views]
titles = ["order of the folder", "order of the makers"]
teach.show(pictures.montage({"": cells}, columns=titles, cell_size=320, bar=(0, 1, "score")))

# %% [markdown]
# **What you see.** Ten squares, as said, some brighter than others: not every network repeats
# itself equally well. And pairs of squares that are joined: relatives.
#
# ## 2. What is a good grouping?
#
# A grouping gives every image a number. The numbers are no names: 3 for one network and 7 for
# another is as good as the other way round. So a grouping cannot be "right for 80% of the images"
# as an identification is. A popular figure is the **purity**: in every group count the images of
# its commonest maker, add up over the groups, divide by the number of images.
#
# ### Exercise 1: count what is pure (8 minutes, easy)
#
# Write `purity(truth, found)` for two arrays with a maker and a group for every image.
#
# <details><summary>Hint</summary>
#
# `np.unique(truth[found == group], return_counts=True)[1]` has how many images of each maker
# a group holds.
# </details>


# %%
### BEGIN SOLUTION
#: def purity(truth, found):
#:     return ...  # your code here
def purity(truth, found):
    right = 0
    for group in np.unique(found):
        right += np.unique(truth[found == group], return_counts=True)[1].max()
    return right / len(truth)


### END SOLUTION


teach.check("purity", purity)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def purity(truth, found):
#     right = 0
#     for group in np.unique(found):
#         right += np.unique(truth[found == group], return_counts=True)[1].max()
#     return right / len(truth)
# ```
# </details>
#
# **Predict.** Which grouping has the purity 1 without any knowledge?
#
# <details><summary>Reveal</summary>
#
# Every image alone: each group of one is pure. Whoever reports purity alone is paid for cutting
# too much.
# </details>

# %%
generator = np.random.default_rng(0)
groupings = {
    "every image alone": np.arange(len(truth)),
    "all in one": np.zeros(len(truth), dtype=int),
    "ten groups at random": generator.integers(10, size=len(truth)),
    "forty groups at random": generator.integers(40, size=len(truth)),
    "the truth": truth,
}
for name, grouping in groupings.items():
    print(f"{name:24s} purity", purity(truth, grouping))

# %% [markdown]
# **What you see.** 1.0 for every image alone, as much as for the truth; and forty random groups
# look much better than ten random ones. A figure must ask for both: images of one maker *together*,
# images of two makers *apart*. The pairs of images know both. Count over all pairs $i < j$
#
# - $b$, in one group *and* of one maker,
# - $t$, of one maker, and $f$, in one group.
#
# If groups had nothing to do with makers, a share $t/p$ of the $f$ pairs would be of one maker by
# chance, with $p$ the number of all pairs. The **adjusted Rand index** is what exceeds that, as a
# share of what could exceed it:
#
# $$\mathrm{ARI} = \frac{b - tf/p}{(t + f)/2 - tf/p}$$
#
# ### Exercise 2: let chance count for nothing (12 minutes, medium)
#
# Write `adjusted_rand(truth, found)`.
#
# <details><summary>Hint</summary>
#
# `i, j = np.triu_indices(len(truth), k=1)` are all pairs once; `truth[i] == truth[j]` says of each
# whether it has one maker.
# </details>


# %%
### BEGIN SOLUTION
#: def adjusted_rand(truth, found):
#:     return ...  # your code here
def adjusted_rand(truth, found):
    i, j = np.triu_indices(len(truth), k=1)
    made, put = truth[i] == truth[j], found[i] == found[j]
    chance = made.sum() * put.sum() / len(i)
    return (np.sum(made & put) - chance) / ((made.sum() + put.sum()) / 2 - chance)


### END SOLUTION


for name, grouping in groupings.items():
    print(f"{name:24s} adjusted Rand index", adjusted_rand(truth, grouping))
teach.check("adjusted-rand", adjusted_rand)

# %% [markdown]
# Expected: 0 for the first two, near 0 for the groups at random (a little below or above), 1 for
# the truth.
#
# <details><summary>Solution</summary>
#
# ```python
# def adjusted_rand(truth, found):
#     i, j = np.triu_indices(len(truth), k=1)
#     made, put = truth[i] == truth[j], found[i] == found[j]
#     chance = made.sum() * put.sum() / len(i)
#     return (np.sum(made & put) - chance) / ((made.sum() + put.sum()) / 2 - chance)
# ```
# </details>

# %% [markdown]
# ## 3. Where to cut
#
# **Agglomerative clustering** begins with every image alone and merges, again and again, the two
# groups that are nearest to each other. With *average linkage* their distance is the mean of
# 1 - score over all pairs of an image of the one and an image of the other. It stops when no two
# groups are nearer than a threshold. So the number of networks is not put in; it comes out, and the
# threshold decides.
#
# Where does the threshold come from? Not from this folder: its truth would not be known, and if it
# were, we would choose what flatters (lesson 07). From *another* folder, of networks that have
# nothing to do with this one: ten random decoders.

# %%
practice_makers = range(100, 110)
practice = extractor.embed(
    [image for k in practice_makers for image in images_of(k, each, seed=200 + k)]
).numpy()
practice_truth = np.repeat(practice_makers, each)


def cut(embeddings, threshold):
    method = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=threshold
    )
    return method.fit_predict(embeddings)


thresholds = np.arange(0.02, 1, 0.02)
curves = {
    name: [adjusted_rand_score(makers_of, cut(rows, t)) for t in thresholds]
    for name, rows, makers_of in (
        ("practice folder", practice, practice_truth),
        ("our folder", embeddings, truth),
    )
}
lines = {name: (thresholds, values) for name, values in curves.items()}
teach.show(pictures.line_chart(lines, x_label="threshold", y_label="adjusted Rand index"))

# %%
chosen = thresholds[np.argmax(curves["practice folder"])]
groups = cut(embeddings, chosen)
print(f"threshold {chosen:.2f}: {len(set(groups))} groups", end=", ")
print(f"adjusted Rand index {adjusted_rand_score(truth, groups):.2f}")
print(f"with the best threshold for our folder: {max(curves['our folder']):.2f}")

# %% [markdown]
# **What you see.** Left of the peak networks fall apart into several groups, right of it relatives
# are merged, and in the end everything. The peak of the practice folder lies elsewhere than that of
# ours: random decoders repeat themselves less faithfully than trained networks (lesson 07 met the
# same), so their threshold is larger. It costs a few points: 0.84 instead of 0.89. Nobody
# who has to sort a real folder could have chosen the 0.89.

# %% [markdown]
# ## 4. What fpkit does
#
# `fpkit.discovery` merges groups up to a threshold, too. What it does besides:
#
# - It looks along the directions in which images of *one* model differ little, measured on
#   synthetic models; distances along these count more.
# - It looks from the middle of the groups that it found, and does so three times: real generators
#   have traits in common that no synthetic model has, and from afar they all look alike.
# - A group counts as eight images at most, so that one threshold fits small groups and large ones.
# - The threshold comes from many practice folders of synthetic models, large and small, PNG and
#   JPEG.
#
# An image that is like no other gets the label -1: an **outlier**. `discover` never sees the truth.

# %%
found = discovery.discover(embeddings)
print(f"{len(found.clusters)} groups, {len(found.alone)} outliers", end=", ")
print(f"adjusted Rand index {adjusted_rand_score(truth, found.labels):.2f}")
title = [m.split("/")[0] if isinstance(m, str) else f"random decoder {m}" for m in makers]
for k, cluster in enumerate(found.clusters):
    counts = np.bincount(truth[cluster.images], minlength=len(makers))
    inside = ", ".join(f"{counts[m]} of {title[m]}" for m in np.argsort(-counts) if counts[m])
    print(f"group {k}: {inside}")

# %%
shown = np.array(["alone" if label < 0 else f"group {label}" for label in found.labels])
plane = projection.umap(found.vectors, n_neighbors=10, seed=0)
teach.show(
    scatter.scatter_picture(plane, shown, title="UMAP, groups as found"),
    figure=scatter.scatter_figure(plane, shown, size=(900, 460)),
)

# %% [markdown]
# **What you see.** Ten groups for ten networks, one image of 160 in the wrong one: 0.99. Compare
# the map of lesson 08: islands are nice to look at, but it was this clustering that counted them,
# along more than two directions. And do not be dazzled: this is the easy case, synthetic models of
# the kind that the directions and the threshold were measured on. On real generators it is about
# 0.6 for lossless images, in too many groups rather than too few, and 0.2 for JPEG
# (`docs/corpora.md`; `benchmarks/discover.py` measures it).
#
# ## 5. Do we know any of them?
#
# Groups have numbers. To give them names we need a gallery: six networks are enrolled by five
# images each. Three of them took part in the folder, with other images; three did not.

# %%
gallery = fp.Gallery(extractor.hash, extractor.dim)
known = [*unseen[1:6:2], *unseen[6:9]]
for k, maker in enumerate(known):
    gallery.enrol(maker.split("/")[0], extractor.embed(images_of(maker, 5, seed=400 + k)))
print("\n".join(gallery.models))

# %% [markdown]
# **Predict.** We may ask for every image by itself, or for every group as a whole, by the mean of
# its embeddings. Which gives more answers at the same rate of false ones?
#
# <details><summary>Reveal</summary>
#
# The groups. What one scene adds to its embedding goes another way than what the next one adds, so
# in the mean the scenes go out and the fingerprint stays. A verdict knows how many crops an
# embedding is made of, and dares more with more of them.
# </details>
#
# ### Exercise 3: one embedding per group (10 minutes, medium)
#
# Write `group_means(embeddings, labels)`: a dictionary from every label to the mean of the rows
# with that label, scaled to length 1. Outliers (-1) are no group.
#
# <details><summary>Hint</summary>
#
# `labels == label` picks the rows of a group, `np.linalg.norm` is the length of a vector.
# </details>


# %%
### BEGIN SOLUTION
#: def group_means(embeddings, labels):
#:     return ...  # your code here
def group_means(embeddings, labels):
    means = {}
    for label in set(labels.tolist()) - {-1}:
        mean = embeddings[labels == label].mean(axis=0)
        means[label] = mean / np.linalg.norm(mean)
    return means


### END SOLUTION


teach.check("group-means", group_means)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def group_means(embeddings, labels):
#     means = {}
#     for label in set(labels.tolist()) - {-1}:
#         mean = embeddings[labels == label].mean(axis=0)
#         means[label] = mean / np.linalg.norm(mean)
#     return means
# ```
# </details>
#
# `discover` has these means as `cluster.template`, and with a gallery it gives a verdict on each of
# them: `like NAME`, `new`, or `unsure`. First the images one by one, then the groups.

# %%
judge = verdicts.stored_verdicts(extractor.card, extractor_hash=extractor.hash)
conditions = verdicts.Conditions(crops=2, jpeg=False)  # of an image of 160 x 160 pixels
answers = gallery.identify(embeddings)
said = [judge.identify(answer, gallery, conditions, far=0.05).answer for answer in answers]
in_gallery = np.isin([title[m] for m in truth], gallery.models)
for what, chosen in {"enrolled": in_gallery, "not enrolled": ~in_gallery}.items():
    counts = {word: np.mean(np.array(said)[chosen] == word) for word in set(said)}
    shares = ", ".join(f"{share:.0%} {word}" for word, share in sorted(counts.items()))
    print(f"images of networks that are {what}: {shares}")
right = np.array([answer.model == title[m] for answer, m in zip(answers, truth, strict=True)])
print(f"named rightly, of those called same: {right[np.array(said) == 'same'].mean():.0%}")

# %%
found = discovery.discover(embeddings, gallery=gallery, crops=2, far=0.05)
for k, cluster in enumerate(found.clusters):
    maker = title[np.bincount(truth[cluster.images]).argmax()]
    print(f"group {k}, {len(cluster.images):2d} images: {cluster.answer:40s} truth: {maker}")

# %% [markdown]
# **What you see.** One by one nearly all images of enrolled networks are named, and rightly. Of the
# others none is named, but two in five stay unsure: an image is too little to say *new*. The groups
# say more: those of the enrolled networks are named, most of the others are called new. Those that
# stay unsure have relatives in the gallery, which upsample in the same way; no number of images
# makes a relative a stranger.
#
# ## 6. Give the new ones a number, and go on
#
# A group that nobody knows is a network all the same. Enrol the groups themselves, and the next
# folder can be sorted by them: `GalleryClassifier`, again an estimator of scikit-learn, takes the
# labels for names. Here are four more images of every maker.

# %%
together = found.labels >= 0
classifier = estimators.GalleryClassifier().fit(embeddings[together], found.labels[together])
later = np.repeat(np.arange(len(makers)), 4)
images = [image for k, maker in enumerate(makers) for image in images_of(maker, 4, seed=500 + k)]
sorted_into = classifier.predict(extractor.embed(images).numpy())
print(f"adjusted Rand index {adjusted_rand_score(later, sorted_into):.2f}")

# %% [markdown]
# **What you see.** New images are sorted into the groups nearly without error, though nobody has a
# name for six or seven of them. Names can come later.
#
# The same from a shell, and for folders of any size:
#
# ```sh
# fpkit embed FOLDER --out DIR
# fpkit discover DIR
# ```
#
# ## What can go wrong
#
# - **Groups of subjects, sizes or formats.** Whatever makes images alike makes a group: one JPEG
#   quality, one size, one series of faces. Look at the images of a group, and at their formats,
#   before you call it a network.
# - **A group is not a network.** Fine-tunes that share a decoder share a group; one network with
#   two samplers or two export settings may have two.
# - **Photographs.** They were made by no network, and cameras and photo programs leave traces as
#   well: they form groups of their own, or are outliers.
# - **"New" means new to the gallery.** It does not say that nobody else knows the network.
# - **A count is an estimate.** The number of groups depends on the threshold; say which one it was
#   and where it comes from, and report the adjusted Rand index on folders of known truth beside it.
#
# ## Recap
#
# Scores hold the groups whatever the order. Purity can be bought by cutting, the adjusted Rand
# index cannot. The threshold comes from other networks than those that are judged. Ask about
# groups, not about images: a mean has lost the scenes. Name what is known, number what is new.
#
# ## Where to go next
#
# - A folder of your own: `fpkit discover --help`; it writes a map to hover over, with pictures of
#   the most typical images.
# - How well it does on real generators, and with a million images: `docs/corpora.md`.
# - `fpkit.estimators` in your own pipelines: cross-validation, grids, tables of pandas and pyarrow.
