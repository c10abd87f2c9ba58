"""The simulated world: genes in groups, what each does to cells, guides, compounds, arms.

Everything here follows from the seed alone, so that experiments of one screen, simulated
one by one and in any order, share one biology.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.screen.cells import AXES, SHAPE_AXES
from phenopipe.screen.config import CHANNELS, WorldKnobs
from phenopipe.seeds import generator

# Legend of the shape suffixes: G groups, A axes of the phenotype, S those of shape.

Phenotype = NDArray[np.float64]

ARMS = tuple(f"chr{number}{arm}" for number in range(1, 13) for arm in "pq")
POSITIVE_CONTROL = "PLK1"
NEGATIVE_CONTROLS = 4
# zFPKM: below -3 a gene counts as unexpressed.
_EXPRESSED, _SILENT = 1.5, -5.0
_HILL = 2.0
# A dose with at least this part of the full effect is active; below it, it is weak.
_ACTIVE_DOSE = 0.5


@dataclass(frozen=True)
class Gene:
    """A gene: its group if it has one, its arm, its expression, and what its loss does."""

    symbol: str
    group: str | None
    arm: str
    expression: float
    status: str
    phenotype_A: Phenotype


@dataclass(frozen=True)
class Condition:
    """A perturbation at one guide or concentration, and what it does to cells."""

    kind: str
    perturbation: str
    gene: str | None
    guide: str | None
    concentration_um: float | None
    group: str | None
    status: str
    phenotype_A: Phenotype

    @property
    def effect(self) -> float:
        """Length of the phenotype."""
        return float(np.linalg.norm(self.phenotype_A))


@dataclass(frozen=True)
class Interaction:
    """A measured affinity of a compound for a gene, nanomolar."""

    compound: str
    gene: str
    nanomolar: float


@dataclass(frozen=True)
class World:
    """All that the experiments of one screen have in common."""

    genes: tuple[Gene, ...]
    knockouts: tuple[Condition, ...]
    compounds: tuple[Condition, ...]
    arm_knockouts: tuple[Condition, ...]
    rare: tuple[Condition, ...]
    negative_controls: tuple[Condition, ...]
    positive_controls: tuple[Condition, ...]
    interactions: tuple[Interaction, ...]
    biased_arms: tuple[str, ...]


def build_world(knobs: WorldKnobs) -> World:
    """Return the world of a seed."""
    biased = _biased_arms(knobs)
    grouped = _grouped_genes(knobs, biased)
    unexpressed = _unexpressed_genes(knobs, biased)
    compounds, interactions = _compounds(knobs, grouped)
    positive = Gene(
        *(POSITIVE_CONTROL, None, _arm(knobs, POSITIVE_CONTROL, biased), _EXPRESSED, "control"),
        phenotype_A=_direction(knobs, "positive control", 5) * 1.2 * knobs.strength,
    )
    nothing = Gene("", None, "", 0.0, "control", np.zeros(len(AXES)))
    return World(
        genes=(*grouped, *unexpressed, positive),
        knockouts=tuple(
            _knockout(knobs, gene, number)
            for gene in grouped
            for number in range(1, knobs.guides + 1)
        ),
        compounds=compounds,
        arm_knockouts=tuple(_knockout(knobs, gene, 1) for gene in unexpressed),
        rare=tuple(
            _knockout(knobs, gene, knobs.guides + 1)
            for gene in grouped
            if gene.status == "inactive"
        ),
        negative_controls=tuple(
            _knockout(knobs, nothing, number, name="non-targeting")
            for number in range(1, NEGATIVE_CONTROLS + 1)
        ),
        positive_controls=(_knockout(knobs, positive, 1), _knockout(knobs, positive, 2)),
        interactions=interactions,
        biased_arms=biased,
    )


def unexpressed_genes() -> tuple[str, ...]:
    """Return olfactory receptors: real genes that cells in culture hardly ever express."""
    return tuple(row["gene"] for row in _package_rows("unexpressed.tsv"))


def anax_groups() -> dict[str, tuple[str, ...]]:
    """Return the genes of each Anax group (paper Table 7), as far as they are readable."""
    groups: dict[str, list[str]] = {}
    for row in _package_rows("anax.tsv"):
        known = groups.setdefault(row["group"], [])
        if row["gene"] not in known:
            known.append(row["gene"])
    return {group: tuple(genes) for group, genes in groups.items()}


def _package_rows(name: str) -> list[dict[str, str]]:
    text = files("phenopipe.screen").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def _grouped_genes(knobs: WorldKnobs, biased: tuple[str, ...]) -> tuple[Gene, ...]:
    """Choose groups, and genes of each; the first groups are active."""
    known = anax_groups()
    large = [group for group, genes in known.items() if len(genes) >= knobs.genes_per_group]
    wanted = knobs.active_groups + knobs.silent_groups
    if wanted > len(large):
        raise UserError(
            f"active_groups + silent_groups: found {wanted}, wanted at most {len(large)} "
            f"groups of {knobs.genes_per_group} genes"
        )
    order = generator(knobs.seed, "groups").permutation(len(large))[:wanted]
    directions_GA = group_directions(knobs)
    genes = []
    for number, group in enumerate(large[place] for place in order):
        rng = generator(knobs.seed, "genes", group)
        for symbol in rng.permutation(known[group])[: knobs.genes_per_group].tolist():
            active = number < knobs.active_groups
            phenotype_A = np.zeros(len(AXES))
            if active:
                stray_A = np.zeros(len(AXES))
                stray_A[: len(SHAPE_AXES)] = rng.standard_normal(len(SHAPE_AXES))
                stray_A *= knobs.gene_spread * knobs.strength / np.sqrt(len(SHAPE_AXES))
                phenotype_A = directions_GA[number] + stray_A
            status = "active" if active else "inactive"
            arm = _arm(knobs, symbol, biased)
            genes.append(Gene(symbol, group, arm, _EXPRESSED, status, phenotype_A))
    return tuple(genes)


def group_directions(knobs: WorldKnobs) -> NDArray[np.float64]:
    """Return what each active group does, shape (n_active_groups, n_axes).

    Notes
    -----
    Each group changes a few traits, up or down; over the groups every trait is used about
    as often as any other, so that seeds differ in which groups look alike and not in how
    hard they are to see.
    """
    rng = generator(knobs.seed, "directions")
    n_shape, n_bright = len(SHAPE_AXES), len(CHANNELS)
    directions_GA = np.zeros((knobs.active_groups, len(AXES)))
    waiting: list[int] = []
    for direction_A in directions_GA:
        axes: list[int] = []
        while len(axes) < knobs.axes_per_group:
            waiting = waiting or rng.permutation(n_shape).tolist()
            fresh = next((axis for axis in waiting if axis not in axes), None)
            if fresh is None:
                waiting = waiting + rng.permutation(n_shape).tolist()
                continue
            waiting.remove(fresh)
            axes.append(fresh)
        sign = rng.choice([-1.0, 1.0], knobs.axes_per_group)
        direction_A[axes] = sign * knobs.strength / np.sqrt(knobs.axes_per_group)
        bright = rng.standard_normal(n_bright)
        direction_A[n_shape:] = knobs.brightness * bright / np.linalg.norm(bright)
    return directions_GA


def _direction(knobs: WorldKnobs, name: str, n_axes: int) -> Phenotype:
    """Return a unit phenotype along a few traits that the name decides."""
    rng = generator(knobs.seed, "direction", name)
    direction_A = np.zeros(len(AXES))
    axes = rng.permutation(len(SHAPE_AXES))[:n_axes]
    direction_A[axes] = rng.choice([-1.0, 1.0], n_axes) / np.sqrt(n_axes)
    return direction_A


def _biased_arms(knobs: WorldKnobs) -> tuple[str, ...]:
    wanted, known = knobs.biased_arms * knobs.genes_per_arm, len(unexpressed_genes())
    if wanted > known:
        raise UserError(f"biased_arms x genes_per_arm: found {wanted}, wanted at most {known}")
    order = generator(knobs.seed, "arms").permutation(ARMS)
    return tuple(order[: knobs.biased_arms].tolist())


def _arm(knobs: WorldKnobs, symbol: str, biased: Sequence[str]) -> str:
    """Return the arm of a gene of a group: any but the biased ones."""
    free = [arm for arm in ARMS if arm not in biased]
    return free[int(generator(knobs.seed, "arm of", symbol).integers(len(free)))]


def _unexpressed_genes(knobs: WorldKnobs, biased: tuple[str, ...]) -> tuple[Gene, ...]:
    """Genes that do nothing themselves, but lie on an arm that suffers from any cut."""
    genes = []
    for number, arm in enumerate(biased):
        phenotype_A = knobs.arm_effect * _direction(knobs, f"arm {arm}", knobs.axes_per_group)
        first = number * knobs.genes_per_arm
        for symbol in unexpressed_genes()[first : first + knobs.genes_per_arm]:
            genes.append(Gene(symbol, None, arm, _SILENT, "arm", phenotype_A))
    return tuple(genes)


def _knockout(knobs: WorldKnobs, gene: Gene, number: int, name: str = "") -> Condition:
    guide = f"{name or gene.symbol}_guide_{number}"
    rng = generator(knobs.seed, "efficacy", guide)
    efficacy = rng.uniform(knobs.weakest_guide, 1.0)
    return Condition(
        kind="knockout",
        perturbation=guide,
        gene=gene.symbol or None,
        guide=guide,
        concentration_um=None,
        group=gene.group,
        status=gene.status,
        # The cut itself harms the arm, however well the guide silences its gene.
        phenotype_A=gene.phenotype_A * (1.0 if gene.status == "arm" else efficacy),
    )


def _compounds(
    knobs: WorldKnobs, genes: Sequence[Gene]
) -> tuple[tuple[Condition, ...], tuple[Interaction, ...]]:
    """Compounds that act like the loss of a group's genes, the more the higher the dose."""
    groups = list(dict.fromkeys(gene.group for gene in genes))
    conditions, interactions = [], []
    for number in range(knobs.compounds):
        name = f"compound-{number + 1:02d}"
        targets = [gene for gene in genes if gene.group == groups[number % len(groups)]]
        rng = generator(knobs.seed, "compound", name)
        doses = np.log10(knobs.concentrations_um)
        half = 10.0 ** (doses.mean() + rng.uniform(-0.3, 0.3))
        full_A = np.mean([gene.phenotype_A for gene in targets], axis=0)
        for dose in knobs.concentrations_um:
            part = dose**_HILL / (dose**_HILL + half**_HILL)
            status = targets[0].status
            if status == "active" and part < _ACTIVE_DOSE:
                status = "weak"
            conditions.append(
                Condition(
                    *("compound", name, None, None, float(dose), targets[0].group, status),
                    phenotype_A=part * full_A,
                )
            )
        for gene in targets:
            nanomolar = float(100.0 * half * 10.0 ** rng.uniform(-0.5, 0.8))
            interactions.append(Interaction(name, gene.symbol, round(nanomolar, 2)))
    return tuple(conditions), tuple(interactions)
