"""
Stage benchmark: how good is the map?

    in     results/align/{screen}/{encoder}/{experiment}/embeddings.parquet, arms.parquet
    out    results/benchmark/{benchmark}/{encoder}/map.parquet, neighbours.parquet,
           recall.parquet, replicates.parquet, magnitude.parquet, compounds.parquet,
           arms.parquet, classes.parquet
    code   phenopipe/benchmark
    paper  5, 6, A.6, A.7, A.10, A.11
"""


rule benchmark_aggregate:
    """The map: one embedding a gene or compound, and its neighbours."""
    input:
        aligned=of_benchmark("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        arms=arms,
        genes=known_genes,
    output:
        map="results/benchmark/{benchmark}/{encoder}/map.parquet",
        neighbours="results/benchmark/{benchmark}/{encoder}/neighbours.parquet",
    log:
        "logs/benchmark/aggregate/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/benchmark/aggregate/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("benchmark", "aggregate"),
        source=source("benchmark"),
    shell:
        """
        python -m phenopipe.benchmark.aggregate \
            --aligned {input.aligned:q} \
            --arms {input.arms:q} \
            --genes {input.genes:q} \
            --map {output.map:q} \
            --neighbours {output.neighbours:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule benchmark_recall:
    """Known relationships found in the tails of all similarities."""
    input:
        map="results/benchmark/{benchmark}/{encoder}/map.parquet",
        pairs=pairs,
        genes=known_genes,
        combined=combined,
    output:
        recall="results/benchmark/{benchmark}/{encoder}/recall.parquet",
        recall_pairs="results/benchmark/{benchmark}/{encoder}/recall_pairs.parquet",
    log:
        "logs/benchmark/recall/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/benchmark/recall/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("benchmark", "recall"),
        source=source("benchmark"),
    shell:
        """
        python -m phenopipe.benchmark.recall \
            --map {input.map:q} \
            --pairs {input.pairs:q} \
            --genes {input.genes:q} \
            --combined {input.combined:q} \
            --recall {output.recall:q} \
            --recall-pairs {output.recall_pairs:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule benchmark_replicates:
    """How alike technical pairs of experiments see one perturbation."""
    input:
        aligned=of_benchmark("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        arms=arms,
        genes=known_genes,
    output:
        replicates="results/benchmark/{benchmark}/{encoder}/replicates.parquet",
        replicates_pairs="results/benchmark/{benchmark}/{encoder}/replicates_pairs.parquet",
        replicates_matches="results/benchmark/{benchmark}/{encoder}/replicates_matches.parquet",
    log:
        "logs/benchmark/replicates/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/benchmark/replicates/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("benchmark", "replicates"),
        source=source("benchmark"),
    shell:
        """
        python -m phenopipe.benchmark.replicates \
            --aligned {input.aligned:q} \
            --arms {input.arms:q} \
            --genes {input.genes:q} \
            --replicates {output.replicates:q} \
            --replicates-pairs {output.replicates_pairs:q} \
            --replicates-matches {output.replicates_matches:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule benchmark_magnitude:
    """Distance of every condition from the negative controls."""
    input:
        aligned=of_benchmark("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        arms=arms,
    output:
        magnitude="results/benchmark/{benchmark}/{encoder}/magnitude.parquet",
        magnitude_perturbations="results/benchmark/{benchmark}/{encoder}/magnitude_perturbations.parquet",
    log:
        "logs/benchmark/magnitude/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/benchmark/magnitude/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("benchmark", "magnitude"),
        source=source("benchmark"),
    shell:
        """
        python -m phenopipe.benchmark.magnitude \
            --aligned {input.aligned:q} \
            --arms {input.arms:q} \
            --magnitude {output.magnitude:q} \
            --magnitude-perturbations {output.magnitude_perturbations:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule benchmark_compounds:
    """How well compounds rank their known target genes."""
    input:
        aligned=of_benchmark("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        arms=arms,
        interactions=known_interactions,
    output:
        compounds="results/benchmark/{benchmark}/{encoder}/compounds.parquet",
    log:
        "logs/benchmark/compounds/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/benchmark/compounds/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("benchmark", "compounds"),
        source=source("benchmark"),
    shell:
        """
        python -m phenopipe.benchmark.compounds \
            --aligned {input.aligned:q} \
            --arms {input.arms:q} \
            --interactions {input.interactions:q} \
            --compounds {output.compounds:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule benchmark_arms:
    """Whether knockouts on one chromosome arm are alike, before and after correction."""
    input:
        aligned=of_benchmark("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        arms=arms,
    output:
        bias="results/benchmark/{benchmark}/{encoder}/arms.parquet",
    log:
        "logs/benchmark/arms/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/benchmark/arms/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("benchmark", "arms"),
        source=source("benchmark"),
    shell:
        """
        python -m phenopipe.benchmark.arms \
            --aligned {input.aligned:q} \
            --arms {input.arms:q} \
            --bias {output.bias:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule benchmark_classes:
    """Whether what acts most alike, of other compounds, has the same class."""
    input:
        aligned=of_benchmark("results/align/{screen}/{encoder}/{experiment}/embeddings.parquet"),
        arms=arms,
        labels=labels,
    output:
        classes="results/benchmark/{benchmark}/{encoder}/classes.parquet",
        nearest="results/benchmark/{benchmark}/{encoder}/nearest.parquet",
    log:
        "logs/benchmark/classes/{benchmark}/{encoder}.log",
    benchmark:
        "logs/benchmarks/benchmark/classes/{benchmark}/{encoder}.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        knobs=knobs("benchmark", "classes"),
        source=source("benchmark"),
    shell:
        """
        python -m phenopipe.benchmark.classes \
            --aligned {input.aligned:q} \
            --arms {input.arms:q} \
            --labels {input.labels:q} \
            --classes {output.classes:q} \
            --nearest {output.nearest:q} \
            --benchmark {wildcards.benchmark:q} \
            --encoder {wildcards.encoder:q} \
            {params.knobs:q} &>{log:q}
        """


rule benchmark:
    """Everything up to the stage benchmark."""
    input:
        targets("benchmark"),
