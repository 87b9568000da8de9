"""Tables and plots from kept results: printed, and written into docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench import plots
from bench.results import Finding, Record

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "performance.md"
HEAD = "| load | found | asked | |\n| --- | ---: | ---: | --- |"
MARK = "<!-- bench: {name} -->"
END = "<!-- bench: end -->"


def table(records: Iterable[Record], section: str = "") -> str:
    """Return the findings of a section as one Markdown table."""
    lines = [HEAD]
    for record in records:
        if record.void is not None and not section:
            lines.append(f"| {record.part} | **void** | | {_cell(record.void)} |")
        lines += [_row(one) for one in record.result.findings if one.section == section]
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""


def machines(records: Iterable[Record]) -> str:
    """Return where and how the parts were measured; parts of one run share a paragraph."""
    by_run: dict[str, list[str]] = {}
    for record in records:
        facts = ", ".join(f"{name} {value}" for name, value in record.machine.items())
        sentence = f"Measured on {record.measured_on} with `{record.command}`: {facts}."
        by_run.setdefault(sentence, []).append(record.part)
    if len(by_run) == 1:
        return next(iter(by_run)) + "\n"
    return "".join(f"- {', '.join(parts)}: {run}\n" for run, parts in by_run.items())


def pictures(records: Iterable[Record]) -> str:
    """Return the plots as Markdown images."""
    every = [plot for record in records for plot in record.result.plots]
    return "".join(f"![{plot.title}]({plot.name}.svg)\n\n" for plot in every)


def write_docs(records: Mapping[str, Record], docs: Path = DOCS) -> list[Path]:
    """Write what is generated into the page, and the plots beside it; return the files."""
    page = docs / PAGE.name
    text = page.read_text(encoding="utf-8")
    page.write_text(with_blocks(text, records), encoding="utf-8")
    written = [page]
    for record in records.values():
        for plot in record.result.plots:
            file = docs / f"{plot.name}.svg"
            file.write_text(plots.render(plot), encoding="utf-8")
            written.append(file)
    return written


def with_blocks(text: str, records: Mapping[str, Record]) -> str:
    """Return a page with its generated blocks made anew; the rest stays as it is."""
    every = list(records.values())
    for name, content in (
        ("table", table(every)),
        ("statements", table(every, "statements")),
        ("machine", machines(every)),
        ("plots", pictures(every)),
    ):
        mark = MARK.format(name=name) + "\n"
        before, found, rest = text.partition(mark)
        _, ended, after = rest.partition(END)
        if not (found and ended):
            message = f"the page has no block {mark.strip()} … {END}"
            raise ValueError(message)
        text = f"{before}{mark}{content}{END}{after}"
    return text


def _row(finding: Finding) -> str:
    found = _amount(finding.found, finding.unit)
    asked = ""
    if finding.asked is not None:
        sign = "≥" if finding.sense == "at least" else "≤"
        asked = f"{sign} {_amount(finding.asked, finding.unit)}"
        found = f"**{found}**" if finding.holds else f"**{found}** ✗"
    return f"| {_cell(finding.what)} | {found} | {asked} | {_cell(finding.detail)} |"


def _amount(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}".rstrip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
