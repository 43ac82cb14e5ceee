"""What the page's charts are drawn with: marks that name their backend, rules, axes, rows.

Every curve names its backend in `meta`: the page's own legend, which a keyboard reaches, shows and hides by it. Colours
that depend on the theme are stood for by MUTED and by INK (`looks.py`), which the page replaces.
"""

import json
from collections.abc import Sequence
from html import escape
from math import isfinite
from typing import Any, Final

import numpy as np

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


Trace = dict[str, Any]
"""A curve or the bars of one kind, as plotly.js takes them."""


class Figure:
    """A figure for plotly.js. Plotly's own class checks every value, which took longer than all else of the page.

    Attributes:
        traces: what is drawn, from the lowest to the uppermost.
        layout: the rest, by plotly.js's names.
    """

    def __init__(self, rows: int = 1) -> None:
        """One panel, or two above each other that share their horizontal axis, the upper one larger."""
        self.traces: list[Trace] = []
        self.layout: dict[str, Any] = {"template": {"data": {"scatter": [{"type": "scatter"}]}}}
        self.layout |= {"xaxis": {}, "yaxis": {}}
        if rows == 2:
            self.layout["xaxis"] = {"anchor": "y", "domain": [0, 1], "matches": "x2", "showticklabels": False}
            self.layout["yaxis"] = {"anchor": "x", "domain": [0.3232, 1]}
            self.layout["xaxis2"] = {"anchor": "y2", "domain": [0, 1]}
            self.layout["yaxis2"] = {"anchor": "x2", "domain": [0, 0.2632]}

    def set_axes(self, letter: str, **settings: Any) -> None:
        """Set something for all horizontal axes, `x`, or all vertical ones, `y`; or for one alone, like `y2`."""
        names = [name for name in self.layout if name.startswith(f"{letter[0]}axis")]
        for name in names if len(letter) == 1 else [f"{letter[0]}axis{letter[1:].removeprefix('1')}"]:
            self.layout[name] |= settings

    def to_json(self) -> str:
        """The figure as plotly.js reads it; a number that is none is null."""
        return json.dumps({"data": self.traces, "layout": self.layout}, default=_plain, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Arrays, columns of tables and NumPy's numbers for JSON."""
    return numbers(value) if np.ndim(value) else value.item()


def numbers(values: Any) -> list[Any]:
    """Values as a list for JSON, in which a number that is none, or infinite, is null."""
    return [value if isfinite(value) else None for value in np.asarray(values).tolist()]


def text(value: object) -> str:
    """As plotly takes it for text: it has a few HTML tags and a way to name a point's values."""
    return escape(str(value), quote=False).replace("%{", "%&#123;")


def curve(
    figure: Figure, look: Look, x: Any, y: Any, what: str, *, bold: bool = True, panel: int = 1, **style: Any
) -> Trace:
    """Add and return a line with markers; `what` is what a point is called, with %{x} and %{y} in it."""
    trace: Trace = {
        "type": "scatter",
        "x": numbers(x),
        "y": numbers(y),
        "meta": look.name,
        "name": text(look.label),
        "showlegend": False,
        "cliponaxis": False,
        "mode": "lines+markers" if bold else "lines",
        "line": {"color": look.colour, "width": 2 if bold else 1, **style.get("line", {})},
        "marker": {
            "symbol": SYMBOLS[look.marker],
            "color": look.colour,
            "size": style.get("size", 7),
            "line": {"color": MUTED, "width": 0.7},
        },
        "hovertemplate": f"{text(look.label)}<br>{what}<extra></extra>",
        **_in_panel(panel),
    }
    figure.traces.append(trace)
    return trace


def _in_panel(number: int) -> Trace:
    """Return the axes of a trace in one of several panels; the first is the uppermost."""
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"} if number > 1 else {}


def status_at(figure: Figure, place: int, look: Look) -> None:
    """Where a mark would be looked for first."""
    status = {"x": 0.01, "xref": "paper", "y": place, "text": f"<i>{text(look.status)}</i>", "xanchor": "left"}
    figure.layout.setdefault("annotations", []).append({**status, "showarrow": False})


def rule(figure: Figure, x: Sequence[float], y: Sequence[float], note: str, position: str = "top left") -> None:
    """A dotted line with a note at its end: a trace, since a shape's note is elsewhere on a logarithmic axis."""
    figure.traces.append(
        {
            "type": "scatter",
            "x": x,
            "y": y,
            "mode": "lines+text",
            "line": {"dash": "dot", "color": MUTED, "width": 1.5},
            "text": ["", note],
            "textposition": position,
            "cliponaxis": False,
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )


def by_epoch(figure: Figure, results: Results, y: str) -> Figure:
    """Name the axes of a chart by epochs: each has its number, or ten at most have."""
    epochs = results.plan.problem.epochs
    step = views.whole_step(epochs)
    figure.set_axes("x", range=[0.5, epochs + 0.5], tick0=step, dtick=step)
    return name_axes(figure, "epoch", y)


def name_axes(figure: Figure, x: str, y: str) -> Figure:
    """Say what they show; the chart gets its usual height."""
    figure.set_axes("x", title={"text": x})
    figure.set_axes("y", title={"text": y})
    figure.layout["height"] = 420
    return figure


def name_rows(figure: Figure, backends: list[Look]) -> Figure:
    """A row per backend, the first at the bottom, by numbers: plotly loses a category called `constructor`."""
    names = [text(look.name) for look in backends]
    figure.set_axes("y", tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4])
    figure.layout["height"] = 110 + ROW * len(names)
    return figure
