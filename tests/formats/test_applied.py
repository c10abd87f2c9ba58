"""What was applied to wells, as texts and as numbers: the same as the treatments say."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.errors import UserError
from phenopipe.formats.applied import Applied, Vocabulary
from phenopipe.formats.conditions import TARGET, condition_texts
from phenopipe.formats.wells import N_IMAGES, TREATMENT, check_words, conditions

NAMES = st.text(st.characters(exclude_characters="\x1d\x1e\x1f", codec="utf-8"), max_size=4)
TREATMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "perturbation": NAMES,
            "kind": st.sampled_from(["knockout", "compound", "soluble_factor"]),
            "gene": st.none() | NAMES,
            "guide": st.none() | NAMES,
            "concentration_um": st.none() | st.floats(0, allow_infinity=False),
        }
    ),
    max_size=3,
)


def counted(treatments):
    wells = pl.DataFrame(
        {
            "well_id": [f"w{n}" for n in range(len(treatments))],
            "role": "perturbation",
            "treatments": pl.Series(treatments, dtype=pl.List(TREATMENT)),
            N_IMAGES: pl.Series([1] * len(treatments), dtype=pl.Int32),
        }
    )
    return wells.with_columns(condition_texts(wells["treatments"]))


@given(st.lists(TREATMENTS, min_size=1, max_size=8), st.integers(0, 8))
def test_numbers_of_wells_lead_back_to_their_conditions(treatments, cut):
    wells, vocabulary = counted(treatments), Vocabulary()
    coded = [vocabulary.code(part) for part in (wells[:cut], wells[cut:])]
    applied = Applied.of(vocabulary, coded)
    found = [[t] if t < applied.targets.height else [] for t in applied.first_W]
    for owner, target in zip(applied.owner_E, applied.more_E, strict=True):
        found[owner].append(target)
    listed = conditions(wells)
    for well_id, targets in zip(wells["well_id"], found, strict=True):
        expected = listed.filter(well_id=well_id).select(TARGET)
        assert applied.targets[targets].rows() == expected.rows()


@pytest.mark.parametrize("name", ["A\x1d1", "A\x1e1", "A\x1f1"])
@pytest.mark.parametrize("field", ["perturbation", "gene"])
def test_a_name_that_would_tear_the_text_is_refused(name, field):
    treatment = dict.fromkeys(TREATMENT.to_schema()) | {"kind": "knockout", field: name}
    with pytest.raises(UserError, match=f"here: {field} 'A.*1', wanted a name without"):
        check_words(counted([[], [treatment]]), "here")
    check_words(counted([[], [treatment | {field: "A1", "guide": name}]]), "here")


def test_no_concentration_is_two():
    one = dict.fromkeys(TREATMENT.to_schema()) | {"kind": "compound", "perturbation": "A"}
    texts = counted([[one | {"concentration_um": dose}] for dose in (0.0, -0.0)])["conditions"]
    assert texts.n_unique() == 1
