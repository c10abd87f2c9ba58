"""Step ``page``: one HTML file that opens offline and tells the whole run."""

from collections.abc import Sequence

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.knobs import parse_step, run_step
from phenopipe.report.build import build_sections
from phenopipe.report.config import PageKnobs
from phenopipe.report.render import render_page

LEAD = (
    "One section a stage, in the order in which data flow: what was asked, what was found, "
    "and where the files are."
)
INPUTS = (
    "wells",
    "images",
    "pixels",
    "defects",
    "metrics",
    "flags",
    "funnels",
    "diversity",
    "manifests",
    "combined",
    "pvalues",
    "histories",
    "reconstructions",
    "panels",
    "embeddings",
    "aligned",
    "controls",
    "measures",
    "blocks",
    "best",
    "maps",
    "neighbours",
    "encoders",
    "recall",
    "replicates",
    "replicates_pairs",
    "magnitude",
    "magnitude_perturbations",
    "compounds",
    "classes",
    "arm_bias",
    "truth",
)


def check_size(html: str, max_mb: float) -> None:
    """Raise if the page is larger than it may be.

    Raises
    ------
    UserError
        With the knobs that make it smaller.
    """
    size = len(html.encode()) / 1e6
    if size > max_mb:
        raise UserError(
            f"the page has {size:.1f} MB, wanted at most {max_mb:g}: raise report.page.max_mb "
            "or lower example_sites, flagged_sites, thumbnail_pixels, sample_wells, map_rows"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``report_page``; any part of a run may be absent."""
    files, knobs = parse_step(
        PageKnobs,
        inputs=[f"{name}*" for name in INPUTS],
        outputs=["page"],
        doc=__doc__,
        argv=argv,
    )
    gone = f" Made without {', '.join(knobs.left_out)}." if knobs.left_out else ""
    html = render_page(knobs.title, LEAD + gone, build_sections(files, knobs))
    check_size(html, knobs.max_mb)
    with atomic(files.page) as part:
        part.write_text(html, encoding="utf-8")


if __name__ == "__main__":
    run_step(main)
