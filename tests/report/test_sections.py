import polars as pl
import pytest

from phenopipe.report.pieces import Figure, Table, tell
from phenopipe.report.questions import QUESTIONS, Question
from phenopipe.report.sections.benchmark_figures import recall_figure
from phenopipe.report.sections.benchmark_tables import compound_table, recall_table
from phenopipe.report.sections.consistency import bin_pvalues, roles_of_conditions
from phenopipe.report.sections.distilled import distilled, loss_curves
from phenopipe.report.sections.neighbours import near_of_map
from phenopipe.report.sections.overview import run_section
from phenopipe.report.sections.pretrain import POINTS, pretrain_section, thinned
from phenopipe.report.sections.truth import truth_section
from tests.report.made_up import stamp


def results(*rows):
    plain = {"block": 3, "trimmed": False, "benchmark": "map", "screen": "s", "source": ""}
    return pl.DataFrame([{**plain, **row} for row in rows])


def score(encoder, metric, value, source="CORUM"):
    return {"encoder": encoder, "metric": metric, "value": value, "source": source}


def test_recall_table_takes_the_papers_null_and_bolds_the_best():
    table = recall_table(
        results(
            score("a", "recall_sampled_0.05_0.95", 0.5),
            score("b", "recall_sampled_0.05_0.95", 0.6),
            score("a", "recall_all_pairs_0.05_0.95", 0.9),
            score("a", "ks", 0.3, "technical_pairs"),
        )
    )
    assert table.header[-2:] == ["CORUM", "KS"]
    assert [row[-2:] for row in table.rows] == [["0.500", "0.300"], ["0.600", "–"]]
    assert table.best == {(1, 3), (0, 4)}


def test_recall_at_other_thresholds_is_named_with_its_chance():
    part = results(score("a", "recall_all_pairs_0.1_0.9", 0.5))
    table = recall_table(part)
    assert table.rows[0][-1] == "0.500" and "at 10/90" in table.caption
    assert "chance 0.20" in table.caption
    bounds = part.with_columns(low=0.4, high=0.6, n=3, benchmark=pl.lit("map"))
    (figure,) = recall_figure(bounds)
    assert "recall at 10/90" in str(figure.spec) and "{'datum': 0.2}" in str(figure.spec)


def test_z_scores_are_those_of_the_papers_table_3():
    table = compound_table(
        results(
            score("g", "average_precision_max", 0.309),
            score("g", "average_precision_max_sd", 0.015),
            score("g", "average_precision_random", 0.222),
            score("g", "average_precision_random_sd", 0.007),
            score("g", "energy_distance", 6.586),
            score("g", "energy_distance_mad", 1.52),
            score("g", "energy_distance_null", 0.728),
        )
    )
    shown = dict(zip(table.header, table.rows[0], strict=True))
    assert float(shown["z of precision"]) == pytest.approx(5.38, abs=0.15)
    assert float(shown["z of energy"]) == pytest.approx(3.85, abs=0.01)


def test_no_table_is_made_of_benchmarks_that_did_not_run():
    assert compound_table(results(score("a", "ks", 0.3))) is None
    assert recall_table(results(score("a", "energy_distance", 0.3))) is None


def test_pvalues_fall_into_their_bins_and_roles():
    keys = {"kind": "knockout", "perturbation": "x", "concentration_um": None, "gene": "X"}
    roles = {"positive_control": 3, "perturbation": 1}
    applied = pl.DataFrame(
        [{**keys, "role": role, "n_wells": n} for role, n in roles.items()],
        schema_overrides={"concentration_um": pl.Float64},
    )
    pvalues = pl.DataFrame(
        [{**keys, "level": "condition", "p_value": p} for p in (0.0001, 0.05, 0.051, 1.0)]
        + [{**keys, "perturbation": None, "level": "gene", "p_value": 0.5}],
        schema_overrides={"concentration_um": pl.Float64},
    )
    bins = bin_pvalues(pvalues, roles_of_conditions(applied)).sort("level", "bin")
    assert bins["role"].unique().to_list() == ["positive_control"]
    assert bins.filter(level="condition")["bin"].to_list() == [0, 1, 19]
    assert bins.filter(level="condition")["n"].to_list() == [2, 1, 1]
    assert bins.filter(level="condition")["n_small"].sum() == 1


def test_neighbours_keep_only_near_ranks_and_count_rows_left_out():
    frame = pl.DataFrame(
        [
            ("A", "B", 1, 0.9), ("A", "C", 2, 0.5), ("A", "D", -1, -0.8),
            ("B", "A", 1, 0.9), ("C", "A", 1, 0.5),
        ],
        schema=["entity", "neighbour", "rank", "cosine"], orient="row",
    ).with_columns(
        kind=pl.lit("compound"), neighbour_kind=pl.lit("knockout"),
        concentration_um=pl.lit(0.5), neighbour_concentration_um=pl.lit(None, pl.Float64),
    )  # fmt: skip
    found = near_of_map(frame, a_row=1, max_rows=2)
    assert found["left_out"] == 1
    names = found["names"]
    assert names[:2] == ["A 0.5 µM", "B 0.5 µM"]
    like, unlike = ([(names[i], c) for i, c in side] for side in found["near"][0])
    assert like == [("B", 0.9)] and unlike == [("D", -0.8)]
    assert found["near"][names.index("D")] is None


