# %% [markdown]
# # What can a map of embeddings tell, and what can it not?
#
# An embedding has 128 numbers. UMAP draws it as a point in the plane, with two, and many papers
# on attribution show such a picture. It is a good place to ask questions, and a bad one to find
# answers. In this lesson you draw maps of networks that the extractor never saw, and then
# catch the maps lying.

# %%
import numpy as np

import fpkit as fp
from fpkit import neighbours, pictures, projection, scatter, teach, widgets

budget = teach.budget()
teach.runtime_badge("08_the_map")

# %% [markdown]
# **You will be able to**
# - *draw* a map of embeddings and *explain* what UMAP looks at,
# - *measure* how much of the truth a map keeps,
# - *recognise* four things that such a map seems to show and does not,
# - *test* on the embeddings themselves whether a property of a network is in them.
#
# **You need** lesson 00 (embeddings, scores); lesson 07 helps. Numpy indexing. No GPU, no network.
#
# **It takes** 45 minutes.
#
# | word | meaning |
# |---|---|
# | map | coordinates in the plane, two for each image |
# | PCA | the flat shadow of a cloud of points, seen from where it is widest: a linear map |
# | UMAP | a map that tries to keep neighbours together, and bends everything else |
# | neighbours | of an image: those whose embeddings have the highest score with its own |
# | island | a clump of points on a map with empty space around it |
# | seed | the number that fixes all random draws |
#
# ## 1. Ten networks that the extractor never saw
#
# The extractor learnt from networks of many architectures, and some were kept out of its training.
# Ten of these are in the zoo. Each of them repaints its own scenes; no scene is used twice.

# %%
zoo, extractor = fp.Zoo.load(), fp.load_extractor(device=budget.device)
names = [n for n in zoo if n.split("/")[0] in extractor.card["held_out_architectures"]]
each = budget.choose(quick=30, full=100)
scenes = fp.procedural_images(len(names) * each, 144, seed=8).split(each)
print(f"{len(names)} networks, {each} images of each")

# %%
images = [zoo.apply(n, s)[..., 8:-8, 8:-8] for n, s in zip(names, scenes, strict=True)]
embeddings = np.concatenate([extractor.embed(i.to(budget.device)).cpu().numpy() for i in images])
models = np.repeat([n.split("/")[0] for n in names], each)
print("embeddings:", *embeddings.shape)

# %% [markdown]
# **Predict.** The names of the ten architectures say which share their upsampling (`U`), their
# activation (`A`) and so on. How many islands will the map have?
#
# <details><summary>Reveal</summary>
#
# Ten, one for each network. You might have expected three, one for each upsampling: networks that
# upsample alike have similar spectra. But the extractor was trained to tell every network from
# every other one.
# </details>

# %%
umap = projection.umap(embeddings, n_neighbors=15, seed=0)
teach.show(
    scatter.scatter_picture(umap, models, title="UMAP"),
    figure=scatter.scatter_figure(umap, models, size=(900, 460)),
)

# %%
own = neighbours.same_label(embeddings, models, k=15)
print(f"nearest 15 neighbours from the same network: {own.share:.0%} (by chance {own.chance:.0%})")

# %% [markdown]
# **What you see.** Ten islands, and hardly an image on a wrong one. The number below the map says
# the same without any map: it looks at the 128 numbers of every embedding. Get into the habit of
# asking for such a number. A map is a hint; this is the evidence.
#
# ## 2. What UMAP looks at
#
# UMAP first joins every point $i$ to its nearest neighbours $j$. The nearest one, at distance
# $r_i$, gets the weight 1, the others get
#
# $$w_{ij} = e^{-(d_{ij} - r_i) / s_i}$$
#
# and the width $s_i$ is chosen, for every point anew, so that its weights have a fixed sum. Then it
# lays the points out in the plane: joined points attract each other, all others repel each other.
# The original distances are not looked at any more.
#
# **Predict.** All points move ten times as far from each other. What happens to the weights?
#
# <details><summary>Reveal</summary>
#
# Nothing. $d_{ij} - r_i$ grows by ten, so $s_i$ must grow by ten too, and the weights stay as they
# are. The same happens if only *one* cluster becomes ten times as wide. Keep this in mind for
# section 5.
# </details>

