"""
Stage report: what did we learn?

    in     every tidy table above
    out    results/report/index.html, truth.parquet, tables.md, tables.html,
           tables_maps.csv, tables_compounds.csv
    code   phenopipe/report
    paper  all figures and tables
"""


rule report_truth:
    """What the chain found of the truth that the simulator planted."""
    input:
        truth=of_truth("truth"),
        flags=of_truth("flags"),
        combined=of_truth("combined"),
        manifests=of_truth("manifests"),
        embeddings=of_truth("embeddings"),
        aligned=of_truth("aligned"),
        arms=of_truth("arms"),
        recall_pairs=of_truth("recall_pairs"),
        replicates_matches=of_truth("replicates_matches"),
        recall=of_truth("recall"),
        replicates=of_truth("replicates"),
        folders=of_truth("encoders"),
        predictions=of_truth("predictions"),
        blocks=of_truth("blocks"),
    output:
        found="results/report/truth.parquet",
    log:
        "logs/report/truth.log",
    benchmark:
        "logs/benchmarks/report/truth.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        knobs=knobs("report", "truth"),
        source=source("report"),
    shell:
        """
        python -m phenopipe.report.truth @<(printf '%s\n' \
            --truth {input.truth:q} \
            --flags {input.flags:q} \
            --combined {input.combined:q} \
            --manifests {input.manifests:q} \
            --embeddings {input.embeddings:q} \
            --aligned {input.aligned:q} \
            --arms {input.arms:q} \
            --recall-pairs {input.recall_pairs:q} \
            --replicates-matches {input.replicates_matches:q} \
            --recall {input.recall:q} \
            --replicates {input.replicates:q} \
            --folders {input.folders:q} \
            --predictions {input.predictions:q} \
            --blocks {input.blocks:q}) \
            --found {output.found:q} \
            {params.knobs:q} &>{log:q}
        """


rule report_tables:
    """Benchmarks in the shape of the paper's tables, its own numbers beside ours."""
    input:
        recall=of_page("recall"),
        replicates=of_page("replicates"),
        replicates_pairs=of_page("replicates_pairs"),
        magnitude=of_page("magnitude"),
        compounds=of_page("compounds"),
        paper=paper,
    output:
        maps="results/report/tables_maps.csv",
        doses="results/report/tables_compounds.csv",
        markdown="results/report/tables.md",
        html="results/report/tables.html",
    log:
        "logs/report/tables.log",
    benchmark:
        "logs/benchmarks/report/tables.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=minutes(30),
    params:
        knobs=knobs("report", "tables"),
        source=source("report"),
    shell:
        """
        python -m phenopipe.report.tables \
            --recall {input.recall:q} \
            --replicates {input.replicates:q} \
            --replicates-pairs {input.replicates_pairs:q} \
            --magnitude {input.magnitude:q} \
            --compounds {input.compounds:q} \
            --paper {input.paper:q} \
            --maps {output.maps:q} \
            --doses {output.doses:q} \
            --markdown {output.markdown:q} \
            --html {output.html:q} \
            {params.knobs:q} &>{log:q}
        """


rule report_page:
    """One page that opens offline and tells the whole run."""
    input:
        wells=of_page("wells"),
        images=of_page("images"),
        pixels=of_page("pixels"),
        defects=of_page("defects"),
        metrics=of_page("metrics"),
        flags=of_page("flags"),
        funnels=of_page("funnels"),
        diversity=of_page("diversity"),
        manifests=of_page("manifests"),
        combined=of_page("combined"),
        pvalues=of_page("pvalues"),
        histories=of_page("histories"),
        reconstructions=of_page("reconstructions"),
        panels=of_page("panels"),
        embeddings=of_page("embeddings"),
        aligned=of_page("aligned"),
        controls=of_page("controls"),
        measures=of_page("measures"),
        blocks=of_page("blocks"),
        best=of_page("best"),
        maps=of_page("maps"),
        neighbours=of_page("neighbours"),
        encoders=of_page("encoders"),
        recall=of_page("recall"),
        replicates=of_page("replicates"),
        replicates_pairs=of_page("replicates_pairs"),
        magnitude=of_page("magnitude"),
        magnitude_perturbations=of_page("magnitude_perturbations"),
        compounds=of_page("compounds"),
        classes=of_page("classes"),
        arm_bias=of_page("arm_bias"),
        truth=of_page("found"),
    output:
        page="results/report/index.html",
    log:
        "logs/report/page.log",
    benchmark:
        "logs/benchmarks/report/page.tsv"
    conda:
        "../envs/phenopipe.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        knobs=knobs("report", "page"),
        source=source("report"),
    shell:
        """
        python -m phenopipe.report.page @<(printf '%s\n' \
            --wells {input.wells:q} \
            --images {input.images:q} \
            --pixels {input.pixels:q} \
            --defects {input.defects:q} \
            --metrics {input.metrics:q} \
            --flags {input.flags:q} \
            --funnels {input.funnels:q} \
            --diversity {input.diversity:q} \
            --manifests {input.manifests:q} \
            --combined {input.combined:q} \
            --pvalues {input.pvalues:q} \
            --histories {input.histories:q} \
            --reconstructions {input.reconstructions:q} \
            --panels {input.panels:q} \
            --embeddings {input.embeddings:q} \
            --aligned {input.aligned:q} \
            --controls {input.controls:q} \
            --measures {input.measures:q} \
            --blocks {input.blocks:q} \
            --best {input.best:q} \
            --maps {input.maps:q} \
            --neighbours {input.neighbours:q} \
            --encoders {input.encoders:q} \
            --recall {input.recall:q} \
            --replicates {input.replicates:q} \
            --replicates-pairs {input.replicates_pairs:q} \
            --magnitude {input.magnitude:q} \
            --magnitude-perturbations {input.magnitude_perturbations:q} \
            --compounds {input.compounds:q} \
            --classes {input.classes:q} \
            --arm-bias {input.arm_bias:q} \
            --truth {input.truth:q}) \
            --page {output.page:q} \
            {params.knobs:q} &>{log:q}
        """


rule report:
    """Everything up to the stage report."""
    input:
        targets("report"),
