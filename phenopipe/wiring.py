"""Which files each rule reads: the names of the configuration, multiplied out.

Part of the roof; only ``rules/common.smk`` imports it. ``of_*`` methods answer the input
functions of rules, ``targets`` and ``files`` list what a whole run makes.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from phenopipe.config import WorkflowConfig
from phenopipe.entries import TESTS, Names
from phenopipe.errors import UserError
from phenopipe.screen.adapters import ADAPTERS

TRAINED = ("mae", "ca_mae", "dino", "classifier")
SCREEN = "results/screen/{screen}/{experiment}/"
QC = "results/qc/{screen}/{experiment}/"
EMBED = "results/embed/{screen}/{encoder}/{experiment}.zarr"
ALIGN = "results/align/{screen}/{encoder}/"
ALIGNED = ALIGN + "{experiment}/embeddings.parquet"
PVALUES = "results/consistency/{screen}/{encoder}/{experiment}/pvalues.parquet"
PHENOPRINTS = "results/phenoprints/{manifest}/"
PRETRAIN = "results/pretrain/{encoder}/"
PROBE = "results/probe/{encoder}/{task}/"
BENCHMARK = "results/benchmark/{benchmark}/{encoder}/"
EXPORT = "results/export/"


class Wiring:
    """The configuration as the rules see it.

    Parameters
    ----------
    config : WorkflowConfig
        The checked configuration.
    home : Path
        Folder of the Snakefile; tables that ship with the workflow are found there.
    """

    def __init__(self, config: WorkflowConfig, home: Path) -> None:
        self.config = config
        self.home = home

    def tables(self, screen: str, experiment: str) -> list[str]:
        """Tables that one experiment is read from."""
        row = {**self.config.experiments(screen), **self.config.applied(screen)}[experiment]
        one = self.config.screens[screen]
        given = row.get("tables", one.tables)
        if not given and one.source in ADAPTERS:
            folder = Path(self.config.data) / (one.path or ".")
            return [str(path) for path in ADAPTERS[one.source].tables(folder)]
        return [self.find(path) for path in ([given] if isinstance(given, str) else given)]

    def find(self, path: str) -> str:
        """Resolve a user's path: under ``data``, else beside the Snakefile."""
        under = Path(self.config.data) / path
        shipped = self.home / path
        return str(shipped if shipped.exists() and not under.exists() else under)

    def optional(self, path: str | None) -> list[str]:
        """Resolve a path that may be absent, as the list that Snakemake wants."""
        return [self.find(path)] if path else []

    def of_screen(self, screen: str, **_: str) -> list[Names]:
        """All experiments of a screen."""
        return [{"screen": screen, "experiment": e} for e in self.config.experiments(screen)]

    def of_fit(self, screen: str, **_: str) -> list[Names]:
        """Experiments that the transform is fitted on."""
        chosen = getattr(self.config.knobs("align", "fit", screen=screen), "experiments", None)
        return [n for n in self.of_screen(screen) if not chosen or n["experiment"] in chosen]

    def of_centers(self, screen: str, **_: str) -> list[Names]:
        """Experiments whose middles the transform needs: none if centres are of controls."""
        wanted = getattr(self.config.knobs("align", "fit"), "centers_on_wells", False)
        return self.of_fit(screen) if wanted else []

    def of_apply(self, aligned: Iterable[Names]) -> list[Names]:
        """Later experiments, with every encoder that is aligned on their screen."""
        return [
            {"screen": screen, "experiment": experiment, "encoder": encoder}
            for screen, encoder in dict.fromkeys((n["screen"], n["encoder"]) for n in aligned)
            for experiment in self.config.applied(screen)
        ]

    def of_manifest(self, manifest: str, **_: str) -> list[Names]:
        """Experiments that a manifest draws from."""
        return [{"screen": s, "experiment": e} for s, e in self.config.drawn(manifest)]

    def of_judges(self, manifest: str, **_: str) -> list[Names]:
        """Every judge of a manifest in every experiment."""
        judges = self.config.manifests[manifest].judges
        return [{**n, "encoder": judge} for judge in judges for n in self.of_manifest(manifest)]

    def of_encoder(self, encoder: str, **_: str) -> list[Names]:
        """Experiments that an encoder learns from."""
        one = self.config.encoders[encoder]
        if one.manifest:
            return self.of_manifest(one.manifest)
        return self.of_screen(str(one.screen))

    def of_probe(self, task: str, **_: str) -> list[Names]:
        """Experiments that a probe trains or tests on."""
        one = self.config.probes[task]
        knobs = self.config.knobs("probe", "blocks", task=task)
        chosen = {*getattr(knobs, "train", ()), *getattr(knobs, "test", ())}
        return [n for n in self.of_screen(one.screen) if n["experiment"] in chosen]

    def of_benchmark(self, benchmark: str, **_: str) -> list[Names]:
        """Experiments of the screen that a benchmark tests."""
        return self.of_screen(self.config.benchmarks[benchmark].screen)

    def arms(self, benchmark: str, encoder: str) -> list[str]:
        """The arm offsets of a benchmark's screen, if its genes are known."""
        screen = self.config.benchmarks[benchmark].screen
        known = self.config.screens[screen].knows("genes")
        return [ALIGN.format(screen=screen, encoder=encoder) + "arms.parquet"] if known else []

    def labels(self, benchmark: str, **_: str) -> list[str]:
        """The table of compounds and their classes of a benchmark."""
        return self.optional(self.config.benchmarks[benchmark].labels)

    def paper(self) -> list[str]:
        """The paper's own numbers, where the workflow carries them."""
        path = self.home / "docs" / "paper_results.csv"
        return [str(path)] if path.exists() else []

    def known_genes(self, benchmark: str, **_: str) -> list[str]:
        """The table of genes of a benchmark's screen, if there is one."""
        screen = self.config.benchmarks[benchmark].screen
        known = self.config.screens[screen].knows("genes")
        return [f"results/screen/{screen}/genes.parquet"] if known else []

    def combined(self, benchmark: str, **_: str) -> list[str]:
        """The p-values that say which genes have a phenoprint, if recall asks for them."""
        knobs = self.config.knobs("benchmark", "recall", benchmark=benchmark)
        manifest = getattr(knobs, "manifest", None)
        path = PHENOPRINTS + "pvalues.parquet"
        return [path.format(manifest=manifest)] if manifest else []

    def groups(self, task: str, **_: str) -> list[str]:
        """The table of gene groups of a probe task."""
        return self.optional(self.config.probes[task].groups)

    def pairs(self, benchmark: str, **_: str) -> list[str]:
        """The tables of known relationships of a benchmark."""
        return [self.find(path) for path in self.config.benchmarks[benchmark].pairs.values()]

    def weights(self, encoder: str) -> list[str]:
        """The weights of an encoder that is not trained here.

        Raises
        ------
        UserError
            If timm names the weights and the file is not there, with the command that
            fetches it.
        """
        given = self.config.encoders[encoder].weights
        tagged = getattr(self.config.knobs("embed", "prepare", encoder=encoder), "tagged", None)
        if not tagged:
            return self.optional(given)
        path = self.find(given or f"weights/{tagged}.safetensors")
        if not Path(path).exists():
            fetch = f"python -m phenopipe.embed.fetch {tagged} --folder {Path(path).parent}"
            raise UserError(
                f"encoders.{encoder}: no file {path}, wanted the weights of {tagged};"
                f" where there is a network: {fetch}"
            )
        return [path]

    def start(self, file: str, encoder: str) -> list[str]:
        """One file of the folder of the encoder that a training starts from, if any."""
        start = self.config.encoders[encoder].initialize_from
        return [f"results/encoders/{start}/{file}"] if start else []

    @functools.cached_property
    def runs(self) -> dict[str, list[Names]]:
        """Every set of names of a whole run, by the stage or part that it belongs to."""
        config = self.config
        screens = [{"screen": screen} for screen in config.screens]
        benchmarks = [
            {"benchmark": name, "encoder": encoder, "screen": one.screen}
            for name, one in config.benchmarks.items()
            for encoder in one.encoders
        ]
        judged = [n for manifest in config.manifests for n in self.of_judges(manifest)]
        aligned = judged + [
            {**n, "encoder": one["encoder"]}
            for one in benchmarks
            for n in self.of_screen(one["screen"])
        ]
        probes = [
            {"task": name, "encoder": encoder}
            for name, one in config.probes.items()
            for encoder in one.encoders
        ]
        probed = [
            {**n, "encoder": one["encoder"]}
            for one in probes
            for n in self.of_probe(one["task"])
        ]
        return {
            "screens": screens,
            "experiments": [n for one in screens for n in self.of_screen(one["screen"])],
            "manifests": [{"manifest": name} for name in config.manifests],
            "trained": [
                {"encoder": n} for n, e in config.encoders.items() if e.kind in TRAINED
            ],
            "judged": _unique(judged),
            "aligned": _unique(aligned),
            "embedded": _unique(aligned + probed),
            "probes": probes,
            "benchmarks": benchmarks,
        }

    def imaged(self, names: Iterable[Names]) -> list[Names]:
        """Those of some experiments whose screen has pixels."""
        screens = self.config.screens
        return [n for n in names if screens[n["screen"]].source != "profiles"]

    @functools.cached_property
    def made(self) -> dict[str, list[str]]:
        """Every kind of file that a whole run makes."""
        runs, config, encoders = self.runs, self.config, self.config.encoders
        experiments = runs["experiments"]
        simulated = [
            n for n in experiments if config.screens[n["screen"]].source == "simulated"
        ]
        reconstructed = [
            n for n in runs["trained"] if encoders[n["encoder"]].kind in ("mae", "ca_mae")
        ]
        fetched = [n for n in runs["screens"] if config.screens[n["screen"]].fetch]
        with_judges = [n for n in runs["manifests"] if config.manifests[n["manifest"]].judges]
        armed = [n for n in runs["benchmarks"] if config.screens[n["screen"]].knows("genes")]
        judged = runs["benchmarks"] + runs["probes"]
        with_folder = [
            {"encoder": name}
            for name in dict.fromkeys(one["encoder"] for one in judged)
            if encoders[name].kind not in ("profiles", "random")
        ]
        return {
            "encoders": _fill("results/encoders/{encoder}/config.json", with_folder),
            "wells": _fill(SCREEN + "wells.parquet", experiments),
            "images": _fill(SCREEN + "images.parquet", experiments),
            "pixels": _fill(SCREEN + "images.zarr", self.imaged(experiments)),
            "truth": _fill(SCREEN + "truth.parquet", simulated),
            "fetched": _fill("results/screen/{screen}/fetched.parquet", fetched),
            "defects": _fill("results/qc/{screen}/defects.parquet", runs["screens"]),
            "metrics": _fill(QC + "metrics.parquet", experiments),
            "flags": _fill(QC + "wells.parquet", experiments),
            "undersampled": _fill(
                "results/undersample/{manifest}/wells.parquet", runs["manifests"]
            ),
            "embeddings": _fill(EMBED, runs["embedded"]),
            "aligned": _fill(ALIGNED, runs["aligned"]),
            "applied": _fill(ALIGNED, self.of_apply(runs["aligned"])),
            "controls": _fill(ALIGN + "controls.parquet", runs["aligned"]),
            "measures": _fill(ALIGN + "measures.parquet", runs["aligned"]),
            "arms": _fill(ALIGN + "arms.parquet", _unique(armed)),
            "pvalues": _fill(PVALUES, runs["judged"]),
            "combined": _fill(PHENOPRINTS + "pvalues.parquet", runs["manifests"]),
            "manifests": _fill(PHENOPRINTS + "manifest.parquet", runs["manifests"]),
            "funnels": _fill(PHENOPRINTS + "funnel.json", runs["manifests"]),
            "diversity": _fill(PHENOPRINTS + "diversity.parquet", with_judges),
            "histories": _fill(PRETRAIN + "history.parquet", runs["trained"]),
            "reconstructions": _fill(PRETRAIN + "reconstructions.npz", reconstructed),
            "panels": _fill(PRETRAIN + "panels", reconstructed),
            "blocks": _fill(PROBE + "blocks.parquet", runs["probes"]),
            "best": _fill(PROBE + "best_block.json", runs["probes"]),
            "predictions": _fill(PROBE + "predictions.parquet", runs["probes"]),
            "maps": _fill(BENCHMARK + "map.parquet", runs["benchmarks"]),
            "neighbours": _fill(BENCHMARK + "neighbours.parquet", runs["benchmarks"]),
            **self.of_tests(),
            "exported": self.of_exports(),
        }

    def of_tests(self) -> dict[str, list[str]]:
        """Files of every test of maps, and the tables beside them."""
        benchmarks = self.runs["benchmarks"]
        with_test = {
            test: [
                n for n in benchmarks if test in self.config.benchmarks[n["benchmark"]].tests
            ]
            for test in TESTS
        }
        made = {
            OUTPUT_OF.get(test, test): _fill(BENCHMARK + f"{test}.parquet", names)
            for test, names in with_test.items()
        }
        for beside, test in BESIDE.items():
            made[beside] = _fill(BENCHMARK + f"{beside}.parquet", with_test[test])
        return made

    def of_exports(self) -> list[str]:
        """Every file of the forms that the configuration asks for."""
        runs = self.runs
        forms = {
            "h5ad": ("wells/{screen}/{encoder}.h5ad", runs["aligned"]),
            "zarr": ("wells/{screen}/{encoder}.zarr", runs["aligned"]),
            "profiles": ("wells/{screen}/{encoder}/{experiment}.parquet", runs["aligned"]),
            "gallery": ("gallery/{screen}/{encoder}", runs["aligned"]),
            "maps": ("maps/{benchmark}/{encoder}.h5ad", runs["benchmarks"]),
            "manifests": ("manifests/{manifest}.csv", runs["manifests"]),
        }
        chosen = [forms[form] for form in self.config.exports]
        return [path for form, names in chosen for path in _fill(EXPORT + form, names)]

    def files(self, kind: str) -> list[str]:
        """All files of one kind that a whole run makes."""
        if kind == "found":
            return ["results/report/truth.parquet"] if self.made["truth"] else []
        return self.made[kind]

    def truth_files(self, kind: str) -> list[str]:
        """Files of one kind that belong to the screen whose truth is held against results."""
        screen = self.truth_screen()
        keep = {
            path
            for path in self.made[kind]
            if path.startswith(
                tuple(f"results/{s}/{screen}/" for s in ("screen", "qc", "embed", "align"))
            )
        }
        experimental = kind in ("truth", "flags", "embeddings", "aligned", "arms")
        return [p for p in self.made[kind] if p in keep or not experimental]

    def truth_screen(self) -> str:
        """Name of the simulated screen that is benchmarked, or else the first simulated one."""
        simulated = [n for n, one in self.config.screens.items() if one.source == "simulated"]
        tested = [one.screen for one in self.config.benchmarks.values()]
        both = [name for name in simulated if name in tested]
        return (both or simulated or [""])[0]

    def targets(self, stage: str) -> list[str]:
        """The files that a stage makes in a whole run."""
        if stage not in TARGETS:
            raise UserError(f"no stage {stage!r}, wanted one of {list(TARGETS)}")
        if stage == "report":
            return ["results/report/index.html", "results/report/tables.md"]
        return sorted({path for kind in TARGETS[stage] for path in self.made[kind]})


