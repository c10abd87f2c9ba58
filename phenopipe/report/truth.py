"""Step ``truth``: hold what the chain found against what the simulator planted."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from phenopipe.formats.arms import ARMS
from phenopipe.formats.benchmarks import RECALL_PAIRS, REPLICATE_MATCHES
from phenopipe.formats.manifests import MANIFEST
from phenopipe.formats.names import names_of
from phenopipe.formats.probes import PREDICTIONS
from phenopipe.formats.pvalues import COMBINED
from phenopipe.formats.qc import read_qc_wells
from phenopipe.formats.results import RESULTS, tidy
from phenopipe.formats.tables import read_json, read_table, write_table
from phenopipe.formats.truth import TRUTH
from phenopipe.knobs import StepFiles, parse_step, run_step
from phenopipe.report.config import TruthKnobs
from phenopipe.report.gather import read_results, stack
from phenopipe.report.intervals import Row
from phenopipe.report.planted import (
    called_rows,
    listed_conditions,
    noise_rows,
    phenoprint_rows,
    planted_wells,
    power_rows,
    qc_rows,
    tested_conditions,
)
from phenopipe.report.planted_map import (
    consistency_by_effect,
    order_rows,
    permuted_rows,
    recall_by_effect,
)
from phenopipe.report.planted_scores import planted_pair_rows, probe_rows
from phenopipe.report.planted_space import alignment_rows, arm_rows
from phenopipe.samples import files_by_encoder

INPUTS = (
    "truth",
    "flags",
    "combined",
    "manifests",
    "embeddings",
    "aligned",
    "arms",
    "recall_pairs",
    "replicates_matches",
    "recall",
    "replicates",
    "folders",
    "predictions",
    "blocks",
)


def hold_against(files: StepFiles, knobs: TruthKnobs) -> list[Row]:
    """Compute every figure of the planted truth that the files allow.

    Parameters
    ----------
    files : StepFiles
        Inputs of the step; all lists but ``truth`` may be empty.
    knobs : TruthKnobs
        Settings.
    """
    truth = stack(read_table(path, TRUTH) for path in files.truth)
    flags = stack(read_qc_wells(path).select("well_id", "passes") for path in files.flags)
    rows = qc_rows(flags, truth) if flags.height else []
    rows += curation_rows(files, truth, knobs)
    rows += space_rows(files, truth, knobs)
    rows += map_rows(files, truth, knobs)
    predictions = stack(
        [PREDICTIONS.empty(), *(read_table(p, PREDICTIONS) for p in files.predictions)]
    )
    return rows + probe_rows(read_results(files.blocks), predictions, knobs)


def map_rows(files: StepFiles, truth: pl.DataFrame, knobs: TruthKnobs) -> list[Row]:
    """Figures of maps: planted pairs, what follows the planted effects, what probes say."""
    rows: list[Row] = []
    for path in files.recall_pairs:
        encoder = names_of(path)["encoder"]
        if wanted(encoder, knobs, files.recall_pairs):
            pairs = read_table(path, RECALL_PAIRS)
            rows += planted_pair_rows(encoder, pairs, truth, knobs)
            rows += recall_by_effect(encoder, pairs, truth, knobs)
    for path in files.replicates_matches:
        encoder = names_of(path)["encoder"]
        if wanted(encoder, knobs, files.replicates_matches):
            matches = read_table(path, REPLICATE_MATCHES)
            rows += consistency_by_effect(encoder, matches, truth, knobs)
    results = read_results([*files.recall, *files.replicates])
    about = {path.parent.name: read_json(path) for path in files.folders}
    rows += permuted_rows(results, knobs)
    return rows + order_rows(results, read_results(files.blocks), about)


def curation_rows(files: StepFiles, truth: pl.DataFrame, knobs: TruthKnobs) -> list[Row]:
    """Figures of the phenoprints of every manifest that has judges."""
    manifests = {path.parent.name: read_table(path, MANIFEST) for path in files.manifests}
    combined = {path.parent.name: read_table(path, COMBINED) for path in files.combined}
    uncurated = [m for name, m in manifests.items() if not combined.get(name, m).height]
    rows: list[Row] = []
    for name, tests in combined.items():
        if tests.is_empty():
            continue
        # An uncurated manifest holds what the curation could choose from; without one,
        # what was tested comes nearest.
        candidates = tested_conditions(tests)
        if uncurated:
            candidates = stack(listed_conditions(wells) for wells in uncurated)
        if name in manifests:
            rows += phenoprint_rows(name, manifests[name], candidates, truth)
        rows += called_rows(name, tests, truth) + power_rows(name, tests, truth)
        rows += noise_rows(tests, truth, knobs.levels)
    return rows


def space_rows(files: StepFiles, truth: pl.DataFrame, knobs: TruthKnobs) -> list[Row]:
    """Figures of alignment and arm correction of the judged encoders."""
    planted = planted_wells(truth)
    before, after = files_by_encoder(files.embeddings), files_by_encoder(files.aligned)
    arms = {names_of(path)["encoder"]: path for path in files.arms}
    rows: list[Row] = []
    for (screen, encoder), aligned in after.items():
        if not wanted(encoder, knobs, files.aligned):
            continue
        stores = before.get((screen, encoder), {})
        rows += alignment_rows(encoder, aligned, stores, planted, knobs)
        if encoder in arms:
            table = read_table(arms[encoder], ARMS)
            rows += arm_rows(encoder, aligned, table, truth, knobs)
    return rows


def wanted(encoder: str, knobs: TruthKnobs, paths: Sequence[Path]) -> bool:
    """Whether an encoder is judged: a named one, or the trained one, or each if none is."""
    named = set(knobs.encoders) or {knobs.trained}
    found = {names_of(path).get("encoder") for path in paths}
    return encoder in named or not named & found


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``report_truth``."""
    files, knobs = parse_step(
        TruthKnobs,
        inputs=[f"{name}*" for name in INPUTS],
        outputs=["found"],
        doc=__doc__,
        argv=argv,
    )
    screens = sorted({names_of(path).get("screen", "") for path in files.truth})
    rows = hold_against(files, knobs)
    plain = {"block": 0, "trimmed": False, "encoder": ""}
    found = tidy(
        [plain | row for row in rows],
        screen="+".join(screens),
        benchmark="planted truth",
        seed=knobs.seed,
    )
    write_table(files.found, found, RESULTS, files.stamp)
    for row in found.iter_rows(named=True):
        name = " ".join(filter(None, (row["metric"], row["encoder"], row["source"])))
        print(f"{name}: {row['value']} ({row['low']} to {row['high']}), n = {row['n']}")


if __name__ == "__main__":
    run_step(main)
