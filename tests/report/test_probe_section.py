import polars as pl

from phenopipe.formats.results import tidy
from phenopipe.report.pieces import Table
from phenopipe.report.sections.probe import probe_section


def of_task(task, values, gain):
    """Results of one task: blocks of one encoder, one of them the best."""
    wide = {"low": 0.1, "high": 0.9, "n": 50}
    rows = [
        {"block": block, "metric": metric, "value": value, **wide}
        for metric in ("balanced_accuracy", "balanced_accuracy_over_experiments")
        for block, value in enumerate(values, 1)
    ]
    rows.append({"block": 0, "metric": "gain_on_other_half", "value": gain, **wide})
    return tidy(rows, encoder="mae", source=task, benchmark="probe", trimmed=False)


def best_of(**blocks):
    return pl.DataFrame(
        {
            "encoder": "mae",
            "task": list(blocks),
            "block": list(blocks.values()),
            "share_other_block": 0.25,
            "share_other_block_over_experiments": [0.5, None][: len(blocks)],
            "converged": [True, False][: len(blocks)],
        }
    )


def test_tasks_that_choose_other_blocks_are_listed():
    results = pl.concat(
        [of_task("anax", [0.3, 0.6, 0.5], -0.02), of_task("dose", [0.4, 0.2, 0.3], 0.1)]
    )
    section = probe_section(results, best_of(anax=2, dose=1))
    tables = [piece for piece in section.pieces if isinstance(piece, Table)]
    assert [table.rows for table in tables][-1] == [["mae", "2", "1", "no"]]
    anax = dict(zip(tables[0].header, tables[0].rows[0], strict=True))
    assert anax["b*"] == "2 of 3" and anax["unsure"] == "0.25 / 0.50"
    assert anax["gain"] == "+0.100"
    assert anax["gain on the other half"] == "-0.020 (+0.100 to +0.900)"
    assert anax["95 % (experiments)"] == "0.100–0.900"
    assert "did not converge" not in tables[0].caption
    assert "did not converge on every block of mae" in tables[1].caption


def test_one_task_has_nobody_to_disagree_with():
    section = probe_section(of_task("anax", [0.3, 0.6], 0.0), best_of(anax=2))
    assert len(section.pieces) == 2
