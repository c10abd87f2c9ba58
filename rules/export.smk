"""
Stage export: how do other tools read what we made?

    in     results/align/{screen}/{encoder}/{experiment}/embeddings.parquet
           results/benchmark/{benchmark}/{encoder}/map.parquet
           results/phenoprints/{manifest}/manifest.parquet
    out    results/export/wells, results/export/maps, results/export/manifests
    code   phenopipe/export
    paper  none
"""


rule export_h5ad:
    """Aligned wells of a screen as one AnnData file."""
    input:
        aligned=of_screen("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
    output:
        exported="results/export/wells/{screen}/{encoder}.h5ad",
    log:
        "logs/export/h5ad/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/export/h5ad/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        knobs=knobs("export", "h5ad"),
        source=source("export"),
    shell:
        """
        python -m phenopipe.export.h5ad \
            --aligned {input.aligned:q} \
            --exported {output.exported:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule export_zarr:
    """Aligned wells of a screen as one AnnData store."""
    input:
        aligned=of_screen("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
    output:
        exported=directory("results/export/wells/{screen}/{encoder}.zarr"),
    log:
        "logs/export/zarr/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/export/zarr/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        knobs=knobs("export", "zarr"),
        source=source("export"),
    shell:
        """
        python -m phenopipe.export.zarr \
            --aligned {input.aligned:q} \
            --exported {output.exported:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule export_profiles:
    """Aligned wells of one experiment as a wide table, for pycytominer and copairs."""
    input:
        aligned="results/align/{screen}/{encoder}/{experiment}/embeddings.parquet",
    output:
        exported="results/export/wells/{screen}/{encoder}/{experiment}.parquet",
    log:
        "logs/export/profiles/{screen}/{encoder}/{experiment}.log",
    benchmark:
        "logs/benchmarks/export/profiles/{screen}/{encoder}/{experiment}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        knobs=knobs("export", "profiles"),
        source=source("export"),
    shell:
        """
        python -m phenopipe.export.profiles \
            --aligned {input.aligned:q} \
            --exported {output.exported:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            --experiment {wildcards.experiment:q} \
            {params.knobs:q} &>{log:q}
        """


rule export_gallery:
    """Aligned wells of a screen in the tree of the Cell Painting Gallery."""
    input:
        aligned=of_screen("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        transform="results/align/{screen}/{encoder}/transform.npz",
    output:
        exported=directory("results/export/gallery/{screen}/{encoder}"),
    log:
        "logs/export/gallery/{screen}/{encoder}.log",
    benchmark:
        "logs/benchmarks/export/gallery/{screen}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        knobs=knobs("export", "gallery"),
        source=source("export"),
    shell:
        """
        python -m phenopipe.export.gallery \
            --aligned {input.aligned:q} \
            --transform {input.transform:q} \
            --exported {output.exported:q} \
            --screen {wildcards.screen:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule export_maps:
    """A map of genes and compounds as an AnnData file."""
    input:
        map="results/benchmark/{benchmark}/{encoder}/map.parquet",
    output:
        exported="results/export/maps/{benchmark}/{encoder}.h5ad",
    log:
        "logs/export/maps/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/export/maps/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        knobs=knobs("export", "maps"),
        source=source("export"),
    shell:
        """
        python -m phenopipe.export.maps \
            --map {input.map:q} \
            --exported {output.exported:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule export_manifests:
    """A training set with one flat row a well."""
    input:
        wells="results/phenoprints/{manifest}/manifest.parquet",
    output:
        parquet="results/export/manifests/{manifest}.parquet",
        csv="results/export/manifests/{manifest}.csv",
    log:
        "logs/export/manifests/{manifest}.log",
    benchmark:
        "logs/benchmarks/export/manifests/{manifest}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        knobs=knobs("export", "manifests"),
        source=source("export"),
    shell:
        """
        python -m phenopipe.export.manifests \
            --wells {input.wells:q} \
            --parquet {output.parquet:q} \
            --csv {output.csv:q} \
            --manifest {wildcards.manifest:q} \
            {params.knobs:q} &>{log:q}
        """


rule export:
    """What other tools read; `exports` of the configuration says in which forms."""
    input:
        targets("export"),
