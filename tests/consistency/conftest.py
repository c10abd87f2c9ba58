import polars as pl
import pytest

from phenopipe.formats.wells import COLUMNS


def treatment(perturbation, kind="knockout", gene=None, concentration_um=None):
    return {
        "perturbation": perturbation,
        "kind": kind,
        "gene": gene,
        "guide": perturbation if kind == "knockout" else None,
        "concentration_um": concentration_um,
    }


def wells_of(rows, experiment="experiment-1", cell_type="HUVEC"):
    """A frame of aligned wells from pairs of role and treatments."""
    rows = [
        {
            "screen": "screen-1",
            "experiment": experiment,
            "plate": "plate-1",
            "well": "A01",
            "row": 1,
            "column": 1,
            "cell_type": cell_type,
            "role": role,
            "treatments": treatments,
            "layout": "layout-1",
            "well_id": f"{experiment}/plate-1/{number}",
            "fitted": role == "negative_control",
        }
        for number, (role, treatments) in enumerate(rows)
    ]
    schema = {name: dtype for name, (dtype, _) in COLUMNS.items()}
    return pl.DataFrame(rows, schema={**schema, "fitted": pl.Boolean})


def one_experiment_of_wells():
    """30 genes with 2 guides of 3 wells, 10 compounds at 2 doses of 2 wells, controls."""
    rows = [
        ("perturbation", [treatment(f"G{gene}_guide_{guide}", gene=f"G{gene}")])
        for gene in range(30)
        for guide in (1, 2)
        for _ in range(3)
    ]
    rows += [
        ("perturbation", [treatment(f"drug-{drug}", "compound", None, dose)])
        for drug in range(10)
        for dose in (0.1, 1.0)
        for _ in range(2)
    ]
    rows += [("negative_control", [])] * 20 + [("empty", [])] * 5
    return wells_of(rows)


@pytest.fixture
def one_experiment():
    return one_experiment_of_wells()
