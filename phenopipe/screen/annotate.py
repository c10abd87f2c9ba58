"""Say what is known of a screen's genes and compounds, from tables or the simulated world."""

from collections.abc import Sequence

import polars as pl

from phenopipe.formats.genes import GENES, INTERACTIONS
from phenopipe.formats.tables import write_table
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.annotations import read_genes, read_interactions
from phenopipe.screen.config import AnnotateKnobs
from phenopipe.screen.world import World, build_world


def world_genes(world: World) -> pl.DataFrame:
    """Return the genes format of a simulated world."""
    rows = [
        {"gene": gene.symbol, "arm": gene.arm, "expression": gene.expression}
        for gene in world.genes
    ]
    return pl.DataFrame(rows, schema=GENES.empty().schema).sort("gene")


def world_interactions(world: World) -> pl.DataFrame:
    """Return the interactions format of a simulated world."""
    rows = [(one.compound, one.gene, one.nanomolar) for one in world.interactions]
    schema = INTERACTIONS.empty().schema
    return pl.DataFrame(rows, schema=schema, orient="row").sort("treatment", "gene_symbol")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step from the command line."""
    files, knobs = parse_step(
        AnnotateKnobs,
        inputs=["genes*", "interactions*"],
        outputs=["known_genes", "known_interactions"],
        names=["screen"],
        doc=__doc__,
        argv=argv,
    )
    if knobs.source == "simulated":
        world = build_world(knobs)
        genes, interactions = world_genes(world), world_interactions(world)
    else:
        genes = read_genes(next(iter(files.genes), None), knobs.gene_columns)
        targets = next(iter(files.interactions), None)
        interactions = read_interactions(targets, knobs.interaction_columns)
    write_table(files.known_genes, genes, GENES, files.stamp)
    write_table(files.known_interactions, interactions, INTERACTIONS, files.stamp)
    print(f"{files.screen}: {genes.height} genes, {interactions.height} interactions")


if __name__ == "__main__":
    run_step(main)
