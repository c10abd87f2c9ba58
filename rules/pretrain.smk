"""
Stage pretrain: how does an encoder learn from a manifest, or from labels?

    in     results/phenoprints/{manifest}/manifest.parquet
           results/screen/{screen}/{experiment}/images.parquet, images.zarr
           results/encoders/{start}/ of the encoder to start from, if any
    out    results/encoders/{encoder}/model.safetensors, config.json, README.md
           results/pretrain/{encoder}/history.parquet, reconstructions.npz, panels/
           results/pretrain/{encoder}/checkpoints/ with the states of a training under way
           logs/training/{encoder}/log.jsonl and TensorBoard's files
    code   phenopipe/pretrain
    paper  3.2, A.2, A.9
"""


rule pretrain_mae:
    """A masked autoencoder, trained on the wells of a manifest."""
    input:
        manifest=manifest_of_encoder,
        images=of_encoder("results/screen/{screen}/{experiment}/images.parquet"),
        pixels=of_encoder("results/screen/{screen}/{experiment}/images.zarr"),
        start_model=start("model.safetensors"),
        start_config=start("config.json"),
    output:
        model="results/encoders/{encoder}/model.safetensors",
        config="results/encoders/{encoder}/config.json",
        card="results/encoders/{encoder}/README.md",
        history="results/pretrain/{encoder}/history.parquet",
        reconstructions="results/pretrain/{encoder}/reconstructions.npz",
        panels=directory("results/pretrain/{encoder}/panels"),
    log:
        "logs/pretrain/mae/{encoder}.log",
    benchmark:
        "logs/benchmarks/pretrain/mae/{encoder}.tsv"
    wildcard_constraints:
        encoder=encoders_of("mae", "ca_mae"),
    # Training is the longest way through the DAG: start it as soon as its input is there.
    priority: 10
    conda:
        "../envs/phenopipe.yaml"
    # Threads wait for one another: on a busy machine two can be slower than one.
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=1440,
        # How many processes train together; what comes out does not depend on it.
        processes=1,
        # Nodes on which SLURM starts them (phenopipe/site.py); 0: they start here.
        srun_nodes=0,
    params:
        knobs=knobs("pretrain", "mae"),
        version=2,
    shell:
        """
        PHENOPIPE_PROCESSES={resources.processes} \
            PHENOPIPE_NODES={resources.srun_nodes} \
            python -m phenopipe.pretrain.mae \
            --manifest {input.manifest:q} \
            --images {input.images:q} \
            --pixels {input.pixels:q} \
            --start-model {input.start_model:q} \
            --start-config {input.start_config:q} \
            --model {output.model:q} \
            --config {output.config:q} \
            --card {output.card:q} \
            --history {output.history:q} \
            --reconstructions {output.reconstructions:q} \
            --panels {output.panels:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule pretrain_dino:
    """A student and its teacher (DINOv2), trained on the wells of a manifest."""
    input:
        manifest=manifest_of_encoder,
        images=of_encoder("results/screen/{screen}/{experiment}/images.parquet"),
        pixels=of_encoder("results/screen/{screen}/{experiment}/images.zarr"),
        start_model=start("model.safetensors"),
        start_config=start("config.json"),
    output:
        model="results/encoders/{encoder}/model.safetensors",
        config="results/encoders/{encoder}/config.json",
        card="results/encoders/{encoder}/README.md",
        history="results/pretrain/{encoder}/history.parquet",
    log:
        "logs/pretrain/dino/{encoder}.log",
    benchmark:
        "logs/benchmarks/pretrain/dino/{encoder}.tsv"
    wildcard_constraints:
        encoder=encoders_of("dino"),
    # Training is the longest way through the DAG: start it as soon as its input is there.
    priority: 10
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=1440,
        # How many processes train together; what comes out does not depend on it.
        processes=1,
        # Nodes on which SLURM starts them (phenopipe/site.py); 0: they start here.
        srun_nodes=0,
    params:
        knobs=knobs("pretrain", "dino"),
        version=1,
    shell:
        """
        PHENOPIPE_PROCESSES={resources.processes} \
            PHENOPIPE_NODES={resources.srun_nodes} \
            python -m phenopipe.pretrain.dino \
            --manifest {input.manifest:q} \
            --images {input.images:q} \
            --pixels {input.pixels:q} \
            --start-model {input.start_model:q} \
            --start-config {input.start_config:q} \
            --model {output.model:q} \
            --config {output.config:q} \
            --card {output.card:q} \
            --history {output.history:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule pretrain_classifier:
    """A classifier of the labels of a screen, without its head an encoder."""
    input:
        wells=of_encoder("results/qc/{screen}/{experiment}/wells.parquet"),
        images=of_encoder("results/screen/{screen}/{experiment}/images.parquet"),
        pixels=of_encoder("results/screen/{screen}/{experiment}/images.zarr"),
        start_model=start("model.safetensors"),
        start_config=start("config.json"),
    output:
        model="results/encoders/{encoder}/model.safetensors",
        config="results/encoders/{encoder}/config.json",
        card="results/encoders/{encoder}/README.md",
        history="results/pretrain/{encoder}/history.parquet",
    log:
        "logs/pretrain/classifier/{encoder}.log",
    benchmark:
        "logs/benchmarks/pretrain/classifier/{encoder}.tsv"
    wildcard_constraints:
        encoder=encoders_of("classifier"),
    # Training is the longest way through the DAG: start it as soon as its input is there.
    priority: 10
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=1440,
        # How many processes train together; what comes out does not depend on it.
        processes=1,
        # Nodes on which SLURM starts them (phenopipe/site.py); 0: they start here.
        srun_nodes=0,
    params:
        knobs=knobs("pretrain", "classifier"),
        version=2,
    shell:
        """
        PHENOPIPE_PROCESSES={resources.processes} \
            PHENOPIPE_NODES={resources.srun_nodes} \
            python -m phenopipe.pretrain.classifier \
            --wells {input.wells:q} \
            --images {input.images:q} \
            --pixels {input.pixels:q} \
            --start-model {input.start_model:q} \
            --start-config {input.start_config:q} \
            --model {output.model:q} \
            --config {output.config:q} \
            --card {output.card:q} \
            --history {output.history:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule pretrain:
    """Everything up to the stage pretrain."""
    input:
        targets("pretrain"),
