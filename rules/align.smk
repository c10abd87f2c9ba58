"""
Stage align: what of an embedding is batch effect?

    in     results/embed/{screen}/{encoder}/{experiment}.zarr
           results/qc/{screen}/{experiment}/wells.parquet
    out    results/align/{screen}/{encoder}/transform.npz, arms.parquet
           results/align/{screen}/{encoder}/{experiment}/embeddings.parquet
    code   phenopipe/align
    paper  3.1, 5, 6, A.6
"""


rule align_fit:
    """The transform that typical variation of the controls defines."""
    input:
        embeddings=of_fit("results/embed/{screen}/{encoder}/{experiment}.zarr"),
        wells=of_fit("results/qc/{screen}/{experiment}/wells.parquet"),
    output:
        transform="results/align/{screen}/{encoder}/transform.npz",
    log:
        "logs/align/fit/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/align/fit/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        knobs=knobs("align", "fit"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.fit \
            --embeddings {input.embeddings:q} \
            --wells {input.wells:q} \
            --transform {output.transform:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule align_apply:
    """Aligned embeddings of one experiment's wells that pass qc."""
    input:
        embeddings="results/embed/{screen}/{encoder}/{experiment}.zarr",
        wells="results/qc/{screen}/{experiment}/wells.parquet",
        transform="results/align/{screen}/{encoder}/transform.npz",
    output:
        aligned="results/align/{screen}/{encoder}/{experiment}/embeddings.parquet",
    log:
        "logs/align/apply/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/align/apply/{screen}/{encoder}/{experiment}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        knobs=knobs("align", "apply"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.apply \
            --embeddings {input.embeddings:q} \
            --wells {input.wells:q} \
            --transform {input.transform:q} \
            --aligned {output.aligned:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule align_arms:
    """The offset that each gene's chromosome arm shares with unexpressed genes."""
    input:
        aligned=of_fit("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        genes="results/screen/{screen}/genes.parquet",
    output:
        arms="results/align/{screen}/{encoder}/arms.parquet",
    log:
        "logs/align/arms/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/align/arms/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        knobs=knobs("align", "arms"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.arms \
            --aligned {input.aligned:q} \
            --genes {input.genes:q} \
            --arms {output.arms:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule align:
    """Everything up to the stage align."""
    input:
        targets("align"),