# The offsets of arms are a file of the stage align.
OUTPUT_OF = {"arms": "arm_bias"}
# Tables beside the results of tests.
BESIDE = {
    "recall_pairs": "recall",
    "replicates_pairs": "replicates",
    "replicates_matches": "replicates",
    "magnitude_perturbations": "magnitude",
}
TARGETS: dict[str, tuple[str, ...]] = {
    "screen": ("wells", "images", "pixels"),
    "qc": ("defects", "metrics", "flags"),
    "undersample": ("undersampled",),
    "embed": ("embeddings",),
    "align": ("aligned", "controls", "measures", "arms"),
    "apply": ("applied",),
    "fetch": ("fetched",),
    "consistency": ("pvalues",),
    "phenoprints": ("combined", "manifests", "funnels", "diversity"),
    "pretrain": ("histories",),
    "probe": ("blocks", "best"),
    "benchmark": ("maps", "neighbours", *(OUTPUT_OF.get(test, test) for test in TESTS)),
    "report": (),
    "export": ("exported",),
}


def _fill(pattern: str, names: Iterable[Names]) -> list[str]:
    return list(dict.fromkeys(pattern.format(**one) for one in names))


def _unique(names: Iterable[Names]) -> list[Names]:
    return [dict(key) for key in dict.fromkeys(tuple(sorted(one.items())) for one in names)]
