"""
Stage embed: what does an encoder see in every well, at every block?

    in     results/screen/{screen}/{experiment}/images.parquet, images.zarr
           results/encoders/{encoder}/
    out    results/embed/{screen}/{encoder}/{experiment}.zarr
           results/encoders/{encoder}/ of encoders that are not trained here
    code   phenopipe/embed
    paper  3.2, 4
"""


rule embed_prepare:
    """The folder of an encoder that is not trained here."""
    input:
        weights=weights,
    output:
        model="results/encoders/{encoder}/model.safetensors",
        config="results/encoders/{encoder}/config.json",
        card="results/encoders/{encoder}/README.md",
    log:
        "logs/embed/prepare/{encoder}.log",
    benchmark:
        "logs/benchmarks/embed/prepare/{encoder}.tsv"
    wildcard_constraints:
        encoder=encoders_of("timm", "imported", "pixels"),
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(30),
    params:
        knobs=knobs("embed", "prepare"),
        version=2,
    shell:
        """
        python -m phenopipe.embed.prepare \
            --weights {input.weights:q} \
            --model {output.model:q} \
            --config {output.config:q} \
            --card {output.card:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule embed_wells:
    """Mean embedding of every well's crops at every block."""
    input:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        images="results/screen/{screen}/{experiment}/images.parquet",
        pixels="results/screen/{screen}/{experiment}/images.zarr",
        model="results/encoders/{encoder}/model.safetensors",
        config="results/encoders/{encoder}/config.json",
    output:
        embeddings=passing(
            "embeddings", directory("results/embed/{screen}/{encoder}/{experiment}.zarr")
        ),
    log:
        "logs/embed/wells/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/embed/wells/{screen}/{encoder}/{experiment}.tsv"
    wildcard_constraints:
        encoder=encoders_of(
            *("timm", "imported", "pixels", "trimmed"),
            *("mae", "ca_mae", "dino", "classifier"),
        ),
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000),
        runtime=minutes(240),
    params:
        knobs=knobs("embed", "wells"),
        version=2,
    shell:
        """
        python -m phenopipe.embed.wells \
            --wells {input.wells:q} \
            --images {input.images:q} \
            --pixels {input.pixels:q} \
            --model {input.model:q} \
            --config {input.config:q} \
            --embeddings {output.embeddings:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule embed_profiles:
    """Features that came with the screen, in the form of embeddings."""
    input:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
        profiles="results/screen/{screen}/{experiment}/profiles.parquet",
    output:
        embeddings=passing(
            "embeddings", directory("results/embed/{screen}/{encoder}/{experiment}.zarr")
        ),
    log:
        "logs/embed/profiles/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/embed/profiles/{screen}/{encoder}/{experiment}.tsv"
    wildcard_constraints:
        encoder=encoders_of("profiles"),
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("embed", "profiles"),
        version=1,
    shell:
        """
        python -m phenopipe.embed.profiles \
            --wells {input.wells:q} \
            --profiles {input.profiles:q} \
            --embeddings {output.embeddings:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule embed_random:
    """Numbers that know nothing of the cells, in the form of embeddings."""
    input:
        wells="results/screen/{screen}/{experiment}/wells.parquet",
    output:
        embeddings=passing(
            "embeddings", directory("results/embed/{screen}/{encoder}/{experiment}.zarr")
        ),
    log:
        "logs/embed/random/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/embed/random/{screen}/{encoder}/{experiment}.tsv"
    wildcard_constraints:
        encoder=encoders_of("random"),
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("embed", "random"),
        version=1,
    shell:
        """
        python -m phenopipe.embed.random \
            --wells {input.wells:q} \
            --embeddings {output.embeddings:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule embed:
    """Everything up to the stage embed."""
    input:
        targets("embed"),
