import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenopipe.combination import cauchy_combination
from phenopipe.errors import UserError
from phenopipe.formats.pvalues import COMBINED, PVALUES
from phenopipe.formats.tables import read_table, write_table
from phenopipe.phenoprints.combine import combine_pvalues, main
from phenopipe.phenoprints.config import CombineKnobs


def pvalues_of(rows, *, encoder="judge", n_null=1000):
    """P-values from (experiment, perturbation, p-value, replicates)."""
    columns = {
        "experiment": [row[0] for row in rows],
        "perturbation": [row[1] for row in rows],
        "p_value": [row[2] for row in rows],
        "n_replicates": [row[3] for row in rows],
    }
    frame = pl.DataFrame(columns, schema_overrides={"n_replicates": pl.Int32})
    fixed = {
        "map_type": "made-up|HUVEC|knockout|none",
        "kind": "knockout",
        "gene": "A",
        "concentration_um": None,
        "level": "condition",
        "statistic": 0.5,
        "q_value": 1.0,
        "n_null": n_null,
        "n_labels": 50,
    }
    literals = [
        pl.lit(value, PVALUES.columns[name][0]).alias(name) for name, value in fixed.items()
    ]
    return (
        frame.with_columns(literals)
        .select(*PVALUES.columns)
        .with_columns(encoder=pl.lit(encoder))
    )


def test_each_condition_and_judge_is_combined_for_itself():
    rows = [("e1", "A_1", 0.001, 2), ("e2", "A_1", 1.0, 6), ("e1", "A_2", 0.4, 3)]
    frame = pl.concat([pvalues_of(rows), pvalues_of(rows[2:], encoder="other")])
    combined = combine_pvalues(frame, CombineKnobs())
    assert combined.select("encoder", "perturbation").rows() == [
        ("judge", "A_1"),
        ("judge", "A_2"),
        ("other", "A_2"),
    ]
    first = combined.row(0, named=True)
    both = cauchy_combination([0.001, 1.0], floor=1e-3, ceiling=0.99)
    assert first["p_value"] == pytest.approx(both, rel=1e-12) and both < 0.01
    assert (first["p_any"], first["n_experiments"], first["n_replicates"]) == (0.001, 2, 8)
    assert combined["p_value"][1] == pytest.approx(0.4)


def test_replicates_can_weigh_experiments():
    frame = pvalues_of([("e1", "A_1", 0.001, 2), ("e2", "A_1", 0.8, 6)])
    combined = combine_pvalues(frame, CombineKnobs(weights="replicates"))
    expected = cauchy_combination([0.001, 0.8], [2, 6], floor=1e-3, ceiling=0.99)
    assert combined["p_value"].item() == pytest.approx(expected, rel=1e-12)


def test_judges_may_have_nulls_of_different_size():
    frame = pl.concat(
        [
            pvalues_of([("e1", "A_1", 0.01, 2)], n_null=100),
            pvalues_of([("e2", "A_1", 0.0001, 2)], n_null=10_000),
        ]
    )
    combined = combine_pvalues(frame, CombineKnobs())
    assert combined["p_value"].item() == pytest.approx(cauchy_combination([0.01, 0.0001]))


def test_q_values_are_at_least_the_p_values_and_keep_their_order():
    rng = np.random.default_rng(0)
    rows = [("e1", f"A_{n}", p, 2) for n, p in enumerate(rng.uniform(0.001, 1, 40))]
    combined = combine_pvalues(pvalues_of(rows), CombineKnobs()).sort("p_value")
    assert (combined["q_value"] >= combined["p_value"]).all()
    assert combined["q_value"].is_sorted()


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_the_order_of_rows_changes_nothing(data):
    p_EC = data.draw(
        st.lists(st.lists(st.integers(1, 1000), min_size=3, max_size=3), min_size=1, max_size=6)
    )
    rows = [
        (f"e{e}", f"A_{c}", p / 1000, 2)
        for e, p_C in enumerate(p_EC)
        for c, p in enumerate(p_C)
    ]
    shuffled = data.draw(st.permutations(rows))
    first = combine_pvalues(pvalues_of(rows), CombineKnobs())
    assert first.equals(combine_pvalues(pvalues_of(shuffled), CombineKnobs()))
    expected = [
        cauchy_combination([p_C[c] / 1000 for p_C in p_EC], floor=1e-3, ceiling=0.99)
        for c in range(3)
    ]
    assert first["p_value"].to_list() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_an_added_experiment_changes_no_condition_that_it_lacks(data):
    p = st.integers(1, 1000).map(lambda k: k / 1000)
    rows = [
        (f"e{e}", f"A_{c}", data.draw(p), data.draw(st.integers(2, 9)))
        for e in range(5)
        for c in range(4)
        if data.draw(st.booleans()) or e == 0
    ]
    added = [(data.draw(st.sampled_from(["d", "e2b", "f"])), "A_3", data.draw(p), 4)]
    knobs = CombineKnobs(weights=data.draw(st.sampled_from(["equal", "replicates"])))
    before = combine_pvalues(pvalues_of(rows), knobs)
    after = combine_pvalues(pvalues_of([*rows, *added]), knobs)
    drop = pl.exclude("q_value")
    others = pl.col("perturbation") != "A_3"
    assert before.filter(others).select(drop).equals(after.filter(others).select(drop))
    count = dict(after.select("perturbation", "n_experiments").rows())
    assert count["A_3"] == sum(row[1] == "A_3" for row in rows) + 1


