import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.screen.annotations import read_genes, read_interactions
from phenopipe.screen.config import GeneColumns, InteractionColumns


def test_replicates_of_an_expression_assay_become_their_median(tmp_path):
    path = tmp_path / "genes.tsv"
    pl.DataFrame(
        {"g": ["B", "A", "A", "A"], "arm": ["2q", "1p", "1p", None], "z": [1, -5, -3, -4]}
    ).write_csv(path, separator="\t")
    genes = read_genes(path, GeneColumns(gene="g", expression="z"))
    assert genes.rows() == [("A", "1p", -4.0), ("B", "2q", 1.0)]
    assert (
        read_genes(path, GeneColumns(gene="g", expression=None))["expression"].null_count() == 2
    )


def test_a_gene_on_two_arms_is_refused(tmp_path):
    path = tmp_path / "genes.csv"
    pl.DataFrame({"gene": ["A", "A"], "arm": ["1p", "1q"]}).write_csv(path)
    with pytest.raises(UserError, match="gene A lies on arms 1p, 1q"):
        read_genes(path, GeneColumns(expression=None))


def test_pairs_are_listed_once_with_their_strongest_potency(tmp_path):
    path = tmp_path / "known.csv"
    rows = {
        "treatment": ["x", "x", "y"],
        "gene_symbol": ["A", "A", None],
        "nM_value": [1, 3, 2],
    }
    pl.DataFrame(rows).write_csv(path)
    assert read_interactions(path, InteractionColumns()).rows() == [("x", "A", 1.0)]


def potencies(path, *values):
    n = len(values)
    frame = {"treatment": ["x"] * n, "gene_symbol": list("ABCDE"[:n]), "nM_value": values}
    pl.DataFrame(frame).write_csv(path)
    return read_interactions(path, InteractionColumns())


def test_rows_without_a_number_for_a_potency_are_left_out_and_counted(tmp_path, capsys):
    path = tmp_path / "known.csv"
    found = potencies(path, "50", ">10000", None, "nan", "7e3")
    assert found.rows() == [("x", "A", 50.0), ("x", "E", 7000.0)]
    assert "3 of 5 rows without a potency in nM, left out" in capsys.readouterr().out
    with pytest.raises(UserError, match="no potency in nM"):
        potencies(path, "weak", None)


@pytest.mark.parametrize("value", ["-5", "0", "-inf"])
def test_a_potency_that_cannot_be_is_refused_by_its_row(tmp_path, value):
    with pytest.raises(UserError, match=f"row 2: potency {value}, wanted more than 0 nM"):
        potencies(tmp_path / "known.csv", "50", value)


def test_without_tables_the_formats_are_empty():
    assert read_genes(None, GeneColumns()).height == 0
    assert read_interactions(None, InteractionColumns()).height == 0
