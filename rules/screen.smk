"""
Stage screen: what was done to which well, and where are its pixels?

    in     a public layout, a table of images, a table of profiles, or nothing (simulator)
    out    results/screen/{screen}/{experiment}/wells.parquet, images.parquet,
           images.zarr or profiles.parquet
           results/screen/{screen}/genes.parquet, interactions.parquet
    code   phenopipe/screen
    paper  3.1
"""


rule screen_fetch:
    """A part of a public screen, from where it is published to the data folder."""
    input:
        checksums=checksums,
    output:
        fetched="results/screen/{screen}/fetched.parquet",
    log:
        "logs/screen/fetch/{screen}.log",
    benchmark:
        "logs/benchmarks/screen/fetch/{screen}.tsv"
    # Here, where Snakemake runs: compute nodes often see no network.
    localrule: True
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(1440),
    params:
        knobs=knobs("screen", "fetch"),
        source=source("screen"),
    shell:
        """
        python -m phenopipe.screen.fetch \
            --checksums {input.checksums:q} \
            --fetched {output.fetched:q} \
            --screen {wildcards.screen:q} \
            {params.knobs:q} &>{log:q}
        """


rule screen_simulate:
    """One experiment of a simulated screen, with its planted truth apart."""
    output:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        images="results/screen/{screen}/{experiment}/images.parquet",
        pixels=passing("images", directory("results/screen/{screen}/{experiment}/images.zarr")),
        truth="results/screen/{screen}/{experiment}/truth.parquet",
    log:
        "logs/screen/simulate/{screen}/{experiment}.log",
    benchmark:
        "logs/benchmarks/screen/simulate/{screen}/{experiment}.tsv"
    wildcard_constraints:
        screen=screens_of("simulate"),
    priority: 100
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("screen", "simulate"),
        source=source("screen"),
    shell:
        """
        python -m phenopipe.screen.simulate \
            --wells {output.wells:q} \
            --images {output.images:q} \
            --pixels {output.pixels:q} \
            --truth {output.truth:q} \
            --screen {wildcards.screen:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule screen_images:
    """One experiment of a screen of image files: the user's table or a public layout."""
    input:
        table=tables,
    output:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        images="results/screen/{screen}/{experiment}/images.parquet",
        pixels=passing("images", directory("results/screen/{screen}/{experiment}/images.zarr")),
    log:
        "logs/screen/images/{screen}/{experiment}.log",
    benchmark:
        "logs/benchmarks/screen/images/{screen}/{experiment}.tsv"
    wildcard_constraints:
        screen=screens_of("images"),
    priority: 100
    conda:
        "../envs/phenopipe.yaml"
    threads: 2
    resources:
        mem_mb=memory(4000),
        runtime=minutes(240),
    params:
        knobs=knobs("screen", "images"),
        source=source("screen"),
    shell:
        """
        python -m phenopipe.screen.images \
            --table {input.table:q} \
            --wells {output.wells:q} \
            --images {output.images:q} \
            --pixels {output.pixels:q} \
            --screen {wildcards.screen:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule screen_profiles:
    """One experiment of a screen that comes as a table of features."""
    input:
        table=tables,
    output:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        images="results/screen/{screen}/{experiment}/images.parquet",
        profiles="results/screen/{screen}/{experiment}/profiles.parquet",
    log:
        "logs/screen/profiles/{screen}/{experiment}.log",
    benchmark:
        "logs/benchmarks/screen/profiles/{screen}/{experiment}.tsv"
    wildcard_constraints:
        screen=screens_of("profiles"),
    priority: 100
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        knobs=knobs("screen", "profiles"),
        source=source("screen"),
    shell:
        """
        python -m phenopipe.screen.profiles \
            --table {input.table:q} \
            --wells {output.wells:q} \
            --images {output.images:q} \
            --profiles {output.profiles:q} \
            --screen {wildcards.screen:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule screen_annotate:
    """What is known of the screen's genes and compounds."""
    input:
        genes=annotation("genes"),
        interactions=annotation("interactions"),
    output:
        known_genes="results/screen/{screen}/genes.parquet",
        known_interactions="results/screen/{screen}/interactions.parquet",
    log:
        "logs/screen/annotate/{screen}.log",
    benchmark:
        "logs/benchmarks/screen/annotate/{screen}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(10),
    params:
        knobs=knobs("screen", "annotate"),
        source=source("screen"),
    shell:
        """
        python -m phenopipe.screen.annotate \
            --genes {input.genes:q} \
            --interactions {input.interactions:q} \
            --known-genes {output.known_genes:q} \
            --known-interactions {output.known_interactions:q} \
            --screen {wildcards.screen:q} \
            {params.knobs:q} &>{log:q}
        """


rule screen:
    """Everything up to the stage screen."""
    input:
        targets("screen"),


rule fetch:
    """What `screens: fetch` names, brought to the data folder; nothing else downloads."""
    input:
        targets("fetch"),
