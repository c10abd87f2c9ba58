import json
import re
from html.parser import HTMLParser

import polars as pl
import pytest
import vl_convert

from phenopipe.errors import UserError
from phenopipe.formats.benchmarks import REPLICATE_PAIRS
from phenopipe.formats.maps import NEIGHBOURS
from phenopipe.formats.tables import write_table
from phenopipe.report.dag import STAGES
from phenopipe.report.page import INPUTS, check_size, main
from phenopipe.report.pieces import Prose, Section, Table
from phenopipe.report.render import render_page, script_json
from phenopipe.wiring import TARGETS
from tests.report.made_up import stamp

SECTIONS = [
    *(stage.name for stage in STAGES if stage.on_page and stage.name != "report"),
    "rounds",
    "map",
    "truth",
    "rerun",
]
TRAINING = ("histories", "reconstructions", "panels", "blocks", "best")
PIXELS = ("images", "pixels")


class Elements(HTMLParser):
    """Attributes, scripts and styles of a page, and the text of each section."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.scripts, self.styles, self.sections = [], {}, [], {}
        self.inside, self.section, self.tags = None, None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs.items()]
        if tag == "section":
            self.section = attrs["id"]
            self.sections[self.section] = ""
        self.inside = (tag, attrs.get("id", "")) if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None
        self.section = None if tag == "section" else self.section

    def handle_data(self, data):
        if self.inside and self.inside[0] == "script":
            self.scripts[self.inside[1]] = self.scripts.get(self.inside[1], "") + data
        elif self.inside:
            self.styles.append(data)
        elif self.section:
            self.sections[self.section] += data


def make_page(run, tmp_path, *leave_out):
    path = tmp_path / "index.html"
    main([*run.flags(*leave_out), "--page", str(path)])
    return Elements(path.read_text(encoding="utf-8"))


def test_page_loads_nothing_from_outside(page):
    elements = Elements(page)
    loading = ("src", "href", "xlink:href", "srcset", "poster", "action", "data", "background")
    addresses = [value for _, name, value in elements.attributes if name in loading]
    assert addresses and all(value.startswith(("#", "data:image/png")) for value in addresses)
    assert not {"link", "iframe", "object", "embed", "base"} & set(elements.tags)
    for style in elements.styles:
        assert "@import" not in style and "url(" not in style


def test_page_forbids_the_browser_to_load_anything(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_page_carries_the_chart_library_once(page):
    assert page.count("window.vegaEmbed=") == 1


def test_page_has_every_section_in_the_order_of_the_data(page):
    found = list(Elements(page).sections)
    assert set(SECTIONS) <= set(found)
    order = ["screen", "qc", "undersample", "embed", "align", "consistency", "phenoprints"]
    assert [name for name in found if name in order] == order


def test_every_section_of_a_whole_run_has_content(page):
    for name, text in Elements(page).sections.items():
        assert "Not part of this run" not in text and "No encoder" not in text, name


def test_what_variety_a_manifest_keeps_is_told(page):
    text = Elements(page).sections["phenoprints"]
    assert "effective rank before" in text and "12.500" in text


def test_rounds_of_curation_are_told_by_who_learned_from_what(page):
    text = Elements(page).sections["rounds"]
    assert text.index("everything") < text.index("curated") < text.index("mae-again")


def test_alignment_is_told_before_and_after_with_what_its_controls_can_tell(page):
    text = Elements(page).sections["align"]
    assert "experiments told apart with 0.97 before, 0.36 after (chance 0.50; mae)" in page
    for told in ("0.51 (0.51–0.51)", "0.83 (0.83–0.83)", "few-controls", "share of pairs"):
        assert told in text, told


def test_every_chart_can_be_drawn_and_shows_data(page):
    elements = Elements(page)
    wanted = [value for _, name, value in elements.attributes if name == "data-spec"]
    assert len(wanted) >= 12
    for name in wanted:
        spec = json.loads(elements.scripts[name])
        svg = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="6.4")
        drawn = re.findall(r'aria-roledescription="[^"]*mark[^"]*"', svg)
        assert drawn or svg.count("<path") > 5, spec.get("title", name)


def test_page_of_profiles_without_training_says_what_is_absent(run, tmp_path):
    elements = make_page(run, tmp_path, *TRAINING, *PIXELS, "truth")
    assert "No encoder was trained in this run" in elements.sections["pretrain"]
    assert "no planted truth" in elements.sections["truth"]
    assert "profiles only" in elements.sections["screen"]
    assert "Not part of this run" in elements.sections["probe"]
    assert "img" not in elements.tags


def test_page_of_an_empty_run_still_tells_so(tmp_path):
    path = tmp_path / "index.html"
    main(["--page", str(path)])
    elements = Elements(path.read_text(encoding="utf-8"))
    assert "Not part of this run" in elements.sections["screen"]
    assert "svg" in elements.tags


def test_equal_runs_give_equal_pages(run, page, tmp_path):
    path = tmp_path / "index.html"
    main([*run.flags(), "--page", str(path)])
    assert path.read_text(encoding="utf-8") == page


def test_page_of_many_names_stays_within_its_size(page, tmp_path):
    names = [f"LONGNAME{n:05d}" for n in range(2500)]
    near = pl.DataFrame(
        {
            "entity": [a for a in names for _ in range(8)],
            "neighbour": [
                names[(i * 7 + k * 13) % 2500] for i in range(2500) for k in range(8)
            ],
            "rank": [*range(1, 5), *range(-4, 0)] * 2500,
        }
    ).with_columns(
        kind=pl.lit("knockout"),
        concentration_um=pl.lit(None, pl.Float64),
        neighbour_kind=pl.lit("knockout"),
        neighbour_concentration_um=pl.lit(None, pl.Float64),
        rank=pl.col("rank").cast(pl.Int32),
        cosine=pl.lit(0.123456),
    )
    paths = []
    for encoder in "abc":
        paths.append(tmp_path / f"{encoder}.parquet")
        names_of_file = stamp("benchmark", "aggregate", benchmark="map", encoder=encoder)
        write_table(paths[-1], near, NEIGHBOURS, names_of_file)
    out = tmp_path / "index.html"
    main(["--neighbours", *map(str, paths), "--map-rows", "2000", "--page", str(out)])
    assert "500 rows of the map are not listed" in out.read_text(encoding="utf-8")
    assert out.stat().st_size < 2e6 and len(page.encode()) < 2e6


def test_every_test_of_maps_is_on_the_page_and_so_in_every_whole_run(page):
    assert set(TARGETS["benchmark"]) <= set(INPUTS)
    shown = Elements(page).sections["benchmark"]
    assert "classes dealt anew" in shown and "0.625" in shown


def test_page_compares_encoders_on_the_same_technical_pairs(run, tmp_path):
    paths = []
    for encoder, seconds in (("mae", ("two", "three")), ("untrained", ("two",))):
        rows = [
            {"experiment_a": "one", "experiment_b": other, "n": 12, "ks": ks, "cvm": 1.0}
            for other, ks in zip(seconds, (0.125, 0.875), strict=False)
        ]
        names = {"benchmark": "map", "encoder": encoder}
        paths.append(tmp_path / f"{encoder}.parquet")
        table = pl.DataFrame(rows, schema=REPLICATE_PAIRS.empty().schema)
        write_table(
            paths[-1], table, REPLICATE_PAIRS, stamp("benchmark", "replicates", **names)
        )
    out = tmp_path / "index.html"
    main([*run.flags(), "--replicates-pairs", *map(str, paths), "--page", str(out)])
    told = Elements(out.read_text(encoding="utf-8")).sections["benchmark"]
    assert "0.125" in told and "0.875" not in told


def test_page_over_its_cap_is_refused_with_the_knobs_that_help():
    with pytest.raises(UserError, match=r"2\.0 MB, wanted at most 1: raise .*max_mb.*map_rows"):
        check_size("x" * 2_000_000, 1.0)


def test_names_from_the_users_tables_are_escaped():
    hostile = "<script>alert(1)</script>"
    section = Section("qc", hostile, hostile, [Prose(hostile), Table([hostile], [[hostile]])])
    html = render_page(hostile, hostile, [section])
    assert "<script>alert" not in html and html.count("&lt;script&gt;alert") >= 6


def test_names_that_open_a_tag_or_a_comment_come_back_from_the_pages_data():
    content = {"</script>": "<!-- <script> & \\u003c"}
    text = script_json(content)
    assert json.loads(text) == content and "<" not in text


def test_numbers_that_are_not_finite_become_null_in_the_pages_data():
    html = render_page("t", "l", [])
    for found in re.findall(r'<script type="application/json" id="\w+">(.*?)</script>', html):
        json.loads(found)
