"""
Stage consistency: which perturbations change the cells the same way every time?

    in     results/align/{screen}/{encoder}/{experiment}/embeddings.parquet
    out    results/consistency/{screen}/{encoder}/{experiment}/pvalues.parquet
    code   phenopipe/consistency
    paper  A.3
"""


rule consistency_pvalues:
    """Permutation p-value of every condition's replicate consistency."""
    input:
        aligned="results/align/{screen}/{encoder}/{experiment}/embeddings.parquet",
    output:
        pvalues="results/consistency/{screen}/{encoder}/{experiment}/pvalues.parquet",
    log:
        "logs/consistency/pvalues/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/consistency/pvalues/{screen}/{encoder}/{experiment}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("consistency", "pvalues"),
        source=source("consistency"),
    shell:
        """
        python -m phenopipe.consistency.pvalues \
            --aligned {input.aligned:q} \
            --pvalues {output.pvalues:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule consistency:
    """Everything up to the stage consistency."""
    input:
        targets("consistency"),
