"""What sits where on the plates of a simulated experiment."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from phenopipe.formats.wells import WELLS, well_name
from phenopipe.screen.config import SimulateKnobs
from phenopipe.screen.world import Condition, World
from phenopipe.seeds import generator

# Height over width of a plate.
_SHAPE = 2 / 3


@dataclass(frozen=True)
class Well:
    """A well of a plate: where it sits, what is in it, and what its label says."""

    plate: int
    row: int
    column: int
    role: str
    conditions: tuple[Condition, ...]
    labelled: bool = True


def plate_size(n_wells: int) -> tuple[int, int]:
    """Return rows and columns of the smallest plate that holds the wells.

    Examples
    --------
    >>> plate_size(96), plate_size(384)
    ((8, 12), (16, 24))
    """
    rows = int(np.floor(np.sqrt(n_wells * _SHAPE)))
    while rows * round(rows / _SHAPE) < n_wells:
        rows += 1
    return rows, round(rows / _SHAPE)


def lay_out(knobs: SimulateKnobs, world: World) -> list[Well]:
    """Return the wells of all plates of an experiment.

    Notes
    -----
    What a plate holds depends on the layout's name and the plate's number, never on the
    experiment: technical pairs get the same plates.
    """
    wells = []
    for plate in range(1, knobs.plates + 1):
        contents = _contents(knobs, world, plate)
        rows, columns = plate_size(len(contents))
        if knobs.addresses == "fixed":
            rng = generator(knobs.seed, "addresses")
        else:
            rng = generator(knobs.seed, "addresses", knobs.layout, plate)
        places = rng.permutation(rows * columns)[: len(contents)].tolist()
        for place, (role, conditions, labelled) in zip(places, contents, strict=True):
            row, column = divmod(place, columns)
            wells.append(Well(plate, row + 1, column + 1, role, conditions, labelled))
    return sorted(wells, key=lambda well: (well.plate, well.row, well.column))


Content = tuple[str, tuple[Condition, ...], bool]


def _contents(knobs: SimulateKnobs, world: World, plate: int) -> list[Content]:
    """Contents of one plate, in an order that is the same for every plate."""
    rng = generator(knobs.seed, "contents", knobs.layout, plate)
    ordinary = (*world.knockouts, *world.compounds)
    wanted = [(one,) for one in ordinary for _ in range(knobs.replicates)]
    contents: list[Content] = [("perturbation", one, True) for one in wanted]
    controls = (
        ("negative_control", world.negative_controls, knobs.negative_controls),
        ("positive_control", world.positive_controls, knobs.positive_controls),
    )
    for role, known, number in controls:
        contents += [(role, (known[n % len(known)],), True) for n in range(number)]
    contents += [("empty", (), True)] * knobs.empty
    silent = [one for one in world.knockouts if one.status == "inactive"]
    for one in silent[: knobs.frequent_conditions]:
        contents += [("perturbation", (one,), True)] * knobs.frequent_wells
    for number, count in ((2, knobs.doubles), (4, knobs.quadruples)):
        for _ in range(count):
            mixed = rng.choice(len(world.knockouts), number, replace=False).tolist()
            several = tuple(world.knockouts[n] for n in mixed)
            contents.append(("perturbation", several, True))
    for n in rng.choice(len(ordinary), knobs.missing_labels).tolist():
        contents.append(("perturbation", (ordinary[n],), False))
    # Genes of biased arms take turns: one well an experiment is enough for their map. Rare
    # conditions are on the first plate alone. A control fills the place of what is absent,
    # so that with fixed addresses no other well moves.
    turns = -(-len(world.arm_knockouts) // knobs.plates)
    arms = world.arm_knockouts[(plate - 1) * turns : plate * turns]
    rare = world.rare[: knobs.rare_conditions]
    fill: list[Content] = [("negative_control", (world.negative_controls[0],), True)]
    for some, places in ((arms, turns), (rare if plate == 1 else (), len(rare))):
        contents += [("perturbation", (one,), True) for one in some]
        contents += fill * (places - len(some))
    return contents


def wells_table(
    wells: list[Well], knobs: SimulateKnobs, screen: str, experiment: str
) -> pl.DataFrame:
    """Return the wells format of an experiment, its rows in the order of the wells."""
    rows = []
    for well in wells:
        plate, address = f"plate-{well.plate}", well_name(well.row, well.column)
        rows.append(
            {
                "screen": screen,
                "experiment": experiment,
                "plate": plate,
                "well": address,
                "row": well.row,
                "column": well.column,
                "cell_type": knobs.cell_type,
                "role": well.role,
                "treatments": [_treatment(one) for one in well.conditions if well.labelled],
                "layout": f"{knobs.layout}-{well.plate}",
                "well_id": f"{experiment}/{plate}/{address}",
            }
        )
    return pl.DataFrame(rows, schema=WELLS.empty().schema)


def _treatment(condition: Condition) -> dict[str, object]:
    return {
        "perturbation": condition.perturbation,
        "kind": condition.kind,
        "gene": condition.gene,
        "guide": condition.guide,
        "concentration_um": condition.concentration_um,
    }
