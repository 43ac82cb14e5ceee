"""What the page's charts are drawn with: marks that name their backend, rules, axes, rows.

Every curve names its backend in `meta`: the page's own legend, which a keyboard reaches, shows and hides by it. Colours
that depend on the theme are stood for by MUTED and by INK (`looks.py`), which the page replaces.
"""

from html import escape
from typing import Any, Final

import plotly.graph_objects as go

from lockstep_bench.harness.report.looks import Look
from lockstep_bench.harness.tables import views
from lockstep_bench.harness.tables.results import Results

MUTED: Final = "#777777"
SYMBOLS: Final = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "p": "pentagon",
}
"""Plotly's names of matplotlib's markers."""
ROW: Final = 26
"""Pixels of a row."""


def text(value: object) -> str:
    """As plotly takes it for text: it has a few HTML tags and a way to name a point's values."""
    return escape(str(value), quote=False).replace("%{", "%&#123;")


def curve(figure: go.Figure, look: Look, x: Any, y: Any, what: str, *, bold: bool = True, **style: Any) -> None:
    """One line with markers; `what` is what a point is called, with %{x} and %{y} in it."""
    figure.add_trace(
        go.Scatter(
            x=list(x),
            y=list(y),
            meta=look.name,
            name=text(look.label),
            showlegend=False,
            cliponaxis=False,
            mode="lines+markers" if bold else "lines",
            line={"color": look.colour, "width": 2 if bold else 1, **style.pop("line", {})},
            marker={
                "symbol": SYMBOLS[look.marker],
                "color": look.colour,
                "size": style.pop("size", 7),
                "line": {"color": MUTED, "width": 0.7},
            },
            hovertemplate=f"{text(look.label)}<br>{what}<extra></extra>",
        ),
        **style,
    )


def status_at(figure: go.Figure, place: int, look: Look) -> None:
    """Where a mark would be looked for first."""
    status = f"<i>{text(look.status)}</i>"
    figure.add_annotation(x=0.01, xref="paper", y=place, text=status, showarrow=False, xanchor="left")


def rule(figure: go.Figure, x: list[Any], y: list[Any], note: str, position: str = "top left", **place: Any) -> None:
    """A dotted line with a note at its end: a trace, since a shape's note is elsewhere on a logarithmic axis."""
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="lines+text",
            line={"dash": "dot", "color": MUTED, "width": 1.5},
            text=["", note],
            textposition=position,
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        ),
        **place,
    )


def by_epoch(figure: go.Figure, results: Results, y: str) -> go.Figure:
    """Name the axes of a chart by epochs: each has its number, or ten at most have."""
    epochs = results.plan.problem.epochs
    step = views.whole_step(epochs)
    figure.update_xaxes(range=[0.5, epochs + 0.5], tick0=step, dtick=step)
    return name_axes(figure, "epoch", y)


def name_axes(figure: go.Figure, x: str, y: str) -> go.Figure:
    """Say what they show; the chart gets its usual height."""
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    figure.update_layout(height=420)
    return figure


def name_rows(figure: go.Figure, backends: list[Look]) -> go.Figure:
    """A row per backend, the first at the bottom, by numbers: plotly loses a category called `constructor`."""
    names = [text(look.name) for look in backends]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4])
    figure.update_layout(height=110 + ROW * len(names))
    return figure
