"""Step ``annotate``: what is known of the screen's genes and compounds."""

from collections.abc import Sequence

from phenopipe.formats.genes import GENES, INTERACTIONS
from phenopipe.formats.tables import write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.annotations import read_genes, read_interactions
from phenopipe.screen.config import AnnotateKnobs
from phenopipe.screen.world import known_genes, known_interactions


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``screen_annotate``."""
    files, knobs = parse_step(
        AnnotateKnobs,
        inputs=["genes?", "interactions?"],
        outputs=["known_genes", "known_interactions"],
        names=["screen"],
        doc=__doc__,
        argv=argv,
    )
    if knobs.source == "simulated":
        genes, interactions = known_genes(knobs), known_interactions(knobs)
    else:
        genes = read_genes(files.genes, knobs.gene_columns)
        interactions = read_interactions(files.interactions, knobs.interaction_columns)
    write_table(files.known_genes, genes, GENES, files.stamp)
    write_table(files.known_interactions, interactions, INTERACTIONS, files.stamp)


if __name__ == "__main__":
    run_step(main)
