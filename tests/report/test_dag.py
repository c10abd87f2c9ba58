import xml.etree.ElementTree as ET

import pytest

from phenopipe.report.dag import BOX_HEIGHT, EDGES, HEIGHT, STAGES, WIDTH, dag_svg, main

BOXES = {s.name: (s.x - s.width / 2, s.y - BOX_HEIGHT / 2, s.width, BOX_HEIGHT) for s in STAGES}


def on_rim(point, box):
    (x, y), (left, top, width, height) = point, box
    inside = left <= x <= left + width and top <= y <= top + height
    return inside and (x in (left, left + width) or y in (top, top + height))


def test_figure_shows_every_stage_of_the_house(root):
    rules = {path.stem for path in (root / "rules").glob("*.smk")} - {"common"}
    assert {stage.name for stage in STAGES} == rules


def test_figure_is_whole_xml_that_needs_no_other_file():
    svg = dag_svg(linked=True)
    elements = list(ET.fromstring(svg).iter())
    assert len([e for e in elements if e.tag.endswith("rect")]) == len(STAGES)
    links = [e.attrib["href"] for e in elements if "href" in e.attrib]
    assert links == [f"#{stage.name}" for stage in STAGES if stage.on_page]
    assert [stage.name for stage in STAGES if not stage.on_page] == ["export"]
    assert "@import" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge.source}-{edge.target}")
def test_line_runs_straight_from_the_rim_of_one_box_to_another(edge):
    assert on_rim(edge.points[0], BOXES[edge.source])
    assert on_rim(edge.points[-1], BOXES[edge.target])
    for (x1, y1), (x2, y2) in zip(edge.points, edge.points[1:], strict=False):
        assert x1 == x2 or y1 == y2


def test_boxes_lie_inside_the_figure_and_apart():
    boxes = list(BOXES.values())
    for number, (left, top, width, height) in enumerate(boxes):
        assert left >= 0 and top >= 0 and left + width <= WIDTH and top + height <= HEIGHT
        for other in boxes[:number]:
            apart_x = left >= other[0] + other[2] or other[0] >= left + width
            apart_y = top >= other[1] + other[3] or other[1] >= top + height
            assert apart_x or apart_y


def test_absent_stages_and_their_lines_are_faint():
    # The box, its manifest in, and its encoder out.
    assert dag_svg(absent={"pretrain"}).count('<g class="absent">') == 3
    assert '<g class="absent">' not in dag_svg()


def test_command_writes_the_figure_or_says_how_it_is_used(tmp_path):
    main([str(tmp_path / "dag.svg")])
    assert (tmp_path / "dag.svg").read_text(encoding="utf-8") == dag_svg()
    with pytest.raises(SystemExit, match="usage"):
        main([])
