"""From the files of a run to the sections of its page, in the order in which data flow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from phenopipe.formats.benchmarks import MAGNITUDES, REPLICATE_PAIRS
from phenopipe.formats.controls import CONTROLS
from phenopipe.formats.fingerprint import fingerprint
from phenopipe.formats.funnels import read_funnel
from phenopipe.formats.histories import HISTORY
from phenopipe.formats.images import IMAGES
from phenopipe.formats.maps import MAP, NEIGHBOURS
from phenopipe.formats.names import names_of, stamp_of
from phenopipe.formats.pvalues import COMBINED, PVALUES
from phenopipe.formats.qc import DEFECTS, read_metrics
from phenopipe.formats.results import RESULTS
from phenopipe.formats.tables import read_json, read_table
from phenopipe.knobs import StepFiles
from phenopipe.report.choices import (
    pick_examples,
    pick_flagged,
    pick_strongest,
    strongest_conditions,
    wells_of_conditions,
)
from phenopipe.report.config import PageKnobs
from phenopipe.report.gather import (
    count_flags,
    count_positions,
    count_wells,
    describe_encoders,
    each_experiment,
    gate_of,
    list_conditions,
    list_examples,
    list_flagged,
    read_named,
    read_results,
    stack,
)
from phenopipe.report.pieces import Section
from phenopipe.report.scatter import principal_plane
from phenopipe.report.scoreboard import comparable
from phenopipe.report.sections.alignment import (
    Alignment,
    align_section,
    embed_section,
    plane_frame,
)
from phenopipe.report.sections.benchmark import benchmark_section
from phenopipe.report.sections.consistency import (
    bin_pvalues,
    consistency_section,
    roles_of_conditions,
)
from phenopipe.report.sections.curation import phenoprints_section, undersample_section
from phenopipe.report.sections.heatmap import clustered
from phenopipe.report.sections.neighbours import map_section, near_of_map
from phenopipe.report.sections.overview import overview_section, rerun_section, run_section
from phenopipe.report.sections.pretrain import pretrain_section
from phenopipe.report.sections.probe import probe_section
from phenopipe.report.sections.qc import qc_section
from phenopipe.report.sections.rounds import rounds_section
from phenopipe.report.sections.screen import screen_section
from phenopipe.report.sections.truth import truth_section
from phenopipe.report.thumbnails import Album
from phenopipe.samples import every_well, files_by_encoder, sample_encoder
from phenopipe.seeds import generator

SITES_FOR_METRICS = 20_000
# Arrays and folders of pictures.
NOT_STAMPED = (".npz", "")
# What an encoder's folder says of it.
ABOUT_ENCODER = "config.json"


def build_sections(files: StepFiles, knobs: PageKnobs) -> list[Section]:
    """Build every section of the page from the files of a run.

    Parameters
    ----------
    files : StepFiles
        Inputs of the step; every list may be empty.
    knobs : PageKnobs
        Settings.
    """
    combined = {manifest_of(path): read_table(path, COMBINED) for path in files.combined}
    seen = wells_sections(files, knobs, stack(combined.values()))
    funnels = {manifest_of(path): read_funnel(path) for path in files.funnels}
    blocks = read_results(files.blocks)
    histories, painted = trainings(files)
    found = stack(read_table(path, RESULTS) for path in files.truth)
    tests = ("recall", "replicates", "magnitude", "compounds", "classes", "arm_bias")
    results = comparable(
        read_results([path for test in tests for path in getattr(files, test)]),
        stack(read_named(path, REPLICATE_PAIRS) for path in files.replicates_pairs),
    )
    stages = [
        seen["screen"],
        seen["qc"],
        undersample_section(funnels),
        embed_section(describe_encoders(files.embeddings)),
        # Encoders that were trained here come first.
        align_section(sorted(alignments(files, knobs), key=lambda a: a.encoder not in painted)),
        seen["consistency"],
        phenoprints_section(
            funnels, combined, seen["strongest"], read_results(files.diversity)
        ),
        pretrain_section(
            histories,
            painted,
            {path.parent.name: sorted(path.glob("*.png")) for path in files.panels},
        ),
        probe_section(blocks, best_blocks(files.best)),
        benchmark_section(
            results,
            stack(read_named(path, MAGNITUDES) for path in files.magnitude_perturbations),
            blocks,
            encoders_of(files.encoders),
        ),
        rounds_section(
            manifests_learned(files),
            funnels,
            combined,
            blocks,
            results,
            found,
        ),
        map_section(searchable_maps(files.neighbours, knobs), clustered_maps(files.maps)),
        truth_section(found),
    ]
    ran = {section.name for section in stages if section.pieces}
    stamps = [stamp_of(path) for path in all_paths(files) if is_stamped(path)]
    return [overview_section(stages, ran), run_section(stamps), *stages, rerun_section()]


def wells_sections(
    files: StepFiles, knobs: PageKnobs, combined: pl.DataFrame
) -> dict[str, Any]:
    """Build what needs the flagged wells: they are read once, an experiment at a time."""
    wanted = strongest_conditions(combined)
    counts, flags, gates, positions, applied, examples, flagged, strongest = each_experiment(
        files.flags,
        count_wells,
        count_flags,
        gate_of,
        count_positions,
        list_conditions,
        list_examples,
        list_flagged,
        lambda wells: wells_of_conditions(wells, wanted),
    )
    album = Album(files.images, files.pixels, knobs.thumbnail_pixels)
    shown, labels = pick_examples(examples, knobs.example_sites)
    n_sites = sum(read_table(p, IMAGES, columns=["well_id"]).height for p in files.images)
    return {
        "screen": screen_section(
            counts,
            applied,
            n_sites,
            album.pictures(shown, labels),
            album.channels(shown),
        ),
        "qc": qc_section(
            counts,
            flags,
            stack(read_named(path, DEFECTS) for path in files.defects),
            gates,
            positions,
            sample_metrics(files, knobs.seed),
            album.pictures(*pick_flagged(flagged, knobs.flagged_sites)),
        ),
        "consistency": consistency_section(pvalue_bins(files.pvalues, applied)),
        "strongest": album.pictures(*pick_strongest(strongest)),
    }


def sample_metrics(files: StepFiles, seed: int) -> pl.DataFrame:
    """Sample sites of all experiments: their metrics, and whether their well passes."""
    quota = SITES_FOR_METRICS // max(1, len(files.metrics))
    flags = {tuple(sorted(names_of(path).items())): path for path in files.flags}
    frames = []
    for path in files.metrics:
        names = names_of(path)
        wells = flags.get(tuple(sorted(names.items())))
        if wells is None:
            continue
        metrics = read_metrics(path).sort("image_id")
        rng = generator(seed, "metrics", *names.values())
        rows = np.sort(rng.permutation(metrics.height)[:quota])
        passes = pl.read_parquet(wells, columns=["well_id", "passes"])
        frames.append(
            metrics[rows].join(passes, on="well_id").select(pl.exclude("image_id", "well_id"))
        )
    return stack(frames)


def pvalue_bins(paths: list[Path], applied: pl.DataFrame) -> pl.DataFrame:
    """Count the p-values of every judge by level, role and bin, over all experiments."""
    frames = []
    for path in paths:
        names = names_of(path)
        roles = roles_of_conditions(applied.filter(pl.col("screen") == names.get("screen")))
        binned = bin_pvalues(read_table(path, PVALUES), roles)
        frames.append(binned.with_columns(encoder=pl.lit(names.get("encoder", "–"))))
    bins = stack(frames)
    if bins.is_empty():
        return bins
    keys = ["encoder", "level", "role", "bin"]
    return bins.group_by(keys).agg(pl.col("n", "n_small").sum()).sort(keys)


def alignments(files: StepFiles, knobs: PageKnobs) -> list[Alignment]:
    """Sample every encoder's embeddings before and after alignment."""
    before, after = files_by_encoder(files.embeddings), files_by_encoder(files.aligned)
    measures = read_results(files.measures)
    controls = {
        _screen_and_encoder(path): read_table(path, CONTROLS) for path in files.controls
    }
    found = []
    for (screen, encoder), aligned in after.items():
        stores = before.get((screen, encoder), {})
        wanted = {"all": (knobs.sample_wells, every_well)}
        samples = sample_encoder(aligned, stores, wanted, seed=knobs.seed)
        if "all" not in samples:
            continue
        drawn = samples["all"]
        plane_before, share_before = principal_plane(drawn.before)
        plane_after, share_after = principal_plane(drawn.after)
        shares = (*map(float, share_before), *map(float, share_after))
        plane = plane_frame(drawn.wells, plane_before, plane_after)
        measured = measures.filter(pl.col("screen") == screen, pl.col("encoder") == encoder)
        told = controls.get((screen, encoder), CONTROLS.empty())
        found.append(Alignment(screen, encoder, plane, shares, measured, told))  # type: ignore[arg-type]
    return found


