"""Shared by all stages: the checked configuration, and where each rule's files come from.

Input functions are named after what they gather: `of_screen` all experiments of the
wildcard's screen, `of_manifest` all experiments of its manifest, and so on. Every one
only fills a path pattern; which names belong together is decided in phenopipe/wiring.py.
"""

import json
import os
import re
import sys
from pathlib import Path

HOME = Path(str(workflow.basedir))
sys.path.insert(0, str(HOME))

from phenopipe.config import load_config
from phenopipe.entries import NAME, STEP_OF_SOURCE
from phenopipe.errors import UserError
from phenopipe.failures import tell_failures
from phenopipe.knobs import SOURCES
from phenopipe.provenance import source_digest
from phenopipe.steps import STEPS, let_steps_be_found
from phenopipe.wiring import Wiring

let_steps_be_found(HOME)

try:
    CONFIG = load_config(config)
    WIRING = Wiring(CONFIG, HOME)
except UserError as error:
    # One line for the user; a traceback of ours would hide it.
    sys.exit(f"error in the configuration: {error}")


# Jobs write the digest of their code beside their results. On a cluster every job starts a
# Snakemake of its own, which has them from the one that scheduled it.
if workflow.is_main_process or SOURCES not in os.environ:
    os.environ[SOURCES] = json.dumps({stage: source_digest(stage) for stage in STEPS})
DIGESTS = json.loads(os.environ[SOURCES])


def knobs(stage, step):
    """One step's knobs as flags, for example ['--n-null=1000', '--seed=0']."""
    return lambda wildcards: CONFIG.knobs(stage, step, **wildcards).as_flags()


def source(stage):
    """Digest of a stage's code, so that new code reruns its steps."""
    return DIGESTS[stage]


def memory(base):
    """Megabytes for a job: its base and four times its tables, more at each attempt."""
    return lambda wildcards, input, attempt: round((base + 4 * _size_mb(input)) * attempt)


def minutes(base):
    """Minutes for a job: its base and one for each 100 MB of tables, more at each attempt."""
    return lambda wildcards, input, attempt: round((base + 0.01 * _size_mb(input)) * attempt)


def passing(kind, path):
    """An output that Snakemake deletes after its last use, if the configuration says so."""
    return temp(path) if kind in CONFIG.drop else path


def _size_mb(paths):
    # Stores of pixels and embeddings are folders, read piece by piece: they don't count.
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) / 1e6


def _filler(method):
    """An input function that fills a pattern with each set of names that `method` gives."""
    return lambda pattern: lambda wildcards: [
        pattern.format(**{**wildcards, **names}) for names in method(**wildcards)
    ]


of_screen = _filler(WIRING.of_screen)
of_fit = _filler(WIRING.of_fit)
of_centers = _filler(WIRING.of_centers)
of_manifest = _filler(WIRING.of_manifest)
of_judges = _filler(WIRING.of_judges)
of_encoder = _filler(WIRING.of_encoder)
of_probe = _filler(WIRING.of_probe)
of_benchmark = _filler(WIRING.of_benchmark)


def tables(wildcards):
    """The tables behind one experiment: the user's, or those of its public layout."""
    try:
        return WIRING.tables(**wildcards)
    except UserError as error:
        sys.exit(f"error: {error}")


def checksums(wildcards):
    """The table of digests that a public screen's files must have, if it names one."""
    return WIRING.optional(CONFIG.screens[wildcards.screen].fetch.get("checksums"))


def annotation(name):
    """The user's table of genes or interactions, if the screen names one."""
    return lambda wildcards: WIRING.optional(getattr(CONFIG.screens[wildcards.screen], name))


def weights(wildcards):
    """The file of weights that an encoder starts from, if it names one."""
    try:
        return WIRING.weights(**wildcards)
    except UserError as error:
        sys.exit(f"error: {error}")


def start(file):
    """One file of the folder of the encoder that a training starts from, if it names one."""
    return lambda wildcards: WIRING.start(file, **wildcards)


def manifest_of_encoder(wildcards):
    """The manifest that an encoder learns from."""
    name = CONFIG.encoders[wildcards.encoder].manifest
    return f"results/phenoprints/{name}/manifest.parquet"


def groups(wildcards):
    """The table of gene groups of a probe task, if its label is the group."""
    return WIRING.groups(**wildcards)


def trimmed_from(file):
    """One file of the folder of the encoder that is trimmed."""
    return lambda wildcards: f"results/encoders/{CONFIG.encoders[wildcards.encoder].of}/{file}"


def best_block(wildcards):
    """The probe result that says where to trim."""
    trimmed = CONFIG.encoders[wildcards.encoder]
    task = trimmed.task or CONFIG.trim_by
    return f"results/probe/{trimmed.of}/{task}/best_block.json"


def arms(wildcards):
    """The chromosome-arm offsets, if the screen has a table of genes."""
    return WIRING.arms(**wildcards)


def known_genes(wildcards):
    """The screen's table of genes with their arms and expression, if there is one."""
    return WIRING.known_genes(**wildcards)


def labels(wildcards):
    """The table of compounds and their classes."""
    return WIRING.labels(**wildcards)


def combined(wildcards):
    """The p-values that say which genes have a phenoprint, if recall asks for them."""
    return WIRING.combined(**wildcards)


def known_interactions(wildcards):
    """The screen's table of compounds and their target genes."""
    screen = CONFIG.benchmarks[wildcards.benchmark].screen
    return f"results/screen/{screen}/interactions.parquet"


def pairs(wildcards):
    """The tables of known relationships, in the order of the knob `sources`."""
    return WIRING.pairs(**wildcards)


def paper(wildcards):
    """The paper's own numbers."""
    return WIRING.paper()


def of_page(kind):
    """All files of one kind that the report shows."""
    return WIRING.files(kind)


def of_truth(kind):
    """All files of one kind of the simulated screens that the planted truth is held against."""
    return WIRING.truth_files(kind)


def targets(stage):
    """The files that a stage makes in this run."""
    return WIRING.targets(stage)


def screens_of(*steps):
    """A wildcard that is a screen which one of these steps of the stage screen reads."""
    return _one_of(
        name for name, one in CONFIG.screens.items() if STEP_OF_SOURCE[one.source] in steps
    )


def encoders_of(*kinds):
    """A wildcard that is an encoder of one of these kinds."""
    return _one_of(name for name, one in CONFIG.encoders.items() if one.kind in kinds)


def _one_of(names):
    # A pattern that matches nothing where the configuration names none.
    return "|".join(sorted(map(re.escape, names))) or "(?!)"


wildcard_constraints:
    screen=NAME,
    experiment=NAME,
    encoder=NAME,
    manifest=NAME,
    task=NAME,
    benchmark=NAME,
