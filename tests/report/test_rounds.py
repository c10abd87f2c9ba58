import polars as pl

from phenopipe.formats.results import tidy
from phenopipe.report.sections.rounds import round_of, rounds_section

STEPS = {"steps": [{"wells": 10, "conditions": 3}]}


def accuracies(**by_encoder):
    rows = [
        {"encoder": encoder, "block": block, "metric": "balanced_accuracy", "value": value}
        for encoder, values in by_encoder.items()
        for block, value in enumerate(values, 1)
    ]
    return tidy(rows, source="groups", benchmark="groups", trimmed=False)


def judged(*encoders):
    return pl.DataFrame({"encoder": encoders}, schema={"encoder": pl.String})


def test_a_judge_trained_on_a_round_makes_the_next():
    judges = {"once": ["mae-all", "cnn"], "again": ["mae-1", "cnn"]}
    trained_on = {"mae-all": "all", "mae-1": "once", "mae-2": "again"}
    rounds = [round_of(name, trained_on, judges) for name in ("all", "once", "again")]
    assert rounds == [0, 1, 2]


def test_each_round_shows_its_best_block_and_planted_truth():
    section = rounds_section(
        {"mae-2": "again", "mae-1": "once", "mae-all": "all"},
        dict.fromkeys(("all", "once", "again"), STEPS),
        {"all": judged(), "once": judged("mae-all", "cnn"), "again": judged("mae-1")},
        accuracies(**{"mae-all": [0.2, 0.3], "mae-1": [0.5, 0.4], "mae-2": [0.6, 0.7]}),
        tidy([]),
        tidy([{"source": "once", "metric": "phenoprint_recall", "value": 0.875}]),
    )
    (table,) = section.pieces
    assert table.header[-3:] == ["planted recall", "encoder", "accuracy, groups"]
    assert [(row[0], row[1], row[2], row[-3], row[-1]) for row in table.rows] == [
        ("0", "all", "none", "–", "0.300"),
        ("1", "once", "cnn, mae-all", "0.88", "0.500"),
        ("2", "again", "mae-1", "–", "0.700"),
    ]
    assert section.answer == "accuracy, groups: round 0: 0.30, round 1: 0.50, round 2: 0.70"


def test_without_trained_encoders_there_is_nothing_to_compare():
    assert not rounds_section({}, {}, {}, tidy([]), tidy([]), tidy([])).pieces
