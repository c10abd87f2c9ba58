"""Simulate one experiment of a screen whose truth is known.

The screen's world (genes, guides, compounds, arms) follows from the seed alone; the
experiment adds its plates, its batch effect, its defects and its pixels.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.formats.images import IMAGES, write_images, write_pixels
from phenopipe.formats.tables import write_table
from phenopipe.formats.truth import TRUTH
from phenopipe.formats.wells import write_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.cells import AXES, SHAPE_AXES, render_cells
from phenopipe.screen.config import CHANNELS, SimulateKnobs
from phenopipe.screen.optics import Microscope, digitize, draw_microscope, expose, vary
from phenopipe.screen.plates import Well, lay_out, plate_size, wells_table
from phenopipe.screen.spoil import draw_defects, dying, spoil
from phenopipe.screen.world import Condition, build_world
from phenopipe.seeds import generator

# Legend of the shape suffixes: A axes of the phenotype, C channels, H rows, W columns.

Phenotype = NDArray[np.float64]

# Part of the cells that survive the positive control.
_SURVIVORS = 0.6
# How far the number of cells of two sites may differ.
_CROWDING = 0.2
_NEIGHBOURHOOD = 32


class Experiment:
    """One day at the simulated microscope: renders any site of any well.

    Parameters
    ----------
    knobs : SimulateKnobs
        Sizes and strengths.
    name : str
        Name of the experiment; its batch effect follows from it.
    """

    def __init__(self, knobs: SimulateKnobs, name: str) -> None:
        self._knobs, self._name = knobs, name
        self.wells = lay_out(knobs, build_world(knobs))
        self.defects = draw_defects(self.wells, knobs, name)
        rng = generator(knobs.seed, "batch", name)
        self._microscope = draw_microscope(
            rng, len(CHANNELS), knobs.batch_effect, knobs.photons, knobs.read_noise
        )
        shift_A = _shape_noise(generator(knobs.seed, "cell type", knobs.cell_type))
        self._shift_A = shift_A + knobs.experiment_spread * _shape_noise(rng)
        self._border_A = _shape_noise(generator(knobs.seed, "border"))
        self._slope_A = _shape_noise(generator(knobs.seed, "slope"))

    def phenotype(self, number: int) -> Phenotype:
        """Return what the cells of a well look like on average, shape (n_axes,)."""
        knobs, well = self._knobs, self.wells[number]
        rng = generator(knobs.seed, "well", self._name, well.plate, well.row, well.column)
        z_A = self._shift_A + knobs.well_spread * rng.standard_normal(len(AXES))
        rows, columns = plate_size(sum(one.plate == well.plate for one in self.wells))
        at_border = well.row in (1, rows) or well.column in (1, columns)
        across = 2.0 * (well.column - 1) / max(columns - 1, 1) - 1.0
        place_A = at_border * self._border_A + across * self._slope_A
        applied_A = sum((one.phenotype_A for one in well.conditions), np.zeros(len(AXES)))
        return z_A + knobs.position_effect * place_A + applied_A

    def sites(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the image (C, H, W) of every site, in the order of :meth:`images_table`."""
        for number in range(len(self.wells)):
            for site in range(1, self._knobs.sites + 1):
                yield self._image(number, site)

    def _image(self, number: int, site: int) -> NDArray[np.uint8]:
        knobs, well, defect = self._knobs, self.wells[number], self.defects[number]
        rng = generator(knobs.seed, "site", self._name, well.plate, well.row, well.column, site)
        z_A = self.phenotype(number)
        crowd = rng.uniform(1.0 - _CROWDING, 1.0 + _CROWDING)
        crowd *= _SURVIVORS if well.role == "positive_control" else 1.0
        n_cells = knobs.cells * crowd * (knobs.image_size / _NEIGHBOURHOOD) ** 2
        light_CHW = render_cells(
            dying(z_A) if defect == "dead" else z_A,
            max(round(n_cells), 1),
            knobs.image_size,
            rng,
            cell_spread=knobs.cell_spread,
        )
        image_CHW = expose(light_CHW, self._site_microscope(rng), rng)
        return digitize(spoil(image_CHW, defect, rng))

    def _site_microscope(self, rng: np.random.Generator) -> Microscope:
        return vary(self._microscope, self._knobs.site_effect * self._knobs.batch_effect, rng)

    def images_table(self, well_ids: Sequence[str]) -> pl.DataFrame:
        """Return the images format: one row a site."""
        size = self._knobs.image_size
        rows: list[dict[str, object]] = []
        for well_id, defect in zip(well_ids, self.defects, strict=True):
            for site in range(1, self._knobs.sites + 1):
                rows.append(
                    {
                        "image_id": f"{well_id}/{site}",
                        "well_id": well_id,
                        "site": site,
                        "height": size,
                        "width": size,
                        "channels": len(CHANNELS) - (defect == "missing_channel"),
                        "index": len(rows),
                        "uri": None,
                    }
                )
        return pl.DataFrame(rows, schema=IMAGES.empty().schema)

    def truth_table(self, well_ids: Sequence[str]) -> pl.DataFrame:
        """Return the truth format: one row a well and treatment."""
        rows = []
        for well_id, well, defect in zip(well_ids, self.wells, self.defects, strict=True):
            nothing = {"status": "control", "effect": 0.0}
            for told in [_told(well, one) for one in well.conditions] or [nothing]:
                rows.append({"well_id": well_id, "defect": defect, **told})
        return pl.DataFrame(rows, schema=TRUTH.empty().schema)


def _told(well: Well, condition: Condition) -> dict[str, object]:
    return {
        "perturbation": condition.perturbation,
        "kind": condition.kind,
        "gene": condition.gene,
        "group": condition.group,
        "concentration_um": condition.concentration_um,
        "status": condition.status if well.labelled else "unknown",
        "effect": condition.effect,
    }


def _shape_noise(rng: np.random.Generator) -> Phenotype:
    """Return a random shift of the traits of shape, none of brightness."""
    shift_A = np.zeros(len(AXES))
    shift_A[: len(SHAPE_AXES)] = rng.standard_normal(len(SHAPE_AXES))
    return shift_A


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step from the command line."""
    files, knobs = parse_step(
        SimulateKnobs,
        outputs=["wells", "images", "pixels", "truth"],
        names=["screen", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    experiment = Experiment(knobs, files.experiment)
    wells = wells_table(experiment.wells, knobs, files.screen, files.experiment)
    well_ids = wells["well_id"].to_list()
    images = experiment.images_table(well_ids)
    write_pixels(
        files.pixels,
        experiment.sites(),
        shape=(images.height, len(CHANNELS), knobs.image_size, knobs.image_size),
        channels=CHANNELS,
        dtype="uint8",
        stamp=files.stamp,
    )
    write_images(files.images, images, files.stamp)
    write_table(files.truth, experiment.truth_table(well_ids), TRUTH, files.stamp)
    write_wells(files.wells, wells, files.stamp)
    print(f"{files.experiment}: {wells.height} wells, {images.height} sites")


if __name__ == "__main__":
    run_step(main)
