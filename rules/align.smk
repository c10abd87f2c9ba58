"""
Stage align: what of an embedding is batch effect?

    in     results/embed/{screen}/{encoder}/{experiment}.zarr
           results/qc/{screen}/{experiment}/wells.parquet
    out    results/align/{screen}/{encoder}/{experiment}/moments.npz, middles.npz
           results/align/{screen}/{encoder}/axes.npz, transform.npz, controls.parquet
           results/align/{screen}/{encoder}/{experiment}/embeddings.parquet
           results/align/{screen}/{encoder}/measures.parquet, arms.parquet
    code   phenopipe/align
    paper  3.1, 5, 6, A.6
"""


rule align_moments:
    """Moments of one experiment's controls, all that the fit reads of it."""
    input:
        embeddings="results/embed/{screen}/{encoder}/{experiment}.zarr",
        wells="results/qc/{screen}/{experiment}/wells.parquet",
    output:
        moments="results/align/{screen}/{encoder}/{experiment}/moments.npz",
    log:
        "logs/align/moments/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/align/moments/{screen}/{encoder}/{experiment}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("align", "moments"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.moments \
            --embeddings {input.embeddings:q} \
            --wells {input.wells:q} \
            --moments {output.moments:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule align_fit:
    """The axes that typical variation of the controls defines."""
    input:
        moments=of_fit("results/align/{screen}/{encoder}/{experiment}/moments.npz"),
    output:
        axes="results/align/{screen}/{encoder}/axes.npz",
        controls="results/align/{screen}/{encoder}/controls.parquet",
    log:
        "logs/align/fit/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/align/fit/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        knobs=knobs("align", "fit"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.fit \
            --moments {input.moments:q} \
            --axes {output.axes:q} \
            --controls {output.controls:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule align_middles:
    """Where one experiment's middle well lies as seen from its controls."""
    input:
        embeddings="results/embed/{screen}/{encoder}/{experiment}.zarr",
        wells="results/qc/{screen}/{experiment}/wells.parquet",
        axes="results/align/{screen}/{encoder}/axes.npz",
    output:
        middles="results/align/{screen}/{encoder}/{experiment}/middles.npz",
    log:
        "logs/align/middles/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/align/middles/{screen}/{encoder}/{experiment}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("align", "middles"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.middles \
            --embeddings {input.embeddings:q} \
            --wells {input.wells:q} \
            --axes {input.axes:q} \
            --middles {output.middles:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule align_center:
    """The transform that aligns any experiment, from axes and middles."""
    input:
        axes="results/align/{screen}/{encoder}/axes.npz",
        middles=of_centers("results/align/{screen}/{encoder}/{experiment}/middles.npz"),
    output:
        transform="results/align/{screen}/{encoder}/transform.npz",
    log:
        "logs/align/center/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/align/center/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(10),
    params:
        knobs=knobs("align", "center"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.center \
            --axes {input.axes:q} \
            --middles {input.middles:q} \
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
        mem_mb=memory(2000),
        runtime=minutes(30),
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


rule align_measure:
    """How far experiments, and replicates, are told apart before and after."""
    input:
        embeddings=of_fit("results/embed/{screen}/{encoder}/{experiment}.zarr"),
        aligned=of_fit("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
    output:
        measures="results/align/{screen}/{encoder}/measures.parquet",
    log:
        "logs/align/measure/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/align/measure/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("align", "measure"),
        source=source("align"),
    shell:
        """
        python -m phenopipe.align.measure \
            --embeddings {input.embeddings:q} \
            --aligned {input.aligned:q} \
            --measures {output.measures:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
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
        mem_mb=memory(4000),
        runtime=minutes(30),
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


rule apply:
    """Later experiments (`screens: apply`) through finished encoders and transforms."""
    input:
        targets("apply"),
