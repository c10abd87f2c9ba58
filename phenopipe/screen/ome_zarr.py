"""OME-Zarr plates (HCS, 0.4 and 0.5): one array a field, channels and pixel size in metadata.

    wells.csv    your table: which plate and well, what was done to it (``columns``, ``roles``)
    plate-1.zarr/A/1/0/0    row, column, field, full resolution

Attributes lie in ``.zattrs`` (0.4) or in ``zarr.json`` under ``ome`` (0.5). Of times, depths
and acquisitions the first is taken.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.files import PLANE
from phenopipe.screen.columns import needed, read_rows, select_rows
from phenopipe.screen.config import ImagesKnobs
from phenopipe.screen.layouts import PLANES, Listed
from phenopipe.screen.rxrx3 import find_table

EXPERIMENT = "experiment"
TABLES = ("wells.csv", "wells.tsv", "wells.parquet")
PLATES = "*.zarr"
# Micrometres in one of each unit; what states none is taken to be micrometres.
MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "": 1.0}


class Field(NamedTuple):
    """One field of view: its array, its axes, labels of its channels, pixel size."""

    array: str
    axes: list[str]
    labels: list[str]
    pixel_size_um: float | None


def tables(folder: Path) -> list[Path]:
    """The user's table, where the configuration names none (``tables``)."""
    return [find_table(folder, TABLES)]


def experiments(folder: Path) -> list[str]:
    """Experiments that the table names; without such a column all plates are one."""
    rows = read_rows(tables(folder))
    if EXPERIMENT not in rows.columns:
        return [folder.resolve().name]
    return needed(rows, EXPERIMENT, key="experiments").unique().sort().to_list()


def read(given: Sequence[Path], folder: Path, knobs: ImagesKnobs, experiment: str) -> Listed:
    """One experiment: the rows that ``where`` chooses, else those that bear its name."""
    rows = read_rows(given)
    named = not knobs.where and EXPERIMENT in rows.columns
    rows = select_rows(rows, {EXPERIMENT: (experiment,)} if named else knobs.where)
    wanted = set(needed(rows, knobs.columns.plate, key="columns.plate"))
    told: list[str] = []
    planes: list[dict[str, object]] = []
    sizes: dict[float, str] = {}
    for path in sorted(folder.glob(PLATES)):
        name = _name(path, wanted, told)
        if name is None:
            continue
        for well, site, field in _fields(path, folder, told):
            if field.pixel_size_um is not None:
                sizes.setdefault(field.pixel_size_um, field.array)
            planes += _planes(field, {"plate": name, "well": well, "site": site})
    if not planes:
        raise UserError(told[0] if told else f"{folder}: no plate of {sorted(wanted)}")
    if len(sizes) > 1:
        listed = ", ".join(f"{size} um ({array})" for size, array in sizes.items())
        told.append(f"{experiment}: pixels of several sizes: {listed}")
    return Listed(
        rows, pl.DataFrame(planes, schema=PLANES), told, pixel_size_um=next(iter(sizes), None)
    )


def first_field(folder: Path) -> tuple[list[str], float | None]:
    """Labels of the channels and pixel size of the first field of a folder of plates.

    Raises
    ------
    UserError
        If no plate has a field that can be read.
    """
    told: list[str] = []
    for path in sorted(folder.glob(PLATES)):
        for _, _, field in _fields(path, folder, told):
            return field.labels, field.pixel_size_um
    raise UserError(told[0] if told else f"{folder}: no plate, wanted {PLATES}")


def attributes(node: Path) -> dict[str, Any]:
    """Read what OME-Zarr says about a group, whichever version wrote it.

    Raises
    ------
    UserError
        If the node has no attributes, or they are no JSON.
    """
    for name in (".zattrs", "zarr.json"):
        try:
            found = json.loads((node / name).read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UserError(f"{node / name}: not readable JSON ({error})") from None
        found = found.get("attributes", {}) if name == "zarr.json" else found
        return dict(found.get("ome", found))
    raise UserError(f"{node}: no .zattrs or zarr.json")


def _name(path: Path, wanted: set[str], told: list[str]) -> str | None:
    """Name that the table has for a plate: that of its folder or of its metadata."""
    stem = path.name.removesuffix(".zarr").removesuffix(".ome")
    if stem in wanted:
        return stem
    try:
        name = str(attributes(path).get("plate", {}).get("name", stem))
    except UserError as error:
        told.append(f"{error}; left out")
        return None
    return name if name in wanted else None


def _fields(path: Path, folder: Path, told: list[str]) -> Iterator[tuple[str, int, Field]]:
    """Well, site and field of view of a plate, one after the other."""
    try:
        wells = attributes(path)["plate"]["wells"]
    except (UserError, KeyError, TypeError) as error:
        told.append(f"{path.name}: no plate ({error}); left out")
        return
    for well in wells:
        place = path / str(well.get("path"))
        try:
            images = attributes(place)["well"]["images"]
            first = min((one.get("acquisition", 0) for one in images), default=0)
            own = [one for one in images if one.get("acquisition", 0) == first]
            for site, image in enumerate(own, start=1):
                field = _field(place / str(image["path"]), folder)
                yield "".join(str(well["path"]).split("/")), site, field
        except (UserError, KeyError, TypeError, ValueError, IndexError) as error:
            reason = error if isinstance(error, UserError) else f"no key {error}"
            told.append(f"{place.relative_to(folder)}: {reason}; left out")


def _field(image: Path, folder: Path) -> Field:
    found = attributes(image)
    scales = found["multiscales"][0]
    axes = [one["name"] if isinstance(one, Mapping) else one for one in scales["axes"]]
    full = scales["datasets"][0]
    labels = [str(one.get("label", "")) for one in found.get("omero", {}).get("channels", [])]
    steps = [*full.get("coordinateTransformations", ())]
    steps += scales.get("coordinateTransformations", ())
    array = (image / str(full["path"])).relative_to(folder).as_posix()
    return Field(array, axes, labels, _pixel_size(scales["axes"][axes.index("x")], steps))


def _pixel_size(axis: Any, steps: Sequence[Mapping[str, Any]]) -> float | None:  # noqa: ANN401
    """Product of all scalings of the x axis, which is the last one, in micrometres."""
    factors = [float(one["scale"][-1]) for one in steps if one.get("type") == "scale"]
    unit = axis.get("unit", "") if isinstance(axis, Mapping) else ""
    if not factors or unit not in MICROMETRES:
        return None
    return round(float(math.prod(factors)) * MICROMETRES[unit], 9)


def _planes(field: Field, names: dict[str, object]) -> Iterator[dict[str, object]]:
    """One row a channel; a field without labels numbers them from 0."""
    labels = field.labels if any(field.labels) else ["0"]
    if "c" in field.axes:
        for number, label in enumerate(labels):
            yield {**names, **_plane(field, label, number)}
    else:
        yield {**names, **_plane(field, labels[0], 0)}


def _plane(field: Field, label: str, number: int) -> dict[str, object]:
    leading = [number if axis == "c" else 0 for axis in field.axes[:-2]]
    file = f"{field.array}{PLANE}{','.join(map(str, leading))}"
    return {"channel": label, "file": file, "place": field.array}
