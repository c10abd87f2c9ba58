"""Every step of every stage, in the order in which data flows, with its knobs.

Part of the roof: it knows all stages.
"""

import os
import sys
from pathlib import Path

from phenopipe.align import config as align
from phenopipe.benchmark import config as benchmark
from phenopipe.consistency import config as consistency
from phenopipe.embed import config as embed
from phenopipe.export import config as export
from phenopipe.knobs import Knobs
from phenopipe.phenoprints import config as phenoprints
from phenopipe.pretrain import config as pretrain
from phenopipe.probe import config as probe
from phenopipe.qc import config as qc
from phenopipe.report import config as report
from phenopipe.screen import config as screen
from phenopipe.screen.fetch_config import FetchKnobs
from phenopipe.undersample import config as undersample

STEPS: dict[str, dict[str, type[Knobs]]] = {
    "screen": {
        "simulate": screen.SimulateKnobs,
        "images": screen.ImagesKnobs,
        "profiles": screen.ProfilesKnobs,
        "annotate": screen.AnnotateKnobs,
        "fetch": FetchKnobs,
    },
    "qc": {
        "check": qc.CheckKnobs,
        "images": qc.ImagesKnobs,
        "profiles": qc.ProfilesKnobs,
        "wells": qc.WellsKnobs,
    },
    "undersample": {"wells": undersample.WellsKnobs},
    "embed": {
        "prepare": embed.PrepareKnobs,
        "wells": embed.WellsKnobs,
        "profiles": embed.ProfilesKnobs,
        "random": embed.RandomKnobs,
    },
    "align": {
        "moments": align.MomentsKnobs,
        "fit": align.FitKnobs,
        "middles": align.MiddlesKnobs,
        "center": align.CenterKnobs,
        "apply": align.ApplyKnobs,
        "measure": align.MeasureKnobs,
        "arms": align.ArmsKnobs,
    },
    "consistency": {"pvalues": consistency.PvaluesKnobs},
    "phenoprints": {
        "combine": phenoprints.CombineKnobs,
        "select": phenoprints.SelectKnobs,
        "diversity": phenoprints.DiversityKnobs,
    },
    "pretrain": {
        "mae": pretrain.MaeKnobs,
        "dino": pretrain.DinoKnobs,
        "classifier": pretrain.ClassifierKnobs,
    },
    "probe": {"blocks": probe.BlocksKnobs, "trim": probe.TrimKnobs},
    "benchmark": {
        "aggregate": benchmark.AggregateKnobs,
        "recall": benchmark.RecallKnobs,
        "replicates": benchmark.ReplicatesKnobs,
        "magnitude": benchmark.MagnitudeKnobs,
        "compounds": benchmark.CompoundsKnobs,
        "arms": benchmark.ArmBiasKnobs,
        "classes": benchmark.ClassesKnobs,
    },
    "report": {
        "truth": report.TruthKnobs,
        "tables": report.TablesKnobs,
        "page": report.PageKnobs,
    },
    "export": {
        "h5ad": export.H5adKnobs,
        "zarr": export.ZarrKnobs,
        "profiles": export.ProfilesKnobs,
        "gallery": export.GalleryKnobs,
        "maps": export.MapsKnobs,
        "manifests": export.ManifestsKnobs,
    },
}


def let_steps_be_found(home: Path) -> None:
    """Let ``python -m phenopipe.<stage>.<step>`` work in every job, from any folder.

    The library beside the Snakefile and the Python that runs Snakemake go first; a conda
    environment, where one is asked for, goes before both.
    """
    searched = [str(home), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, searched))
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
