"""
Stage qc: which images and wells can be trusted?

    in     results/screen/{screen}/{experiment}/wells.parquet, images.parquet, images.zarr
    out    results/qc/{screen}/defects.parquet
           results/qc/{screen}/{experiment}/metrics.parquet, wells.parquet
    code   phenopipe/qc
    paper  A.1 steps 1-2
"""


rule qc_check:
    """What is wrong with a whole screen, before any expensive work."""
    input:
        wells=of_screen("results/screen/{screen}/{experiment}/wells.parquet"),
        images=of_screen("results/screen/{screen}/{experiment}/images.parquet"),
    output:
        defects="results/qc/{screen}/defects.parquet",
    log:
        "logs/qc/check/{screen}.log",
    benchmark:
        "logs/benchmarks/qc/check/{screen}.tsv"
    # Before all other jobs that are ready; the imports that it reads go before it.
    priority: 90
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("qc", "check"),
        source=source("qc"),
    shell:
        """
        python -m phenopipe.qc.check \
            --wells {input.wells:q} \
            --images {input.images:q} \
            --defects {output.defects:q} \
            --screen {wildcards.screen:q} \
            {params.knobs:q} &>{log:q}
        """


rule qc_images:
    """Focus, saturation, dead cells and other measures of every site."""
    input:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        images="results/screen/{screen}/{experiment}/images.parquet",
        pixels="results/screen/{screen}/{experiment}/images.zarr",
    output:
        metrics="results/qc/{screen}/{experiment}/metrics.parquet",
    log:
        "logs/qc/images/{screen}/{experiment}.log",
    benchmark:
        "logs/benchmarks/qc/images/{screen}/{experiment}.tsv"
    wildcard_constraints:
        screen=screens_of("simulate", "images"),
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(120),
    params:
        knobs=knobs("qc", "images"),
        source=source("qc"),
    shell:
        """
        python -m phenopipe.qc.images \
            --wells {input.wells:q} \
            --images {input.images:q} \
            --pixels {input.pixels:q} \
            --metrics {output.metrics:q} \
            --screen {wildcards.screen:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule qc_profiles:
    """Missing features of every well of a screen without images."""
    input:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        profiles="results/screen/{screen}/{experiment}/profiles.parquet",
    output:
        metrics="results/qc/{screen}/{experiment}/metrics.parquet",
    log:
        "logs/qc/profiles/{screen}/{experiment}.log",
    benchmark:
        "logs/benchmarks/qc/profiles/{screen}/{experiment}.tsv"
    wildcard_constraints:
        screen=screens_of("profiles"),
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("qc", "profiles"),
        source=source("qc"),
    shell:
        """
        python -m phenopipe.qc.profiles \
            --wells {input.wells:q} \
            --profiles {input.profiles:q} \
            --metrics {output.metrics:q} \
            --screen {wildcards.screen:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule qc_wells:
    """Every well's failed tests, with reasons."""
    input:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        images="results/screen/{screen}/{experiment}/images.parquet",
        metrics="results/qc/{screen}/{experiment}/metrics.parquet",
    output:
        flags="results/qc/{screen}/{experiment}/wells.parquet",
    log:
        "logs/qc/wells/{screen}/{experiment}.log",
    benchmark:
        "logs/benchmarks/qc/wells/{screen}/{experiment}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("qc", "wells"),
        source=source("qc"),
    shell:
        """
        python -m phenopipe.qc.wells \
            --wells {input.wells:q} \
            --images {input.images:q} \
            --metrics {input.metrics:q} \
            --flags {output.flags:q} \
            --screen {wildcards.screen:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule qc:
    """Everything up to the stage qc."""
    input:
        targets("qc"),
