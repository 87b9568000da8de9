"""Tables, plots and the page are what the kept results say."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest

from bench import plots, report, results
from bench.results import Finding, Line, PartResult, Plot, Record, ratio

RATE = Plot(
    name="some-rate",
    title="Stored <& classified>",
    kind="rate",
    lines=[
        Line(name="ours", points=[(second, 9_000 + second) for second in range(10)]),
        Line(name="theirs", points=[(second, 300.0) for second in range(20)]),
    ],
)
LATENCY = Plot(
    name="some-latency",
    title="Latency",
    kind="latency",
    lines=[Line(name="idle", points=[(0, 0.0), (50, 4.2), (99, 9.0), (99.9, 40.0), (100, 41.0)])],
)


def make_record(*findings, part="bulk", void=None, command="make bench", plots=()):
    return Record(
        part=part,
        measured_on="2026-11-21",
        command=command,
        machine={"cores": 2, "fsync of 2 KB": "0.11 ms"},
        result=PartResult(findings=findings, rounds={"x": {"a": [1.0]}}, plots=plots),
        void=void,
    )


PAGE = "\n".join(
    [
        "before",
        *(
            f"<!-- bench: {name} -->\nold\n<!-- bench: end -->"
            for name in ("table", "statements", "machine", "plots")
        ),
        "after",
    ]
)


@pytest.mark.parametrize(
    ("found", "asked", "sense", "holds"),
    [
        (30.0, 30, "at least", True),
        (29.9, 30, "at least", False),
        (110.0, 110, "at most", True),
        (110.1, 110, "at most", False),
        (5.0, None, "at least", None),
    ],
)
def test_a_finding_holds_on_the_side_that_was_asked(found, asked, sense, holds):
    assert Finding(what="x", found=found, asked=asked, sense=sense).holds is holds


def test_a_miss_is_marked_and_a_void_part_has_no_number():
    table = report.table(
        [
            make_record(Finding(what="a | b", found=12.34, asked=30, detail="rates")),
            make_record(Finding(what="c", found=41_234.5, unit="ms", asked=5e4, sense="at most")),
            make_record(part="lanes", void="stored 1 of 2"),
        ]
    )
    assert table.splitlines()[2:] == [
        "| a \\| b | **12.3** ✗ | ≥ 30 | rates |",
        "| c | **41,234 ms** | ≤ 50,000 ms |  |",
        "| lanes | **void** | | stored 1 of 2 |",
    ]


def test_a_ratio_is_of_medians_and_of_several_baselines_the_best_counts():
    rounds = {"ours": [90.0, 100.0, 500.0], "a": [10.0, 10.0, 10.0], "b": [20.0, 25.0, 30.0]}
    found, detail = ratio(rounds, "ours", "a", "b")
    assert found == 4.0
    assert detail == "ours 100/s, b 25/s"


def test_results_come_back_as_they_were_kept(tmp_path):
    record = make_record(Finding(what="x", found=1.5, asked=1), plots=[RATE, LATENCY])
    results.write(tmp_path / "r.json", {"bulk": record})
    again = results.read(tmp_path / "r.json")["bulk"]
    assert again.result.findings == list(record.result.findings)
    assert [plots.render(one) for one in again.result.plots] == [
        plots.render(one) for one in (RATE, LATENCY)
    ]


def test_the_page_keeps_what_was_written_by_hand_and_can_be_made_again():
    record = make_record(Finding(what="x", found=1.0), plots=[RATE])
    page = report.with_blocks(PAGE, {"bulk": record})
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert "old" not in page
    assert "![Stored <& classified>](some-rate.svg)" in page
    assert "with `make bench`: cores 2" in page
    assert report.with_blocks(page, {"bulk": record}) == page


def test_parts_of_different_runs_say_how_each_was_measured():
    records = [make_record(part="a"), make_record(part="b", command="make bench ARGS='b'")]
    said = report.machines(records)
    assert "- a: Measured" in said
    assert "- b: Measured on 2026-11-21 with `make bench ARGS='b'`" in said


def test_a_page_without_a_place_for_results_is_refused():
    with pytest.raises(ValueError, match="bench: table"):
        report.with_blocks("nothing", {})


@pytest.mark.parametrize("plot", [RATE, LATENCY], ids=["rate", "latency"])
def test_a_plot_is_small_valid_and_legible_in_both_modes(plot):
    drawn = plots.render(plot)
    root = ET.fromstring(drawn)  # noqa: S314  (our own)
    assert root.get("aria-label") == plot.title
    assert "prefers-color-scheme:dark" in drawn
    assert len(drawn) < 10_000
    assert drawn == plots.render(plot)
    texts = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {line.name for line in plot.lines} <= texts


@pytest.mark.parametrize("plot", [RATE, LATENCY], ids=["rate", "latency"])
def test_every_point_of_a_plot_lies_inside_its_axes(plot):
    root = ET.fromstring(plots.render(plot))  # noqa: S314  (our own)
    drawn = [
        node.get("d")
        for node in root.iter("{http://www.w3.org/2000/svg}path")
        if "line" in node.get("class") and "L" in node.get("d")
    ]
    assert len(drawn) == len(plot.lines)
    for path in drawn:
        for point in path.removeprefix("M").split("L"):
            x, y = map(float, point.split())
            assert plots.LEFT <= x <= plots.WIDTH - plots.RIGHT
            assert plots.TOP <= y <= plots.HEIGHT - plots.BOTTOM


def test_a_plot_of_nothing_is_still_a_picture():
    empty = Plot(name="x", title="x", kind="rate", lines=[Line(name="x", points=[])])
    ET.fromstring(plots.render(empty))  # noqa: S314  (our own)


def test_a_higher_rate_is_drawn_higher():
    axis = plots._rate_axis(10_000)
    assert axis.at(9_000) < axis.at(300)
    assert axis.ticks[-1][0] >= 10_000
    assert all(math.isfinite(value) for value, _ in axis.ticks)


def test_the_page_and_the_plots_are_rendered_from_the_kept_results():
    records = results.read(results.KEPT)
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.with_blocks(page, records) == page, "run `python -m bench --render`"
    drawn = [plot for record in records.values() for plot in record.result.plots]
    for plot in drawn:
        file = report.DOCS / f"{plot.name}.svg"
        assert file.read_text(encoding="utf-8") == plots.render(plot)