def test_files_in_any_order_and_of_any_cut_give_the_same_table(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for e in range(7):
        for encoder in ("mae", "classifier"):
            rows = [
                (f"e{e}", f"A_{c}", float(rng.integers(1, 1001)) / 1000, 3) for c in range(9)
            ]
            for part, cut in enumerate((rows[:4], rows[4:])):
                path = tmp_path / f"{e}-{encoder}-{part}.parquet"
                names = {"encoder": encoder, "experiment": f"e{e}", "screen": "s"}
                table = pvalues_of(cut).drop("encoder")
                write_table(path, table, PVALUES, {"names": names})
                paths.append(str(path))
    tables = []
    for order in (np.arange(28), rng.permutation(28), np.arange(28)[::-1]):
        out = str(tmp_path / "combined.parquet")
        chosen = [paths[at] for at in order]
        main(["--pvalues", *chosen, "--combined", out, "--manifest", "paper"])
        tables.append(read_table(tmp_path / "combined.parquet", COMBINED))
    assert tables[0].height == 18 and set(tables[0]["n_experiments"]) == {7}
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
    doubled = [*paths, paths[0]]
    with pytest.raises(UserError, match="two p-values for"):
        main(["--pvalues", *doubled, "--combined", out, "--manifest", "paper"])


def test_noise_keeps_its_size():
    rng = np.random.default_rng(1)
    rows = [
        (f"e{e}", f"A_{c}", float(p), 2)
        for e in range(4)
        for c, p in enumerate(rng.integers(1, 1001, 4000) / 1000)
    ]
    combined = combine_pvalues(pvalues_of(rows), CombineKnobs())
    called = float((combined["p_value"] < 0.05).mean())
    # Three standard deviations of a binomial draw.
    assert called == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 4000) ** 0.5)


def test_two_pvalues_of_one_condition_in_one_experiment_are_refused():
    frame = pvalues_of([("e1", "A_1", 0.1, 2), ("e1", "A_1", 0.2, 2)])
    with pytest.raises(UserError, match="two p-values for"):
        combine_pvalues(frame, CombineKnobs())


def test_the_stamp_names_the_judge(tmp_path):
    for encoder, p_value in (("mae", 0.001), ("classifier", 0.5)):
        table = pvalues_of([("e1", "A_1", p_value, 2)]).drop("encoder")
        stamp = {"names": {"encoder": encoder}}
        write_table(tmp_path / f"{encoder}.parquet", table, PVALUES, stamp)
    files = [str(tmp_path / f"{encoder}.parquet") for encoder in ("mae", "classifier")]
    out = tmp_path / "combined.parquet"
    main(["--pvalues", *files, "--combined", str(out), "--manifest", "paper"])
    combined = read_table(out, COMBINED)
    assert dict(combined.select("encoder", "p_any").rows()) == {"classifier": 0.5, "mae": 0.001}


def test_a_file_of_no_judge_is_refused(tmp_path):
    table = pvalues_of([("e1", "A_1", 0.5, 2)]).drop("encoder")
    write_table(tmp_path / "p.parquet", table, PVALUES, {})
    flags = ["--pvalues", str(tmp_path / "p.parquet"), "--manifest", "paper"]
    with pytest.raises(UserError, match="names no encoder"):
        main([*flags, "--combined", str(tmp_path / "combined.parquet")])


def test_no_judges_make_an_empty_table(tmp_path):
    out = tmp_path / "combined.parquet"
    main(["--pvalues", "--combined", str(out), "--manifest", "uncurated"])
    assert read_table(out, COMBINED).is_empty()