# %%
indices, distances = neighbours.nearest(embeddings, 14)
graph = projection.neighbour_graph(indices, distances)
wider = projection.neighbour_graph(indices, 10 * distances)
print(f"largest change of a weight if all distances grow tenfold: {abs(graph - wider).max():.6f}")

# %%
foreign = models[:, None] != models
pairs = len(models) * (len(models) - 1) // 2
print(f"joined pairs: {(graph > 0).sum() // 2} of {pairs}")
print(f"weight between different networks: {graph[foreign].sum() / graph.sum():.1%}")

# %% [markdown]
# **What you see.** Of all pairs only a few per cent are joined at all, and those between two
# networks carry about one per cent of the weight. This is everything that the layout knows. About
# two networks that are not joined it knows *nothing*: whether they are near relatives or as
# different as can be, they repel each other in the same way.
#
# ## 3. An honest number for a map
#
# A map that is good at one thing should be judged by that thing: what share of the $k$ nearest
# neighbours of a point are still among its $k$ nearest on the map? First we need to know what no
# skill at all would give.

# %% [markdown]
# ### Exercise 1: predict what chance gives (3 minutes, easy)
#
# Write `chance(n, k)`: the share of the `k` nearest neighbours that a map of `n` points keeps on
# average if it puts all points at random places.
#
# <details><summary>Hint</summary>
#
# Fix one point. How many other points are there? `k` of them become its neighbours on the map, each
# with the same chance. And for `k = n - 1` everybody is a neighbour: the answer must be 1.
# </details>


# %%
### BEGIN SOLUTION
#: def chance(n, k):
#:     return ...  # your code here
def chance(n, k):
    return k / (n - 1)


### END SOLUTION


print("for our map:", chance(len(models), 15))
teach.check("map-chance", chance)

# %% [markdown]
# Expected: 0.0502 with 300 points.
#
# <details><summary>Solution</summary>
#
# ```python
# def chance(n, k):
#     return k / (n - 1)
# ```
# </details>

# %% [markdown]
# ### Exercise 2: measure what a map keeps (10 minutes, medium)
#
# Write `kept(points, coordinates, k)`: the mean over all points of the share of the `k` nearest
# neighbours among `points` (n, d) that are among the `k` nearest on the map `coordinates` (n, 2).
# Use Euclidean distances for both. A point is no neighbour of itself.
#
# <details><summary>Hint</summary>
#
# `np.linalg.norm(x[:, None] - x, axis=2)` has all distances of `x`. `np.argsort(..., axis=1)` sorts
# the indices of each row, and the first of them is the point itself. For two rows `a` and `b`,
# `len(set(a) & set(b))` counts what they share, in whatever order.
# </details>


# %%
### BEGIN SOLUTION
#: def kept(points, coordinates, k):
#:     return ...  # your code here
def kept(points, coordinates, k):
    def nearest(x):
        return np.argsort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, 1 : k + 1]

    rows = zip(nearest(points), nearest(coordinates), strict=True)
    return np.mean([len(set(a) & set(b)) / k for a, b in rows])


### END SOLUTION


print("UMAP keeps", kept(embeddings, umap, 15))
teach.check("neighbours-kept", kept)

# %% [markdown]
# Expected: about 0.76 for our map. (For vectors of length 1 Euclidean distances and scores have the
# same neighbours.)
#
# <details><summary>Solution</summary>
#
# ```python
# def kept(points, coordinates, k):
#     def nearest(x):
#         return np.argsort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, 1 : k + 1]
#
#     rows = zip(nearest(points), nearest(coordinates), strict=True)
#     return np.mean([len(set(a) & set(b)) / k for a, b in rows])
# ```
# </details>
#
# **Predict.** Which map keeps more neighbours: UMAP, or PCA, which is only a shadow?
#
# <details><summary>Reveal</summary>
#
# UMAP: it is made for that. PCA has no choice: what lies behind each other in the shadow falls
# together.
# </details>

# %%
linear = projection.pca(embeddings)
dice = np.random.default_rng(0).normal(size=umap.shape)
maps = {"UMAP": umap, "PCA": linear.coordinates, "random": dice}
teach.show(scatter.scatter_row(maps, models, size=215))

