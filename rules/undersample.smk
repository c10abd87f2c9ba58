"""
Stage undersample: which conditions have enough replicates, and how many controls do we keep?

    in     results/qc/{screen}/{experiment}/wells.parquet of all experiments
    out    results/undersample/{manifest}/wells.parquet, funnel.json
    code   phenopipe/undersample
    paper  A.1 steps 3-4
"""


rule undersample_wells:
    """Wells of conditions with enough replicates, controls thinned."""
    input:
        wells=of_manifest("results/qc/{screen}/{experiment}/wells.parquet"),
    output:
        kept="results/undersample/{manifest}/wells.parquet",
        funnel="results/undersample/{manifest}/funnel.json",
    log:
        "logs/undersample/wells/{manifest}.log",
    benchmark:
        "logs/benchmarks/undersample/wells/{manifest}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("undersample", "wells"),
        source=source("undersample"),
    shell:
        """
        python -m phenopipe.undersample.wells \
            --wells {input.wells:q} \
            --kept {output.kept:q} \
            --funnel {output.funnel:q} \
            --manifest {wildcards.manifest:q} \
            {params.knobs:q} &>{log:q}
        """


rule undersample:
    """Everything up to the stage undersample."""
    input:
        targets("undersample"),
