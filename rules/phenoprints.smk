"""
Stage phenoprints: which wells make the training set?

    in     results/undersample/{manifest}/wells.parquet, funnel.json
           results/consistency/{screen}/{encoder}/{experiment}/pvalues.parquet of all judges
    out    results/phenoprints/{manifest}/pvalues.parquet, manifest.parquet, funnel.json,
           diversity.parquet
    code   phenopipe/phenoprints
    paper  3.1, A.1 step 5
"""


rule phenoprints_combine:
    """One p-value a condition and judge, from all experiments."""
    input:
        pvalues=of_judges("results/consistency/{screen}/{encoder}/{experiment}/pvalues.parquet"),
    output:
        combined="results/phenoprints/{manifest}/pvalues.parquet",
    log:
        "logs/phenoprints/combine/{manifest}.log",
    benchmark:
        "logs/benchmarks/phenoprints/combine/{manifest}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        knobs=knobs("phenoprints", "combine"),
        source=source("phenoprints"),
    shell:
        """
        python -m phenopipe.phenoprints.combine \
            --pvalues {input.pvalues:q} \
            --combined {output.combined:q} \
            --manifest {wildcards.manifest:q} \
            {params.knobs:q} &>{log:q}
        """


rule phenoprints_select:
    """The wells that a phenoprint saves, and the funnel that led to them."""
    input:
        wells="results/undersample/{manifest}/wells.parquet",
        combined="results/phenoprints/{manifest}/pvalues.parquet",
        undersampled="results/undersample/{manifest}/funnel.json",
    output:
        manifest="results/phenoprints/{manifest}/manifest.parquet",
        funnel="results/phenoprints/{manifest}/funnel.json",
    log:
        "logs/phenoprints/select/{manifest}.log",
    benchmark:
        "logs/benchmarks/phenoprints/select/{manifest}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        knobs=knobs("phenoprints", "select"),
        source=source("phenoprints"),
    shell:
        """
        python -m phenopipe.phenoprints.select \
            --wells {input.wells:q} \
            --combined {input.combined:q} \
            --undersampled {input.undersampled:q} \
            --manifest {output.manifest:q} \
            --funnel {output.funnel:q} \
            {params.knobs:q} &>{log:q}
        """


rule phenoprints_diversity:
    """How much of the screen's variety the manifest keeps, as each judge sees it."""
    input:
        wells="results/undersample/{manifest}/wells.parquet",
        chosen="results/phenoprints/{manifest}/manifest.parquet",
        aligned=of_judges("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
    output:
        diversity="results/phenoprints/{manifest}/diversity.parquet",
    log:
        "logs/phenoprints/diversity/{manifest}.log",
    benchmark:
        "logs/benchmarks/phenoprints/diversity/{manifest}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("phenoprints", "diversity"),
        source=source("phenoprints"),
    shell:
        """
        python -m phenopipe.phenoprints.diversity \
            --wells {input.wells:q} \
            --chosen {input.chosen:q} \
            --aligned {input.aligned:q} \
            --diversity {output.diversity:q} \
            --manifest {wildcards.manifest:q} \
            {params.knobs:q} &>{log:q}
        """


rule phenoprints:
    """Everything up to the stage phenoprints."""
    input:
        targets("phenoprints"),