# %%
for name, coordinates in maps.items():
    share = projection.neighbours_kept(embeddings, coordinates, k=15).mean()
    trust = projection.trustworthiness(embeddings, coordinates, k=15)
    print(f"{name:7} neighbours kept {share:.0%}, trustworthiness {trust:.2f}")
print(f"PCA shows {linear.share.sum():.0%} of the variance")

# %% [markdown]
# **What you see.** UMAP keeps about three quarters of the neighbours, PCA about six in ten, and
# chance one in twenty. *Trustworthiness* is the measure that most papers print: it asks only how
# far away the *false* neighbours of the map truly are, so it lies near 1 for both maps, and a map
# without any skill gets 0.5. Always read it with that 0.5 in mind.
#
# ## 4. The first lie: distances between islands
#
# On the map some islands are close and some are far apart. Does that mean that their networks are
# more or less alike? We know the truth: the distances between the mean embeddings of the networks,
# 45 pairs for ten networks. Here are four maps of the same embeddings, which differ in the seed
# only; the layout starts at random places.
#
# **Predict.** How well do the distances between islands agree with the true ones: a correlation of
# about 0.9, about 0.5, or about 0?
#
# <details><summary>Reveal</summary>
#
# About 0. The layout was never told how far the networks are from each other.
# </details>

# %%
tries = {f"seed {s}": projection.umap(embeddings, start="random", seed=s) for s in range(4)}
teach.show(scatter.scatter_row(tries, models, legend=False, size=200))


# %%
def island_distances(points):
    centres = np.stack([points[models == name].mean(axis=0) for name in np.unique(models)])
    return neighbours.distances(centres, metric="euclidean")[np.triu_indices(len(centres), k=1)]


true = island_distances(embeddings)
candidates = tries | {"UMAP that starts from PCA": umap, "PCA": linear.coordinates}
for name, coordinates in candidates.items():
    print(f"{np.corrcoef(true, island_distances(coordinates))[0, 1]:5.2f}  {name}")

# %% [markdown]
# **What you see.** Every island keeps its points, and the islands sit somewhere else with every
# seed. The correlations of the random starts lie around 0. A start from PCA, which fpkit uses if
# you say nothing, saves some of the arrangement, and how much depends on the seed. The plain PCA,
# which loses at neighbours, wins here with more than 0.9. If your question is about distances
# between groups, ask the linear map, or better the distances themselves.
#
# ## 5. The second lie: the size of an island
#
# Three clouds in 20 dimensions, 100 points each: a narrow one, one 5 times as wide, and one 25
# times as wide.
#
# **Predict.** How large will the three islands be?
#
# <details><summary>Reveal</summary>
#
# Equally large. The widths $s_i$ of section 2 are fitted to each point's own surroundings: that
# takes the scale away, everywhere.
# </details>

# %%
generator = np.random.default_rng(0)
width = np.repeat([0.1, 0.5, 2.5], 100)[:, None]
clouds = 30 * np.repeat(np.eye(3, 20), 100, axis=0) + width * generator.normal(size=(300, 20))
flat = projection.umap(clouds, metric="euclidean")
sizes = [f"{w[0]:g}" for w in width]
maps = {"PCA": projection.pca(clouds).coordinates, "UMAP": flat}
teach.show(scatter.scatter_row(maps, sizes, size=230))


# %%
def sizes_of(points):
    return [np.linalg.norm(part - part.mean(axis=0), axis=1).mean() for part in np.split(points, 3)]


for name, points in {"true": clouds, "PCA": maps["PCA"], "UMAP": flat}.items():
    print(f"{name:5}", "".join(f"{size:8.2f}" for size in sizes_of(points)))

# %% [markdown]
# **What you see.** In truth and under PCA the widest cloud is more than 20 times as large as
# the narrowest; under UMAP all three have the same size. So a small island is *not* a network that
# paints consistently, and a large one is not a network of many styles.
#
# ## 6. The third lie: islands out of nothing
#
# 300 points drawn from *one* Gaussian in 3 dimensions. There are no groups in it.
#
# **Predict.** What will `n_neighbors` change on the map: 3, 5, or 30 of them?
#
# <details><summary>Reveal</summary>
#
# With few neighbours the graph falls apart into pieces that are hardly joined, and the layout
# pushes the pieces away from each other. With many it holds together.
# </details>

