"""What the page tells of a screen's defects and of each experiment's gate."""

import polars as pl

from phenopipe.report.gather import count_flags, count_positions, count_wells, gate_of
from phenopipe.report.pieces import Fold, Prose, Table
from phenopipe.report.sections.qc import qc_section
from tests.report.made_up import flagged, make_wells


def section(defects, *gates):
    wells = flagged(make_wells("one"))
    return qc_section(
        count_wells(wells),
        count_flags(wells),
        defects,
        pl.concat(gates) if gates else pl.DataFrame(),
        count_positions(wells),
        pl.DataFrame(),
        [],
    )


def told(section):
    return [piece.text for piece in section.pieces if isinstance(piece, Prose)]


def gate(experiment, *, no_go, failing):
    wells = flagged(make_wells(experiment)).with_columns(
        fails_experiment=pl.lit(no_go), score_experiment=pl.lit(failing)
    )
    return gate_of(wells)


DEFECTS = pl.DataFrame(
    {
        "screen": "s",
        "level": "image",
        "defect": "unreadable_image",
        "experiment": ["one", "two"],
        "n": [3, 4],
        "examples": ["a, b, c", "d"],
        "mend": "bring the file",
    }
)


def test_a_screen_without_defects_is_said_to_have_none():
    assert "The check of the whole screen found no defect." in told(section(DEFECTS.clear()))
    assert told(section(pl.DataFrame())) == []


def test_defects_are_summed_over_experiments_and_say_how_to_mend_them():
    table = next(p for p in section(DEFECTS).pieces if isinstance(p, Table))
    assert table.rows == [
        ["s", "unreadable image", "7", "images", "2", "a, b, c", "bring the file"]
    ]


def test_experiments_that_were_set_aside_come_first():
    gates = [gate("one", no_go=False, failing=0.25), gate("two", no_go=True, failing=0.75)]
    page = section(pl.DataFrame(), *gates)
    assert told(page) == ["1 of 2 experiments set aside as a whole."]
    table = next(p for p in page.pieces if isinstance(p, Fold)).pieces[0]
    assert [row[1:4] for row in table.rows] == [
        ["two", "set aside", "75.0 % of 50.0 %"],
        ["one", "go", "25.0 % of 50.0 %"],
    ]
    assert table.rows[0][4] == "14 of 1"


def test_wells_flagged_by_an_older_run_have_no_gate():
    assert gate_of(make_wells("one")).width == 0
