import pytest

from fpkit.arch import AXES, ArchSpec, model_id, paper_specs


def test_paper_space_has_288_distinct_ids_that_round_trip():
    specs = paper_specs()
    assert len(specs) == len({spec.id for spec in specs}) == len(set(specs)) == 288
    assert all(ArchSpec.parse(spec.id) == spec for spec in specs)


def test_id_is_readable_and_names_the_model():
    spec = ArchSpec(blocks=1, layers=2, upsample="deconv", activation="tanh", order="pre")
    assert spec.id == str(spec) == "K1-L2-Udeconv-Atanh-Nbatch-Spre"
    assert model_id(spec, 7) == "K1-L2-Udeconv-Atanh-Nbatch-Spre/seed7"


@pytest.mark.parametrize(
    ("arch_id", "complaint"),
    [
        ("K2-L1", "must have the parts"),
        ("", "must have the parts"),
        ("K2-L1-Unearest-Arelu-Nbatch-Spost-Z1", "must have the parts"),
        ("K4-L1-Unearest-Arelu-Nbatch-Spost", "'K4' is no option of axis K"),
        ("K2-L1-Unearest-Arelu-Nbatch-Spost-F7", "'F7' is no option of axis F .*Fmix"),
        ("K2-L1-Ucubic-Arelu-Nbatch-Spost", "'Ucubic' is no option of axis U .*Ubilinear"),
    ],
)
def test_wrong_ids_say_what_is_wrong(arch_id, complaint):
    with pytest.raises(ValueError, match=complaint):
        ArchSpec.parse(arch_id)


@pytest.mark.parametrize("field", [field for field, _ in AXES.values()])
def test_wrong_options_are_refused(field):
    with pytest.raises(ValueError, match=field):
        ArchSpec(**{field: "other"})


def test_true_is_not_one_block():
    with pytest.raises(ValueError, match="blocks"):
        ArchSpec(blocks=True)
