"""Knobs of the align stage."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from phenopipe.knobs import Knobs, Unique


class MomentsKnobs(Knobs):
    """Which wells of an experiment fits may see; later steps read it from the file."""

    control_role: Literal["negative_control", "positive_control", "empty"] = "negative_control"
    """Role of the wells that should look alike in every experiment."""
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Share of each experiment's controls, and of its other wells, that no fit sees, so that
    the alignment can be judged on wells that are new to it."""
    seed: int = 0
    """Seed of the choice of wells that no fit sees; a well's own id decides."""


class FitKnobs(Knobs):
    """What is fitted on the controls of all experiments; later steps read it from the file."""

    method: Literal["tvn", "pca", "none"] = "tvn"
    """tvn: typical variation normalization. pca: principal components of the controls, then
    centred and scaled on each experiment's controls. none: embeddings as they are."""
    center_by_experiment: bool = True
    """Subtract each experiment's centre first (tvn; pca always does). Without it a shift of
    a whole experiment stays in the aligned wells."""
    center_on: Literal["controls", "wells"] = "controls"
    """What puts experiments in line. controls: the mean of each one's controls. wells: the
    middle of all its wells, better where controls are few; it wants the same conditions,
    or mostly inactive ones, in every experiment of a cell type. All together, controls are
    the origin of each cell type."""
    trim: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.1
    """Share of wells left out at either end of each component before their mean is taken as
    the middle (center_on: wells): the strongest phenotypes lie there."""
    regularization: PositiveFloat = 0.5
    """Added to the variances of an experiment's controls before they are evened out (tvn)."""
    n_components: PositiveInt | None = None
    """Principal components of the controls that are kept; null: all that vary."""
    experiments: Unique[str] | None = None
    """Experiments that the transform is fitted on; null: all. A list freezes the transform:
    later experiments are aligned without changing it. Each screen takes its own from it; one
    of which it names none is fitted on all."""

    @property
    def centers_on_wells(self) -> bool:
        """Whether the middles of all wells are needed, after the fit on controls."""
        own_centers = self.method == "pca" or self.center_by_experiment
        return self.method != "none" and own_centers and self.center_on == "wells"


class MiddlesKnobs(Knobs):
    """Middles of one experiment's wells; how they are taken is part of the fitted axes."""


class CenterKnobs(Knobs):
    """The transform of axes and middles; how they fit together is part of the axes."""


class ApplyKnobs(Knobs):
    """Alignment of one experiment; how it is done is part of the fitted transform."""

    min_controls: PositiveInt = 1
    """Fewest controls that an experiment needs for a centre of its own."""


class MeasureKnobs(Knobs):
    """How far experiments can be told apart and replicates are alike, before and after."""

    max_wells: PositiveInt = 1500
    """Wells of each sample (held-out controls; wells of some conditions), all experiments."""
    folds: int = Field(default=5, ge=2)
    """Folds of the classifier that tries to tell experiments apart."""
    bootstraps: PositiveInt = 500
    """Resamples of conditions behind each interval of replicate similarity."""
    seed: int = 0
    """Seed of samples, folds and resamples."""


class ArmsKnobs(Knobs):
    """Offsets of chromosome arms, estimated on genes that the cells do not express."""

    enabled: bool = True
    """Whether any arm is corrected; otherwise all offsets are zero."""
    max_expression: float = -3.0
    """A gene is unexpressed if its zFPKM is below this."""
    min_genes: NonNegativeInt = 20
    """An arm is corrected if it has more unexpressed genes than this."""
    origin_role: Literal["negative_control", "positive_control", "empty"] = "negative_control"
    """Role of the wells whose mean is the origin in each experiment."""
