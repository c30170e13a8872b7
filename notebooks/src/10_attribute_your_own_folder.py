# %% [markdown]
# # Which network made the images in your folder?
#
# You have a folder of images for each of some generators, and new images whose maker you want to
# know. In this lesson you do the whole job: look at the folder, enrol its models, measure
# honestly how far the answers can be trusted, let the computer say "unsure", and write it down.

# %%
from pathlib import Path

import numpy as np
import PIL.Image

import fpkit as fp
from fpkit import evidence, pictures, spectral_correlation, teach, verdicts, widgets

budget = teach.budget()
teach.runtime_badge("10_attribute_your_own_folder")

# %% [markdown]
# **You will be able to**
# - *inspect* a folder of images for what gives models away without any fingerprint,
# - *enrol* models and *identify* new images, with "unsure" as a possible answer,
# - *measure* how often the answers are right, for enrolled models and for strangers,
# - *report* the result so that no reader is misled.
#
# **You need** lessons 00 and 07; lesson 09 if your images come from real generators.
#
# **It takes** 60 minutes.
#
# | word | meaning |
# |---|---|
# | enrol | show a few images of a model, so that its template is in the gallery |
# | probe | an image whose model is asked for |
# | give-away | what tells models apart and is no fingerprint: format, size, subject |
# | stranger | a model that nobody enrolled, and whose images are asked about all the same |
# | verdict | *same*: the named model made it; *different*: none of the enrolled did; or *unsure* |
# | likelihood ratio | how many times likelier a score is if the answer is yes than if it is no |

# %% [markdown]
# ## 1. Look before you attribute
#
# Everywhere in fpkit a data set is a folder that holds one folder of images per model. Without one
# of your own, the next cell makes one: ten synthetic models that the extractor never saw in its
# training. One of them is saved as JPEG, and one file is damaged, as happens in real folders.
#
# **Your own images** (at least five models of one format and size, six images of each): give their
# folder instead of `None` and run everything again (then the
# numbers in the text below, which speak of the folder made here, are not yours).

# %%
my_folder = None  # for example "../my_generators"

zoo, extractor = fp.Zoo.load(), fp.load_extractor()
held_out = set(extractor.card["held_out_architectures"])
unseen = [name for name in zoo.model_ids if name.split("/")[0] in held_out]


# %%
def example_folder(each):
    from tempfile import TemporaryDirectory

    place = TemporaryDirectory(prefix="generators")  # it goes when the kernel does
    for number, model in enumerate(unseen):
        folder = Path(place.name, model.split("/")[0])
        folder.mkdir()
        scenes = fp.procedural_images(each, 192, seed=number)
        for i, image in enumerate(zoo.apply(model, scenes)[..., 16:-16, 16:-16]):
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            file = folder / (f"{i:02d}.jpg" if number == 3 else f"{i:02d}.png")
            PIL.Image.fromarray(pixels).save(file, quality=85)
    (folder / "damaged.png").write_bytes(b"\x89PNG, and then nothing")
    return place


made = example_folder(budget.choose(quick=12, full=48)) if my_folder is None else None
folder = Path(my_folder or made.name)

# %% [markdown]
# Format and size are in the head of every file. `fp.list_models` finds the files; those that
# cannot be read are named, not hidden.

# %%
facts, damaged = {}, []
for model, paths in fp.list_models(folder).items():
    facts[model] = []
    for path in paths:
        try:
            with PIL.Image.open(path) as image:
                facts[model].append((image.format, *image.size))
        except OSError:
            damaged.append(f"{model}/{path.name}")

for model, rows in facts.items():
    print(f"{len(rows):3d} images  {str(sorted(set(rows))):22s}  {model}")
print("cannot be read:", damaged)

# %% [markdown]
# **Predict.** A model whose images alone are JPEG: will it be recognised more or less often than
# the others?
#
# <details><summary>Reveal</summary>
#
# More often, and for the wrong reason. JPEG rounds the frequencies of blocks of 8 x 8 pixels, which
# changes every spectrum in the same way. Among PNG images that change names the *file format*; as
# soon as a second model comes as JPEG, the two are mixed up.
# </details>

# %% [markdown]
# ### Exercise 1: find the give-aways (10 minutes, easy)
#
# Write `give_aways(facts)`: the names of the models that share no (format, width, height) with any
# other model, so that the files alone give them away. `facts` is the dictionary above.
#
# <details><summary>Hint</summary>
#
# `set(a) & set(b)` has what two lists share; an empty set counts as false. `any(...)` over all
# other models says whether there is one that shares something.
# </details>