def _screen_and_encoder(path: Path) -> tuple[str, str]:
    names = names_of(path)
    return names.get("screen", ""), names.get("encoder", "")


def trainings(
    files: StepFiles,
) -> tuple[dict[str, pl.DataFrame], dict[str, Mapping[str, Any]]]:
    """Read the history of every training, and what the autoencoders painted."""
    histories = {names_of(p)["encoder"]: read_table(p, HISTORY) for p in files.histories}
    painted: dict[str, Mapping[str, Any]] = {}
    for path in files.reconstructions:
        with np.load(path, allow_pickle=False) as arrays:
            painted[path.parent.name] = {name: arrays[name] for name in arrays.files}
    return histories, painted


def manifests_learned(files: StepFiles) -> dict[str, str]:
    """Manifest that each trained encoder learned from, by the content of its table."""
    names = {fingerprint(path): manifest_of(path) for path in files.manifests}
    learned: dict[str, str] = {}
    for path in files.histories:
        inputs = stamp_of(path).get("inputs", {}).get("manifest", [])
        learned |= {names_of(path)["encoder"]: names[one] for one in inputs if one in names}
    return learned


def best_blocks(paths: list[Path]) -> pl.DataFrame:
    """Read the block that each probe chose."""
    schema = {
        "encoder": pl.String,
        "task": pl.String,
        "block": pl.Int64,
        "share_other_block": pl.Float64,
        "share_other_block_over_experiments": pl.Float64,
        "converged": pl.Boolean,
    }
    rows = [{**read_json(path), **names_of(path)} for path in paths]
    return pl.DataFrame([{k: row.get(k) for k in schema} for row in rows], schema=schema)


