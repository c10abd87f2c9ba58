"""Step ``simulate``: one experiment of a simulated screen, with its planted truth apart."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.images import IMAGES, write_images, write_pixels
from phenopipe.formats.tables import write_table
from phenopipe.formats.truth import TRUTH
from phenopipe.formats.wells import WELLS, write_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.cells import AXES, CHANNELS, SHAPE_AXES, render_cells
from phenopipe.screen.config import SimulateKnobs
from phenopipe.screen.faults import FAULTS
from phenopipe.screen.optics import Microscope, digitize, draw_microscope, expose
from phenopipe.screen.plates import Place, border_distance, draw_defects, lay_out
from phenopipe.screen.world import Condition, draw_conditions
from phenopipe.seeds import generator


class Well(NamedTuple):
    """A placed well with its identity and what went wrong with it."""

    well_id: str
    place: Place
    conditions: tuple[Condition, ...]
    defect: str


def place_wells(knobs: SimulateKnobs, experiment: str) -> list[Well]:
    """List the wells of an experiment in the order of plates and addresses."""
    places = lay_out(knobs)
    defects = draw_defects(knobs, experiment, len(places))
    library = [c for c in draw_conditions(knobs) if c.kind == "knockout"]
    wells = []
    for place, defect in zip(places, defects, strict=True):
        conditions = place.content.conditions
        if defect == "four_perturbations":
            rng = generator(knobs.seed, "four", experiment, place.plate, place.address)
            conditions = tuple(library[i] for i in rng.choice(len(library), 4, replace=False))
        well_id = f"{experiment}/{place.plate}/{place.address}"
        wells.append(Well(well_id, place, conditions, defect))
    return wells


def wells_table(
    wells: Sequence[Well], knobs: SimulateKnobs, screen: str, experiment: str
) -> pl.DataFrame:
    """Return the wells as the lab wrote them down: a lost label is not there."""
    rows = []
    for well in wells:
        place = well.place
        added = well.defect in ("four_perturbations", "missing_label")
        lost = well.defect == "missing_label"
        rows.append(
            {
                "screen": screen,
                "experiment": experiment,
                "plate": place.plate,
                "well": place.address,
                "row": place.row,
                "column": place.column,
                "cell_type": knobs.cell_type,
                "role": "perturbation" if added else place.content.role,
                "treatments": [] if lost else [c.treatment() for c in well.conditions],
                "layout": place.layout,
                "well_id": well.well_id,
            }
        )
    return pl.DataFrame(
        rows, schema={name: dtype for name, (dtype, _) in WELLS.columns.items()}
    )


def images_table(wells: Sequence[Well], knobs: SimulateKnobs) -> pl.DataFrame:
    """Return one row a site, in the order of the pixels."""
    rows = [
        {
            "image_id": f"{well.well_id}/{site}",
            "well_id": well.well_id,
            "site": site,
            "height": knobs.image_size,
            "width": knobs.image_size,
            "channels": len(CHANNELS) - (well.defect == "missing_channel"),
            "index": number * knobs.sites + site - 1,
            "uri": None,
        }
        for number, well in enumerate(wells)
        for site in range(1, knobs.sites + 1)
    ]
    return pl.DataFrame(
        rows, schema={name: dtype for name, (dtype, _) in IMAGES.columns.items()}
    )


def truth_table(wells: Sequence[Well]) -> pl.DataFrame:
    """Return what was planted: one row a well and condition."""
    rows = []
    for well in wells:
        for one in well.conditions or (None,):
            status = (
                "unknown"
                if well.defect == "missing_label"
                else one.status
                if one
                else "control"
            )
            rows.append(
                {
                    "well_id": well.well_id,
                    "defect": well.defect,
                    "perturbation": one.perturbation if one else None,
                    "kind": one.kind if one else None,
                    "gene": one.gene if one else None,
                    "group": one.group if one else None,
                    "concentration_um": one.concentration_um if one else None,
                    "status": status,
                    "effect": float(np.linalg.norm(one.phenotype_A)) if one else 0.0,
                }
            )
    return pl.DataFrame(
        rows, schema={name: dtype for name, (dtype, _) in TRUTH.columns.items()}
    )


def render_sites(
    wells: Sequence[Well], knobs: SimulateKnobs, experiment: str
) -> Iterator[NDArray[np.uint8]]:
    """Draw the sites of all wells, one (channels, height, width) array after another."""
    rng = generator(knobs.seed, "microscope", experiment)
    microscope = draw_microscope(rng, len(CHANNELS), knobs.batch_effect, knobs.photons)
    shift_A = knobs.batch_shift * rng.standard_normal(len(AXES))
    shift_A += 0.5 * generator(knobs.seed, "cell type", knobs.cell_type).standard_normal(
        len(AXES)
    )
    n_rows = max(well.place.row for well in wells)
    edge_A = np.zeros(len(AXES))
    edge_A[: len(SHAPE_AXES)] = generator(knobs.seed, "position").standard_normal(
        len(SHAPE_AXES)
    )
    for well in wells:
        rng = generator(knobs.seed, "well", experiment, well.well_id)
        border = border_distance(well.place, n_rows)
        z_A = shift_A + knobs.position_effect * (border - 0.5) * edge_A
        z_A = z_A + sum(c.phenotype_A for c in well.conditions)
        z_A = z_A + knobs.well_spread * rng.standard_normal(len(AXES))
        for _ in range(knobs.sites):
            yield _site(z_A, well.defect, _waver(microscope, rng), border, knobs, rng)


def _site(
    z_A: NDArray[np.float64],
    defect: str,
    microscope: Microscope,
    border: float,
    knobs: SimulateKnobs,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    area = (knobs.image_size / 96) ** 2
    n_cells = int(
        rng.integers(*knobs.cells_per_site) * area * (1 - 0.3 * knobs.position_effect * border)
    )
    fault = FAULTS.get(defect)
    if fault is not None:
        z_A, n_cells = fault.cells(z_A, n_cells)
        microscope = fault.microscope(microscope)
    light_CHW = render_cells(
        z_A, max(n_cells, 1), knobs.image_size, rng, cell_spread=knobs.cell_spread
    )
    if fault is not None:
        light_CHW = fault.light(light_CHW, rng)
    site_CHW = digitize(expose(light_CHW, microscope, rng))
    return fault.record(site_CHW, rng) if fault is not None else site_CHW


def _waver(microscope: Microscope, rng: np.random.Generator) -> Microscope:
    """Return the microscope as it is at one well: focus and light are never quite the same."""
    return microscope._replace(
        blur_C=microscope.blur_C * np.exp(0.2 * rng.standard_normal()),
        tilt_2=microscope.tilt_2 + 0.1 * rng.standard_normal(2),
        gain_C=microscope.gain_C * np.exp(0.15 * rng.standard_normal(len(microscope.gain_C))),
        photons=float(microscope.photons * np.exp(0.3 * rng.standard_normal())),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``screen_simulate``."""
    files, knobs = parse_step(
        SimulateKnobs,
        outputs=["wells", "images", "pixels", "truth"],
        names=["screen", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    wells = place_wells(knobs, files.experiment)
    size = knobs.image_size
    write_pixels(
        files.pixels,
        render_sites(wells, knobs, files.experiment),
        shape=(len(wells) * knobs.sites, len(CHANNELS), size, size),
        channels=CHANNELS,
        dtype="uint8",
        stamp=files.stamp,
    )
    write_images(files.images, images_table(wells, knobs), files.stamp)
    write_table(files.truth, truth_table(wells), TRUTH, files.stamp)
    table = wells_table(wells, knobs, files.screen, files.experiment)
    write_wells(files.wells, table, files.stamp)


if __name__ == "__main__":
    run_step(main)