# %%
### BEGIN SOLUTION
#: def give_aways(facts):
#:     return ...  # your code here
def give_aways(facts):
    def shares(name, other):
        return set(facts[name]) & set(facts[other])

    return [n for n in facts if not any(shares(n, other) for other in facts if other != n)]


### END SOLUTION

teach.check("give-aways", give_aways)

# %% [markdown]
# Expected: for the folder made here, the one model that was saved as JPEG.

# %%
print("gives itself away:", give_aways(facts))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def give_aways(facts):
#     def shares(name, other):
#         return set(facts[name]) & set(facts[other])
#
#     return [n for n in facts if not any(shares(n, other) for other in facts if other != n)]
# ```
# </details>
#
# The honest cure: treat all images alike. Either compare PNG with PNG only, or send everything
# through the same JPEG first (`fpkit bench --recompress 90`). From here on we leave such models
# out.

# %%
counted = {model: set(rows) for model, rows in facts.items()}
common = [m for m in counted if any(counted[m] & counted[o] for o in counted if o != m)]
paths = {model: fp.list_models(folder)[model] for model in common}
skipped = []
pictures_of = {
    model: [image for _, image in fp.read_images(files, on_error=skipped.append)]
    for model, files in paths.items()
}
fewest = min(map(len, pictures_of.values()), default=0)
if len(common) < 5 or fewest < 6:
    found = f"{len(common)} models, the smallest with {fewest} images"
    raise ValueError(f"got {found}: take 5 models of one format and size, 6 images of each")
print(f"{len(common)} models, {sum(map(len, pictures_of.values()))} images")
print("skipped:", [str(error).split("/")[-1] for error in skipped])

# %%
first = [pictures_of[model][0][:, :128, :128] for model in common[:8]]
teach.show(pictures.montage({"": first}, columns=[m[:11] for m in common[:8]], cell_size=96))

# %% [markdown]
# ## 2. Is it the model, or the subject?
#
# If one generator made faces and another one cats, a method that knows nothing of fingerprints
# would look brilliant. So ask such a method as well: `colour` compares colour histograms.
# `fpkit.bench` enrols some images of every model, asks for the others, and repeats that with
# other draws.

# %%
methods = ("extractor", "spectrum", "colour")
draws = budget.choose(quick=5, full=20)
result = fp.bench(folder, methods=methods, draws=draws, format="png", progress=False)
for method in methods:
    figures = result["methods"][method]
    print(f"{method:10s} right for {figures['identification']['5']['mean']:4.0%}", end=" ")
    print(f"of the probes; pairs: AUC {figures['auc']:.2f}")

# %% [markdown]
# **What you see.** By chance one in nine probes would be named rightly, 11%. Colours reach two to
# three times that: something of a model's brightness and contrast stays in a histogram. The
# extractor names nearly every probe rightly. That is the *easy* case, synthetic models of the kind
# it was trained on; on 38 real generators it is right for 72% of PNG probes with five images
# enrolled (README). If `colour` comes near `extractor` in your folder, your models differ in what
# they show, and nothing is proved yet.

# %% [markdown]
# ## 3. Enrol, ask, and allow "unsure"
#
# Identification always names *somebody*. A verdict may also say that none of the enrolled models
# made the image, or that it cannot tell. It begins with a **likelihood ratio**: how many times
# likelier is such a score if the named model made the image than if none did? Far above 1 the
# answer is `"same"`, far below `"different"`, in between `"unsure"`. *You* name the price: at a
# false-accept rate of 5%, "same" begins where 5% of the images of models that were not enrolled
# get. The ratios and rates come from synthetic models that no training saw
# (`fpkit.verdicts`); real generators differ from them, and README says by how much.
#
# ### Exercise 2: split honestly (10 minutes, medium)
#
# Write `split(count, k, generator)`: of `count` images, the places of `k` to enrol, drawn at
# random by the numpy `generator`, and the places of all others, to ask about. Why at random? The
# first files of a folder are often alike: one series, one subject, one day.
#
# <details><summary>Hint</summary>
#
# `generator.permutation(count)` has every place once, in random order.
# </details>


# %%
### BEGIN SOLUTION
#: def split(count, k, generator):
#:     return ...  # your code here
def split(count, k, generator):
    order = generator.permutation(count)
    return order[:k], order[k:]


