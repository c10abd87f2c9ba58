"""The figures of the planted truth: what each one asks, and what is wanted of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One metric of ``truth.parquet``: its topic, what it says, the bound it should keep."""

    metric: str
    topic: str
    text: str
    at_least: float | None = None
    at_most: float | None = None
    by_low: bool = False

    def is_met(self, value: float | None, low_end: float | None = None) -> bool | None:
        """Whether a value keeps the bound; None where there is no value or no bound.

        With ``by_low`` the lower end of the interval must keep it.
        """
        value = low_end if self.by_low else value
        if value is None or (self.at_least is None and self.at_most is None):
            return None
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= value <= high

    def wanted(self) -> str:
        """Write the bound.

        Examples
        --------
        >>> Question("m", "qc", "share", at_least=0.9).wanted()
        '≥ 0.9'
        """
        if self.by_low:
            return f"95 % above {self.at_least:g}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"


QC, PRINTS, NOISE = "Quality control", "Phenoprints", "Planted noise"
ALIGN, ARMS, MAP, PROBE = "Alignment", "Chromosome arms", "Map", "Probes"

QUESTIONS = (
    Question("qc_recall", QC, "planted defects that are flagged", at_least=0.9),
    Question("qc_recall_defect", QC, "the same, of one kind of defect"),
    Question("qc_false_alarms", QC, "sound wells that are flagged", at_most=0.05),
    Question("phenoprint_precision", PRINTS, "kept conditions that are active", at_least=0.9),
    Question("phenoprint_recall", PRINTS, "active conditions that are kept", at_least=0.8),
    Question("called_precision", PRINTS, "single tests under 0.01 that are active"),
    Question("called_recall", PRINTS, "active conditions with a test under 0.01"),
    Question("power", PRINTS, "conditions found, by length of the planted effect"),
    Question("noise_called", NOISE, "calls over the nominal number", at_most=1.2),
    Question("noise_called_by", NOISE, "the same, by judge and level"),
    Question("apart_before", ALIGN, "experiments told apart before, above chance"),
    Question("apart_after", ALIGN, "experiments told apart after, above chance", at_most=0.1),
    Question("groups_before", ALIGN, "gene groups told apart before, above chance"),
    Question("groups_after", ALIGN, "gene groups told apart after, above chance", at_least=0.1),
    Question("arm_bias_before", ARMS, "cosine within less between arms, before"),
    Question("arm_bias_after", ARMS, "cosine within less between arms, after"),
    Question("arm_bias_removed", ARMS, "share of the bias that is removed", at_least=0.8),
    Question("planted_recall", MAP, "planted pairs in the tails, over chance", at_least=3.0),
    Question("recall_by_effect", MAP, "planted pairs in the tails, over chance, by effect"),
    Question("recall_permuted", MAP, "known pairs, names shuffled, over chance", at_most=1.5),
    Question(
        "consistency_rises", MAP, "effect and rank of replicates", at_least=0, by_low=True
    ),
    Question("ks_by_effect", MAP, "KS of replicates, by length of the planted effect"),
    Question("cvm_by_effect", MAP, "CVM of replicates over N, by the same"),
    Question("ks_inactive", MAP, "KS of what does nothing: position and batch"),
    Question("ks_permuted", MAP, "KS with wells shuffled"),
    Question("encoder_order", MAP, "rank correlation of probe and benchmark"),
    Question("accuracy", PROBE, "balanced accuracy, trained, best block"),
    Question("accuracy_control", PROBE, "the same, genes reassigned to groups"),
    Question("accuracy_untrained", PROBE, "untrained, best block", at_most=0.8),
    Question("accuracy_pixels", PROBE, "pixel statistics"),
    Question(
        "trained_minus_untrained", PROBE, "trained less untrained", at_least=0.0, by_low=True
    ),
    Question(
        "trained_minus_control", PROBE, "trained less its control", at_least=0.0, by_low=True
    ),
)
