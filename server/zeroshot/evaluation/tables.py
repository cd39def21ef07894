"""A report as tables: for the terminal with rich, for documents as Markdown; and the list of what can be measured."""

from collections.abc import Iterable, Iterator

from rich.markup import escape
from rich.table import Table

from zeroshot.evaluation.protocol import SIZES, Evaluation, Metric
from zeroshot.evaluation.report import Outcome, Report, Row

_COLUMNS = ("data set", "metric", "protocol", *SIZES, "measured", "examples")


def listing(evaluations: Iterable[Evaluation]) -> Table:
    """`zeroshot eval --list`: name, the files it wants, the protocol, and the paper's numbers."""
    table = Table(show_lines=True)
    for header in ("name", "files wanted in --data", "protocol", "paper, " + " / ".join(SIZES)):
        table.add_column(header, overflow="fold")  # a file's name is of no use without its end
    for item in evaluations:
        where = f"Radford et al. 2019, section {item.section}." if item.section else "Not in the paper."
        needs = " In process only." if item.needs_scores else ""
        numbers = [f"{metric.name}, {metric.protocol}: {_sizes(metric)}" for metric in item.metrics if metric.paper]
        files = "\n".join(file.description for file in item.files)
        cells = (item.name, files, f"{where} {item.protocol}{needs}", "\n".join(numbers) or "-")
        table.add_row(*map(escape, cells))
    return table


def protocols(evaluations: Iterable[Evaluation]) -> str:
    """The same as Markdown, with every metric."""
    lines = []
    for item in evaluations:
        where = f"section {item.section}" if item.section else "not in the paper"
        lines += [f"### {item.title} (`{item.name}`)", "", f"*{where.capitalize()}.* {_plain(item.protocol)}", ""]
        lines += [f"* {_plain(file.description)}" for file in item.files]
        for metric in item.metrics:
            numbers = "" if metric.paper is None else f"; paper: {_sizes(metric)}"
            differs = f"; {metric.differs}" if metric.differs else ""
            lines.append(f"* `{metric.key}`: {metric.name}, {_plain(metric.protocol)}{numbers}{differs}")
        lines += ["* Needs log-probabilities of given tokens: in process only."] if item.needs_scores else []
        lines.append("")
    return "\n".join(lines)


def results(report: Report) -> Table:
    """Paper and measured side by side, narrow enough for 80 columns."""
    table = Table(title=_title(report))
    table.add_column("")
    for name in (*SIZES, "measured"):
        table.add_column(name, justify="right", no_wrap=True)
    for outcome in report.outcomes:
        for index, row in enumerate(outcome.rows):
            title, metric, protocol, *numbers, count = map(escape, _cells(outcome, row))
            if index == 0:
                table.add_row(f"[bold]{title}[/bold], {count}")
            table.add_row(f"{metric}: {protocol}", *numbers, end_section=index == len(outcome.rows) - 1)
    return table


def notes(report: Report) -> Iterator[str]:
    """What must be known to read the numbers: a line for each evaluation that has something to say."""
    for outcome in report.outcomes:
        if outcome.status != "measured":
            yield f"{outcome.name}: {outcome.status}: {outcome.reason}"
            continue
        said = list(dict.fromkeys(_outcome_notes(outcome)))
        if said:
            yield f"{outcome.name}: " + "; ".join(said)


def markdown(report: Report) -> str:
    """Table and notes."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for outcome in report.outcomes:
        for row in outcome.rows:
            cells = [_plain(cell).replace("|", "\\|") for cell in _cells(outcome, row)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"{_title(report)}.", "", *lines, "", *(f"* {_plain(note)}" for note in notes(report)), ""])


def _plain(text: str) -> str:
    """What Markdown would take for a tag."""
    return text.replace("<", "&lt;")


def _sizes(metric: Metric) -> str:
    return " / ".join("-" if number is None else f"{number:g}" for number in metric.paper or ())


def _title(report: Report) -> str:
    sampled = "all examples" if report.limit is None else f"at most {report.limit} examples of each, seed {report.seed}"
    return f"GPT-2 paper ({', '.join(SIZES)}) and {report.model}, measured {report.mode}, {sampled}"


def _cells(outcome: Outcome, row: Row) -> tuple[str, ...]:
    measured = _number(row.value) + (f" ± {_number(row.stderr)}" if row.stderr is not None else "")
    paper = tuple(_number(row.paper[size]) if size in row.paper else "" for size in SIZES)
    is_all = row.count == row.total
    marked = "" if not row.differs or not row.paper else " *"
    count = f"{row.count:,}" if is_all else f"{row.count:,} of {row.total:,}"
    shown = " (shown in training)" if outcome.is_shown_in_training else ""
    return outcome.title + shown, row.name + marked, row.protocol, *paper, measured, count


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.2e}"


def _outcome_notes(outcome: Outcome) -> Iterator[str]:
    if outcome.is_shown_in_training:
        yield "the model was shown this task in training: not zero-shot"
    if any(row.count < row.total for row in outcome.rows) and any(row.paper for row in outcome.rows):
        yield "a sample; the paper measured all examples"
    for row in outcome.rows:
        if row.differs:
            yield f"* {row.differs}"
    for row in outcome.rows:
        yield from row.notes