# %%
noise = np.random.default_rng(0).normal(size=(300, 3))
maps = {
    f"n_neighbors = {k}": projection.umap(noise, n_neighbors=k, metric="euclidean")
    for k in (3, 5, 30)
}
teach.show(scatter.scatter_row(maps, ["noise"] * 300, legend=False, size=230))

# %%
for name, coordinates in maps.items():
    share = projection.neighbours_kept(noise, coordinates, k=15, metric="euclidean").mean()
    print(f"{name}: {share:.0%} of the 15 nearest neighbours kept")

# %% [markdown]
# **What you see.** Islands and filaments out of noise with few neighbours, a round blob with many.
# Look at the share of neighbours kept as well: it does *not* warn you. A map of noise may keep half
# of them or more, because points of low dimension are easy to lay out. What warns you is that the
# islands dissolve when `n_neighbors` grows. Those of section 1 don't: try it in section 8.
#
# ## 7. The fourth lie: colours
#
# Now colour the map of section 1 by properties of the networks. Is the activation in the
# embeddings? Is the upsampling? And, as a control, a property without any meaning: for each network
# a coin was tossed.

# %%
specs = {name: fp.ArchSpec.parse(name) for name in np.unique(models)}
axes = ["upsample", "blocks", "layers", "activation", "norm", "order"]
labels = {axis: np.array([str(getattr(specs[m], axis)) for m in models]) for axis in axes}
coin = dict(zip(specs, np.random.default_rng(1).choice(["head", "tail"], len(specs)), strict=True))
labels["coin"] = np.array([str(coin[m]) for m in models])

# %% [markdown]
# **Predict.** For which of the three will the nearest neighbours of an image carry the same label?
#
# <details><summary>Reveal</summary>
#
# For all three. The nearest neighbours of an image come from the same network, and a network has
# one upsampling, one activation, and one coin.
# </details>

# %%
shown = ["upsample", "activation", "coin"]
parts = [scatter.scatter_picture(umap, labels[a], title=a, size=200, legend=False) for a in shown]
panels = [pictures.Cell(values=np.asarray(part) / 255) for part in parts]
teach.show(pictures.montage({"": panels}, cell_size=parts[0].height))

# %%
for axis, values in labels.items():
    found = neighbours.same_label(embeddings, values, k=15)
    print(f"{axis:10} same label {found.share:.0%}, by chance {found.chance:.0%}")

# %% [markdown]
# **What you see.** Clean colours (which colour is which does not matter here, the map in section 8
# has their names) and 99 to 100% for everything, the coin included. Such a map proves nothing about
# upsampling: it repeats that images of one network lie together. The fair question leaves the own
# network out: does the nearest image *of another network* share the label?

# %% [markdown]
# ### Exercise 3: find the nearest stranger (10 minutes, medium)
#
# Write `nearest_stranger(scores, models)`: for each image the **index** of the image with the
# highest score among those of *other* models. `scores` is (n, n), `models` an array of n names.
# Leave `scores` as it is.
#
# <details><summary>Hint</summary>
#
# `models[:, None] == models` is True for pairs of one model. `np.where(condition, -np.inf, scores)`
# is a copy in which they can never win; `argmax(axis=1)` does the rest. Multiplying by 0 instead
# goes wrong where scores are negative.
# </details>


# %%
### BEGIN SOLUTION
#: def nearest_stranger(scores, models):
#:     return ...  # your code here
def nearest_stranger(scores, models):
    return np.where(models[:, None] == models, -np.inf, scores).argmax(axis=1)


### END SOLUTION


teach.check("nearest-stranger", nearest_stranger)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nearest_stranger(scores, models):
#     return np.where(models[:, None] == models, -np.inf, scores).argmax(axis=1)
# ```
# </details>
#
# fpkit has this test built in: `groups` says whose neighbours do not count. As there are only ten
# networks, we also ask how often pure luck would do as well: deal the labels of an axis to the ten
# networks anew, 1000 times, and count the deals whose share is at least as high. That is a
# permutation test, and its unit is the *network*, not the image.

