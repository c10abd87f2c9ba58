"""
phenopipe: from a high-content microscopy screen to a trusted map of biology.

    snakemake --profile local all        the embedded demo on this machine
    snakemake --profile slurm all        the same on a SLURM cluster
    snakemake --profile local probe      up to one stage

Stages stand in the order in which data flows; each has one file in rules/.
"""

from snakemake.utils import min_version

min_version("9.27")

if "screens" not in config:

    configfile: str(workflow.current_basedir.join("workflow_config.yaml"))


include: "rules/common.smk"
include: "rules/screen.smk"
include: "rules/qc.smk"
include: "rules/undersample.smk"
include: "rules/embed.smk"
include: "rules/align.smk"
include: "rules/consistency.smk"
include: "rules/phenoprints.smk"
include: "rules/pretrain.smk"
include: "rules/probe.smk"
include: "rules/benchmark.smk"
include: "rules/report.smk"
include: "rules/export.smk"


rule all:
    """The report and everything behind it."""
    default_target: True
    input:
        targets("report"),


onerror:
    tell_failures(log)