def searchable_maps(paths: list[Path], knobs: PageKnobs) -> dict[str, dict[str, Any]]:
    """Lay out the neighbours of every map for the page's search."""
    maps = {}
    for path in paths:
        names = names_of(path)
        title = f"{names.get('encoder', '–')} ({names.get('benchmark', '–')})"
        maps[title] = near_of_map(
            read_table(path, NEIGHBOURS), a_row=knobs.near, max_rows=knobs.map_rows
        )
    return {title: one for title, one in maps.items() if one["names"]}


def clustered_maps(paths: list[Path]) -> dict[str, pl.DataFrame]:
    """Lay out every map as a heatmap of the rows whose wells agree best."""
    found = {}
    for path in paths:
        names = names_of(path)
        cosines = clustered(read_table(path, MAP))
        if not cosines.is_empty():
            found[f"{names.get('encoder', '–')} ({names.get('benchmark', '–')})"] = cosines
    return found


def encoders_of(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Read what the folder of each encoder says of it."""
    return {path.parent.name: read_json(path) for path in paths}


def is_stamped(path: Path) -> bool:
    """Whether a file carries the stamp of the step that made it."""
    return path.suffix not in NOT_STAMPED and path.name != ABOUT_ENCODER


def manifest_of(path: Path) -> str:
    """Name of the manifest that a file belongs to: the last folder of its path."""
    return names_of(path).get("manifest", path.parent.name)


def all_paths(files: StepFiles) -> list[Path]:
    """Every input file of the step, each once."""
    listed = [value for value in vars(files).values() if isinstance(value, list)]
    return list(dict.fromkeys(path for paths in listed for path in paths))
