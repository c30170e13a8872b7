from collections import Counter
from itertools import pairwise

import pytest

from fpkit.arch import AXES, EXTENDED, PAPER, ArchSpace, ArchSpec, model_id


def test_paper_space_has_288_distinct_ids_that_round_trip():
    specs = tuple(PAPER)
    assert len(specs) == len({spec.id for spec in specs}) == len(set(specs)) == len(PAPER) == 288
    assert all(ArchSpec.parse(spec.id) == spec for spec in specs)
    assert all(len(spec.id.split("-")) == len(AXES) for spec in specs)


def test_id_is_readable_and_names_the_model():
    spec = ArchSpec(blocks=1, layers=2, upsample="deconv", activation="tanh", order="pre")
    assert spec.id == str(spec) == "K1-L2-Udeconv-Atanh-Nbatch-Spre"
    assert model_id(spec, 7) == "K1-L2-Udeconv-Atanh-Nbatch-Spre/seed7"


def test_id_names_extended_fields_only_where_they_differ_from_the_paper():
    extended = ArchSpec(blocks=3, upsample="fir", activation="silu", norm="layer")
    assert extended.id == "K3-L1-Ufir-Asilu-Nlayer-Spost"
    assert ArchSpec(kernel=5).id == "K2-L1-Unearest-Arelu-Nbatch-Spost-F5"
    both = ArchSpec(kernel="mix", skip="shortcut")
    assert both.id == "K2-L1-Unearest-Arelu-Nbatch-Spost-Fmix-Xshortcut"


def test_factor_is_that_of_the_down_blocks():
    assert [ArchSpec(blocks=blocks).factor for blocks in (1, 2, 3)] == [2, 4, 8]


@pytest.mark.parametrize(
    ("arch_id", "complaint"),
    [
        ("K2-L1", "must have the parts"),
        ("", "must have the parts"),
        ("K2-L1-Unearest-Arelu-Nbatch-Spost-Z1", "must have the parts"),
        ("K4-L1-Unearest-Arelu-Nbatch-Spost", "'K4' is no option of axis K"),
        ("K2-L1-Ucubic-Arelu-Nbatch-Spost", "'Ucubic' is no option of axis U .*Ubilinear"),
        ("K2-L1-Unearest-Arelu-Nbatch-Spost-F7", "'F7' is no option of axis F .*Fmix"),
        ("K2-L1-Unearest-Arelu-Nbatch-Spost-F3", "must be written '.*Spost'"),
        ("K2-L1-Unearest-Arelu-Nbatch-Spost-F1-F5", "must be written '.*-F5'"),
        ("K2-L1-Unearest-Arelu-Nbatch-Spost-Xshortcut-F5", "must be written '.*-F5-Xshortcut'"),
    ],
)
def test_wrong_ids_say_what_is_wrong(arch_id, complaint):
    with pytest.raises(ValueError, match=complaint):
        ArchSpec.parse(arch_id)


@pytest.mark.parametrize("field", [*(field for field, _ in AXES.values()), "kernel", "skip"])
def test_wrong_options_are_refused(field):
    with pytest.raises(ValueError, match=field):
        ArchSpec(**{field: "other"})


def test_true_is_not_one_block():
    with pytest.raises(ValueError, match="blocks"):
        ArchSpec(blocks=True)
    with pytest.raises(ValueError, match="blocks"):
        ArchSpace(blocks=(True,))


# ---- spaces ------------------------------------------------------------------------------------


def test_extended_space_contains_the_paper_and_every_option_and_its_ids_round_trip():
    specs = list(EXTENDED)
    assert len(specs) == len(EXTENDED) == len({spec.id for spec in specs})
    assert set(PAPER) < set(specs)
    assert all(ArchSpec.parse(spec.id) == spec for spec in specs[::97])
    for field in ("blocks", "upsample", "activation", "norm", "kernel", "skip"):
        assert {getattr(spec, field) for spec in specs} == set(getattr(EXTENDED, field))


def test_membership_is_what_iteration_gives():
    everything = list(ArchSpace(**{f: getattr(EXTENDED, f) for f in ArchSpec().__dict__}))
    assert len(everything) == 3 * 2 * 7 * 8 * 5 * 2 * 4 * 2
    inside = [spec in EXTENDED for spec in everything]
    assert [spec for spec, ok in zip(everything, inside, strict=True) if ok] == list(EXTENDED)
    assert ArchSpec(upsample="nearest", kernel=1) not in EXTENDED
    assert ArchSpec(upsample="bilinear", kernel=1) in EXTENDED
    assert ArchSpec(kernel=5) not in PAPER and "K2" not in PAPER


def test_samples_are_seeded_uniform_and_without_replacement():
    space = PAPER.restrict(blocks=1, activation=("relu", "tanh"), norm="none")  # 24 specs
    drawn = space.sample(10, seed=5)
    assert drawn == space.sample(10, seed=5) == space.sample(20, seed=5)[:10]
    assert drawn != space.sample(10, seed=6)
    assert set(space.sample(24, seed=0)) == set(space)
    assert set(Counter(space.sample(72, seed=0)).values()) == {3}
    # 2000 draws of 3 out of 24: each spec 250 times, give or take 5 standard deviations of 14.8
    counts = Counter(spec for seed in range(2000) for spec in space.sample(3, seed=seed))
    assert len(counts) == 24 and all(abs(count - 250) < 74 for count in counts.values())


def test_sampling_knows_what_is_excluded():
    space = EXTENDED.restrict(kernel=1, upsample=("nearest", "fir"), blocks=3)
    assert set(space.sample(len(space), seed=1)) == set(space)
    assert {spec.upsample for spec in space} == {"fir"}


def test_restricting_gives_the_ablations():
    assert len(PAPER.restrict(blocks=1)) == len(PAPER.restrict(order="pre")) == 144
    assert len(PAPER.restrict(upsample="bilinear")) == len(PAPER.restrict(norm=("none",))) == 96
    assert EXTENDED.restrict(**{f: getattr(PAPER, f) for f in ArchSpec().__dict__}).sample(
        9, seed=0
    ) == PAPER.sample(9, seed=0)
    smaller = EXTENDED.restrict(upsample=("fir", "bicubic"))
    assert all(spec in EXTENDED for spec in smaller)
    order = {spec: place for place, spec in enumerate(EXTENDED)}
    same = list(EXTENDED.restrict(skip="none"))
    assert all(order[a] < order[b] for a, b in pairwise(same))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: PAPER.restrict(upsample="bicubic"), "upsample has .* got .*bicubic"),
        (lambda: PAPER.restrict(width=3), "fields .* got 'width'"),
        (lambda: PAPER.restrict(norm=()), "norm must be a tuple of distinct options"),
        (lambda: ArchSpace(norm=["none"]), "norm must be a tuple"),
        (lambda: ArchSpace(blocks=(1, 1)), "blocks must be a tuple of distinct"),
        (lambda: ArchSpace(kernel=(7,)), "kernel .* got 7"),
        (lambda: ArchSpace(excluded=({"width": (1,)},)), "excluded must name .*width"),
        (lambda: PAPER.sample(-1, seed=0), "cannot draw -1"),
        (lambda: ArchSpace(excluded=({"order": ("pre", "post")},)).sample(1, seed=0), "space of 0"),
    ],
)
def test_wrong_spaces_say_what_is_wrong(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
