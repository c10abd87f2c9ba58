"""
Stage probe: which block separates biology best?

    in     results/embed/{screen}/{encoder}/{experiment}.zarr
           results/qc/{screen}/{experiment}/wells.parquet
    out    results/probe/{encoder}/{task}/blocks.parquet, best_block.json,
           predictions.parquet
           results/encoders/{encoder}/ of trimmed encoders
    code   phenopipe/probe
    paper  4, A.4, A.5
"""


rule probe_blocks:
    """Balanced accuracy of every block on held-out experiments."""
    input:
        embeddings=of_probe("results/embed/{screen}/{encoder}/{experiment}.zarr"),
        wells=of_probe("results/qc/{screen}/{experiment}/wells.parquet"),
        groups=groups,
    output:
        blocks="results/probe/{encoder}/{task}/blocks.parquet",
        best="results/probe/{encoder}/{task}/best_block.json",
        predictions="results/probe/{encoder}/{task}/predictions.parquet",
    log:
        "logs/probe/blocks/{encoder}/{task}.log",
    benchmark:
        "logs/benchmarks/probe/blocks/{encoder}/{task}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000),
        runtime=minutes(120),
    params:
        knobs=knobs("probe", "blocks"),
        source=source("probe"),
    shell:
        """
        python -m phenopipe.probe.blocks \
            --embeddings {input.embeddings:q} \
            --wells {input.wells:q} \
            --groups {input.groups:q} \
            --blocks {output.blocks:q} \
            --best {output.best:q} \
            --predictions {output.predictions:q} \
            --encoder {wildcards.encoder:q} \
            --task {wildcards.task:q} \
            {params.knobs:q} &>{log:q}
        """


rule probe_trim:
    """An encoder cut after its best block."""
    input:
        model=trimmed_from("model.safetensors"),
        config=trimmed_from("config.json"),
        best=best_block,
    output:
        trimmed_model="results/encoders/{encoder}/model.safetensors",
        trimmed_config="results/encoders/{encoder}/config.json",
        card="results/encoders/{encoder}/README.md",
    log:
        "logs/probe/trim/{encoder}.log",
    benchmark:
        "logs/benchmarks/probe/trim/{encoder}.tsv"
    wildcard_constraints:
        encoder=encoders_of("trimmed"),
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=minutes(30),
    params:
        knobs=knobs("probe", "trim"),
        source=source("probe"),
    shell:
        """
        python -m phenopipe.probe.trim \
            --model {input.model:q} \
            --config {input.config:q} \
            --best {input.best:q} \
            --trimmed-model {output.trimmed_model:q} \
            --trimmed-config {output.trimmed_config:q} \
            --card {output.card:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule probe:
    """Everything up to the stage probe."""
    input:
        targets("probe"),