# %%
strange = np.where(models[:, None] == models, -np.inf, embeddings @ embeddings.T).argmax(axis=1)
name, number = np.unique(models, return_inverse=True)
generator = np.random.default_rng(0)
for axis, values in labels.items():
    dealt = np.array([values[models == m][0] for m in name])
    deals = np.array([generator.permutation(dealt)[number] for _ in range(1000)])
    luck = (deals[:, strange] == deals).mean(axis=1)
    found = neighbours.same_label(embeddings, values, groups=models, k=1).share
    as_good = (luck >= found - 1e-9).mean()
    print(f"{axis:10} same label {found:4.0%}, luck {luck.mean():3.0%}, as good: {as_good:6.1%}")

# %% [markdown]
# **What you see.** Two axes stand out: the number of *blocks* (100%) and the *upsampling* (90%)
# are in the embeddings beyond the identity of the network. That fits lesson 02: they place the
# lattice of copies in the spectrum and say how strong the copies are. Luck does as well as
# *upsampling* in fewer than one of a hundred deals, and as *blocks* in one or two: with seven axes
# on trial that is worth a repetition with other networks. Layers, activation and order cannot be
# told from luck; neither can the coin. And normalisation does *worse* than luck, 0%: among these
# ten, networks that resemble each other happen to differ in it. Ten networks are few, and "not
# shown" is not "not there".
#
# ## 8. A map to look into
#
# Hover over a point, or type its number: you see the image, its spectrum, and its *true* neighbours
# with their distances. Draw a lasso around an island, or choose a label from **select**: the
# figures of the selection come from the embeddings, not from the map. The line below the controls
# always says how many neighbours the map keeps.

# %%
columns = {"model": models} | {axis: labels[axis] for axis in axes}
viewer = widgets.EmbeddingMap(embeddings, columns, np.concatenate(images))
viewer

# %% [markdown]
# The same from code. We select all images of one upsampling and look at one image.

# %%
viewer.colour_by, viewer.point = "upsample", 5
print(viewer.select("bilinear"))
teach.show(viewer.static())

# %% [markdown]
# **What you see.** Networks with bilinear upsampling score about 0.7 with each other and 0.3 with
# the rest, so they are relatives; on the map their islands are neighbours at best by luck. The
# spectrum of the chosen image belongs to a single image, so it is noisy: a fingerprint is an
# average.
#
# **Try.** Move *neighbours* up to 100: the islands stay, unlike those of section 6. Move it down to
# 3: pieces break off some of them, and these pieces mean nothing. Then go back to 15, change
# *start* to random and step through the seeds: which islands that looked like neighbours part?
# Choose the method PCA and find two networks that it cannot separate and UMAP can.
#
# ## What can go wrong
#
# - **Choosing the prettiest map.** With a seed, `n_neighbors` and `min_dist` there are hundreds of
#   maps to choose from. Fix them before you look, and show a second seed.
# - **Clustering on the map.** An algorithm that finds groups on the map finds the lies too. Cluster
#   the embeddings.
# - **One image set for everything.** If every network paints its own subject, the islands may be
#   subjects. Here each network has scenes of the same kind.
# - **Counting images as evidence.** 300 images of ten networks are ten pieces of evidence about
#   networks, not 300. Leave the own group out, and shuffle groups.
# - **Another machine.** With the same seed and the same machine the map is the same. Elsewhere
#   rounding differs, and the islands may end up in other places.
#
# ## Recap
#
# UMAP keeps neighbours: about three quarters of them here, against one in twenty by chance. It
# keeps neither the distances between islands nor their sizes, it makes islands out of noise if
# `n_neighbors` is small, and its colours look clean for every label that follows from the group.
# Each of these has a number that tells the truth: neighbours kept, distances of the embeddings,
# another `n_neighbors`, and a test that leaves the own group out.
#
# ## Where to go next
#
# - **Real generators** and how they are related: lesson 09.
# - **Your own images**: lesson 10 enrols them; `widgets.EmbeddingMap` takes any embeddings.
# - **The code**: `fpkit/projection.py` has the graph of section 2, `fpkit/neighbours.py` the
#   test of section 7.