### END SOLUTION

teach.check("split", split)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def split(count, k, generator):
#     order = generator.permutation(count)
#     return order[:k], order[k:]
# ```
# </details>
#
# Now enrol six models by five images each. The last three stay strangers, so that we see what
# happens to images that none of the enrolled models made.

# %%
generator = np.random.default_rng(0)
gallery, probes, seen, truth = fp.Gallery(extractor.hash, extractor.dim), [], [], []
enrolled = common[: max(1, len(common) - 3)]
for model in common:
    embeddings = extractor.embed(pictures_of[model]).numpy()
    order = generator.permutation(len(embeddings))
    if model in enrolled:
        gallery.enrol(model, embeddings[order[:5]])
    probes.append(embeddings[order[5:]])
    asked = [pictures_of[model][i] for i in order[5:]]
    seen += [evidence.gather_evidence(image, crop=128, grid=4) for image in asked]
    truth += [model] * (len(embeddings) - 5)

# %%
answers = gallery.identify(np.concatenate(probes))
named = [answer.model for answer in answers]
judge = verdicts.stored_verdicts(extractor.card, extractor_hash=extractor.hash)
decisions = [
    judge.identify(answer, gallery, evidence.conditions(found), far=0.05).answer
    for answer, found in zip(answers, seen, strict=True)
]
for model in common:
    mine = [decisions[i] for i in range(len(truth)) if truth[i] == model]
    counts = ", ".join(f"{mine.count(word):2d} {word}" for word in ("same", "unsure", "different"))
    print(f"{counts}   {'enrolled' if model in enrolled else 'stranger'}  {model}")

# %% [markdown]
# **What you see.** Two thirds of the images of enrolled models are named, all of them rightly; the
# others are unsure, as images of 160 pixels hold little more than one crop. Of the strangers none
# is named, but few are refused: "different" is said only where hardly any right name scores so low.
# Ask for `far=0.01`, and hardly an image is named: a strict promise is kept by silence. Larger
# images, and more of them enrolled, make it cheaper.
#
# **Predict.** Another stranger may have a nearer relative in the gallery, with the same decoder and
# other weights elsewhere, as fine-tuned generators have. What will happen to its images?
#
# <details><summary>Reveal</summary>
#
# They will be accepted under the relative's name. A shared decoder is a shared fingerprint, and no
# threshold helps: a stranger is the more dangerous the nearer a relative of it is enrolled.
# </details>

# %% [markdown]
# ### Exercise 3: report what happened (15 minutes, hard)
#
# Write `report(truth, named, decisions, enrolled)`, all lists as above, that returns a dictionary
# of three shares; an image is *accepted* if the decision on it is `"same"`:
#
# - `"right"`: of the images of enrolled models, accepted under the right name,
# - `"wrong"`: of the images of enrolled models, accepted under a wrong name,
# - `"strangers"`: of the images of models that are not enrolled, accepted at all.
#
# Every model counts alike, however many images it has: take the share within each model first,
# then the mean over models.
#
# <details><summary>Hint</summary>
#
# A list of booleans has a mean. For one model: `[decisions[i] == "same" and named[i] == model
# for i in range(len(truth)) if truth[i] == model]`.
# </details>


# %%
### BEGIN SOLUTION
#: def report(truth, named, decisions, enrolled):
#:     return ...  # your code here
def report(truth, named, decisions, enrolled):
    shares = {"right": [], "wrong": [], "strangers": []}
    for model in set(truth):
        mine = [i for i in range(len(truth)) if truth[i] == model]
        names = [named[i] for i in mine if decisions[i] == "same"]
        if model in enrolled:
            shares["right"].append(names.count(model) / len(mine))
            shares["wrong"].append((len(names) - names.count(model)) / len(mine))
        else:
            shares["strangers"].append(len(names) / len(mine))
    return {name: float(np.mean(values)) for name, values in shares.items()}


### END SOLUTION

teach.check("honest-report", report)

# %% [markdown]
# Expected, for the folder made here: about two thirds of the images of enrolled models accepted
# under the right name, none under a wrong one. (Unsolved, the next cell prints `Ellipsis`.)