def test_history_is_thinned_without_losing_its_end():
    n = 10 * POINTS + 3
    updates = range(1, n + 1)
    history = pl.DataFrame(
        {"update": updates, "epoch": updates, "loss": [float(u) for u in updates]}
    )
    thin = thinned(history, "mae")
    assert thin.height <= POINTS and thin["update"].max() == n
    assert thin.sort("update")["value"][0] == pytest.approx(6)


def test_what_was_run_counts_a_job_once_and_names_the_knobs_that_differ():
    one, two = stamp("qc", "wells", experiment="a"), stamp("qc", "wells", experiment="b")
    two["knobs"] = {**two["knobs"], "max_blur": 3}
    section = run_section([one, one, two, {**one, "knobs": {"seed": 0, "max_blur": 6}}])
    (row,) = next(piece for piece in section.pieces if isinstance(piece, Table)).rows
    assert row[:3] == ["qc.wells", "2", "0"] and "max_blur" in row[3]


@pytest.mark.parametrize(
    ("question", "value", "low", "met"),
    [
        (Question("m", "t", "x", at_least=0.9), 0.9, None, True),
        (Question("m", "t", "x", at_most=0.1), 0.11, None, False),
        (Question("m", "t", "x", at_least=0.0, by_low=True), 0.2, -0.1, False),
        (Question("m", "t", "x"), 0.2, None, None),
        (Question("m", "t", "x", at_least=0.9), None, None, None),
    ],
)
def test_a_figure_is_met_if_it_keeps_its_bound(question, value, low, met):
    assert question.is_met(value, low) is met


def test_power_is_drawn_as_a_curve_over_the_planted_effect():
    shares = {"effect 3 to 4, all": 0.9, "effect 0, all": 0.01, "effect 0 to 1, all": 0.2}
    told = {"low": 0.0, "high": 1.0, "n": 9}
    rows = [{**score("", "power", share, bin), **told} for bin, share in shares.items()]
    figure = next(p for p in truth_section(results(*rows)).pieces if isinstance(p, Figure))
    points = figure.spec["data"]["values"]
    assert {row["effect"]: row["value"] for row in points} == {0.0: 0.01, 0.5: 0.2, 3.5: 0.9}
    assert {row["manifest"] for row in points} == {"all"}
    other = results({**score("", "qc_recall", 0.5, "all"), **told})
    assert not any(isinstance(piece, Figure) for piece in truth_section(other).pieces)


def test_figures_of_the_truth_stand_in_the_order_of_their_questions():
    rows = [
        {
            **score("", "qc_false_alarms", 0.01, "sound wells"),
            "low": None,
            "high": None,
            "n": 9,
        },
        {**score("", "qc_recall", 0.5, "all"), "low": 0.4, "high": 0.6, "n": 9},
    ]
    section = truth_section(pl.DataFrame(rows))
    table = next(piece for piece in section.pieces if isinstance(piece, Table))
    assert [row[-1] for row in table.rows] == ["not met", "met"]
    assert section.answer.startswith("1 of 2")
    assert len({q.metric for q in QUESTIONS}) == len(QUESTIONS)


def test_true_is_told_as_a_word_and_not_as_a_number():
    assert (tell(True), tell(False), tell("a"), tell(0.5, 1)) == ("yes", "no", "a", "0.5")


def test_losses_of_training_are_averaged_between_looks_at_held_out_images():
    history = pl.DataFrame(
        {
            "update": [1, 2, 3, 4, 5],
            "loss": [5.0, 3.0, 2.0, 1.0, 0.5],
            "held_out_loss": [None, 4.5, None, 3.5, None],
        }
    )
    found = loss_curves(history)
    of = dict(found.group_by("images").agg(pl.struct("update", "value")).rows())
    assert [tuple(one.values()) for one in of["training"]] == [(2, 4.0), (4, 1.5), (5, 0.5)]
    assert [tuple(one.values()) for one in of["held out"]] == [(2, 4.5), (4, 3.5)]
    unseen = loss_curves(history.drop("held_out_loss"))
    assert set(unseen["images"]) == {"training"} and unseen.height == 5


def test_a_training_by_a_teacher_shows_losses_measures_and_probes():
    history = pl.DataFrame(
        {
            "update": [1, 2],
            "epoch": [0.5, 1.0],
            "loss": [5.0, 3.0],
            "gradient_norm": [1.0, 1.0],
            "dino": [4.0, 2.0],
            "held_out_loss": [None, 4.5],
            "held_out_rank": [None, 7.5],
            "probe_1": [None, 0.25],
            "probe_2": [None, 0.5],
        }
    )
    section = pretrain_section({"mine": history, "other": history.drop("dino")}, {})
    captions = [piece.caption for piece in section.pieces if isinstance(piece, Figure)]
    told = ("students of a teacher", "classifiers", "Figure 8", "directions", "Probes")
    assert len(captions) == len(told)
    assert all(word in caption for word, caption in zip(told, captions, strict=True))
    assert distilled({"other": history.drop("dino")}) == []
