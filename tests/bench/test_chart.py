"""The pictures of the figures."""

from xml.etree import ElementTree

from bench.chart import Line, growth_chart

SVG = "{http://www.w3.org/2000/svg}"


def test_linear_growth_is_parallel_to_the_dashed_line() -> None:
    picture = ElementTree.fromstring(growth_chart("Cost & more", "messages", [
        Line("linear", [(1, 0.5), (10, 5), (1_000, 500)]), Line("flat", [(1, 2), (100, 2)])]))
    assert picture.get("aria-label") == "Cost & more"
    dashed, linear, flat = (path for path in picture.iter(f"{SVG}path") if path.get("stroke-width") == "2")
    assert dashed.get("stroke-dasharray")
    assert round(_slope(linear), 2) == round(_slope(dashed), 2) < 0
    assert _slope(flat) == 0
    names = [text for text in picture.iter(f"{SVG}text") if text.text in {"linear", "flat"}]
    assert len({text.get("y") for text in names}) == 2


def _slope(path: ElementTree.Element) -> float:
    (x, y), *_, (end_x, end_y) = (tuple(map(float, pair.split())) for pair in path.attrib["d"][1:].split("L"))
    return (end_y - y) / (end_x - x)