# %%
print(report(truth, named, decisions, enrolled))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def report(truth, named, decisions, enrolled):
#     shares = {"right": [], "wrong": [], "strangers": []}
#     for model in set(truth):
#         mine = [i for i in range(len(truth)) if truth[i] == model]
#         names = [named[i] for i in mine if decisions[i] == "same"]
#         if model in enrolled:
#             shares["right"].append(names.count(model) / len(mine))
#             shares["wrong"].append((len(names) - names.count(model)) / len(mine))
#         else:
#             shares["strangers"].append(len(names) / len(mine))
#     return {name: float(np.mean(values)) for name, values in shares.items()}
# ```
# </details>

# %% [markdown]
# ## 4. Why? Where the spectra agree
#
# A score alone convinces nobody. Take the log power spectrum of a probe and of a model, subtract
# what all models have in common, and correlate. A correlation is a mean over frequencies, so it
# can be taken apart again: *which* frequencies speak for one maker?


# %%
def spectrum(several):
    return spectral_correlation.log_spectrum(fp.average_spectrum(several, residual="none"))


known = {model: spectrum(pictures_of[model][:5]) for model in enrolled}
reference = spectral_correlation.reference_spectrum(list(known.values()))
shown = {model: f"{k}: {model[:10]}" for k, model in enumerate(enrolled[:3], start=1)}
rows = {f"probe of\n{label}": [] for label in shown.values()}
for row, model in zip(rows.values(), shown, strict=True):
    one = spectrum(pictures_of[model][-1:])
    for other in shown:
        values, score = spectral_correlation.correlation_map(one, known[other], reference=reference)
        text = f"correlation {score:.2f}"
        row.append(pictures.Cell(values=values, limits=(-3, 3), palette="cividis", caption=text))
teach.show(pictures.montage(rows, columns=[f"against\n{x}" for x in shown.values()], cell_size=112))

# %% [markdown]
# **What you see.** Yellow: both have more power than usual at this frequency, or both less. Blue:
# one has more, the other less. (The disc in the middle, where the scene decides, is left out.) In
# every row the probe's own model has the highest correlation. Models 1 and 2 both upsample
# bilinearly: they agree with each other nearly as well, at the low frequencies that this blur
# leaves. Model 3 upsamples by a learnt kernel, and blue patches near 0.5 cycles/pixel tell it from
# both. This is a witness, not the judge: the extractor sees colours and
# coherence as well, and its score is another number.

# %% [markdown]
# ## 5. The same without code
#
# The desk does all of this with a mouse: enrol a folder or uploads, ask about others, choose the
# false-accept rate, look closer. `fpkit app` serves it in a browser without any notebook.

# %%
desk = widgets.AttributionDesk(extractor=extractor)
for model in enrolled:
    desk.enrol(model, pictures_of[model][:5])
desk

# %%
desk.ask([pictures_of[model][-1] for model in common])
teach.show(desk.static())

# %% [markdown]
# **What you see.** One image of each model (at most eight), and the closer look at the first of
# them: the image, its spectrum, where it agrees with the nearest model, and the mean of that over
# rings of equal frequency. Choose another image under **look at**, and another image instead of a
# model under **against**: then the question is *one maker or two?*, with ratios of its own.
# Below the verdict is what it rests on (format, size, crops) and what speaks against relying on it.
#
# ## What can go wrong
#
# - **Ratios from elsewhere.** Those used here come from synthetic models. With images of your own
#   generators measure the errors anew (lesson 07), on images that you do not report on.
# - **JPEG, resizing, screenshots.** What was recompressed or scaled has lost most of its
#   fingerprint, and "none of these" may be false. `fpkit identify` and the desk warn of what can
#   be seen: an earlier JPEG, enlarging, blur. An image made *smaller* leaves no trace to see.
# - **Enrolled images as probes.** They score high and prove nothing; the desk marks them.
# - **An accusation.** "Same" says that an image is more like one enrolled model than nearly all
#   strangers in a test were. It does not say who pressed the button, and relatives that share a
#   decoder are taken for each other.
#
# ## Recap
#
# Inspect, split, measure against a method that knows the subject only, allow "unsure", count every
# model alike, ask about strangers, show where spectra agree, and write down what was not tested.
#
# ## Where to go next
#
# - A folder of your own: give it as `my_folder` above, or `fpkit app`.
# - A folder of images without any names: lesson 11.
# - The same from a shell: `fpkit enrol my.gallery FOLDER`, `fpkit identify my.gallery IMAGE`,
#   `fpkit bench FOLDER --method extractor --method colour`.
# - How the extractor was made and where it fails: `docs/attribution.md`.
