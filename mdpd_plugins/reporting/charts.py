"""Charts as inline SVG, drawn by matplotlib, whose colours follow the page's light or dark scheme."""

from __future__ import annotations

import colorsys
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mdpd_plugins.reporting.history import Points

# Drawn in these colours, which nothing else has, and shown in what the style sheet sets the variables to.
VARIABLES = {
    "#0101f0": "var(--ink)",
    "#0101f1": "var(--rule)",
    "#0101f2": "var(--backbone)",
    "#0101f3": "var(--side)",
    "#0101f4": "var(--third)",
    "#0101f5": "var(--paper)",
}
INK, RULE, BACKBONE, SIDE, THIRD, PAPER = VARIABLES
PATHS = {"backbone": BACKBONE, "side": SIDE}
# Points, at which text is 10: about the width of a telephone's screen, where it is then read at its size.
WIDTH, HEIGHT = 380, 230
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read out, searched, and takes the page's font
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.alpha": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Chart:
    """One chart of the page: its picture, what it shows in words, and the numbers as a table.

    Attributes:
        title: heading. svg: the picture. header, rows: the table under it.
    """

    title: str
    svg: Markup
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def curves(title: str, key: str, lines: Mapping[str, Points], label: str, mark: int | None = None) -> Chart:
    """Lines over steps; those of the paths in the paths' colours, those of layers in a row of hues.

    Args:
        key: of the chart, unique on the page. label: of the vertical axis. mark: a step to draw a line at.
    """
    figure, axes = _figure()
    colours = _colours(list(lines))
    for name, points in lines.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colours[name], label=name, marker="o" if len(points) < 16 else "", markersize=3)
    if mark is not None:
        axes.axvline(mark, color=THIRD, linestyle="--", linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(lines) > 1:
        _legend(figure, len(lines))
    logged = sorted({step for points in lines.values() for step, _ in points})
    by_step = {name: dict(points) for name, points in lines.items()}
    rows = [[f"{s:,}", *(f"{v[s]:.4f}" if s in v else "" for v in by_step.values())] for s in _thinned(logged)]
    ends = "; ".join(f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in lines.items())
    return Chart(title, _svg(figure, key, f"{title} over {logged[-1]} steps: {ends}"), ["step", *lines], rows)


def layer_bars(title: str, key: str, values: Mapping[str, float], label: str, header: Sequence[str], rows) -> Chart:
    """A vertical bar for each layer."""
    figure, axes = _figure()
    axes.bar(range(len(values)), list(values.values()), color=BACKBONE, width=0.7)
    _layer_ticks(axes, list(values))
    axes.set_ylabel(label)
    axes.grid(axis="x", visible=False)
    said = ", ".join(f"{name}: {value:.3g}" for name, value in values.items())
    return Chart(title, _svg(figure, key, f"{title}: {said}"), header, rows)


def layer_line(
    title: str, key: str, values: Sequence[float], groups: Mapping[str, Sequence[int]], header: Sequence[str], rows
) -> Chart:
    """A point for each layer; layers of a group have a background of their own. Values lie in 0 to 1."""
    figure, axes = _figure()
    for (name, layers), colour in zip(groups.items(), (BACKBONE, SIDE), strict=True):
        for n, layer in enumerate(layers):
            axes.axvspan(layer - 0.5, layer + 0.5, color=colour, alpha=0.16, linewidth=0, label=name if not n else None)
    axes.plot(range(len(values)), values, color=INK, marker="o", markersize=4)
    axes.set_ylim(0, 1.04)
    axes.set_xlim(-0.5, len(values) - 0.5)
    _layer_ticks(axes, [str(i) for i in range(len(values))])
    axes.set_xlabel("layer")
    axes.set_ylabel("agreement")
    axes.grid(axis="x", visible=False)
    _legend(figure, sum(1 for layers in groups.values() if layers))
    said = ", ".join(f"layer {i}: {v:.2f}" for i, v in enumerate(values))
    return Chart(title, _svg(figure, key, f"{title}: {said}"), header, rows)


def bars(
    title: str, key: str, parts: Mapping[str, Mapping[str, float]], label: str, ours: str, header: Sequence[str], rows
) -> Chart:
    """Horizontal bars, each of parts end to end, the row `ours` in bold.

    Args:
        parts: row -> part -> length.
    """
    figure, axes = _figure(height=60 + 26 * len(parts))
    names = list(parts)
    kinds = list(dict.fromkeys(kind for row in parts.values() for kind in row))
    left = [0.0] * len(names)
    for kind, colour in zip(kinds, (THIRD, SIDE, BACKBONE), strict=False):
        lengths = [parts[name].get(kind, 0.0) for name in names]
        axes.barh(names, lengths, left=left, color=colour, label=kind, height=0.62)
        left = [a + b for a, b in zip(left, lengths, strict=True)]
    for place, total in enumerate(left):
        axes.annotate(
            f"{total:,.2f}",
            (total, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=9,
        )
    axes.set_xlim(0, max(left) * 1.18 or 1)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    for tick in axes.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() == ours else "normal")
    if len(kinds) > 1:
        _legend(figure, len(kinds))
    said = ", ".join(f"{name}: {total:,.2f}" for name, total in zip(names, left, strict=True))
    return Chart(title, _svg(figure, key, f"{title}, {label}: {said}"), header, rows)


def _figure(height: float = HEIGHT):
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.subplots()


def _legend(figure: Figure, entries: int) -> None:
    if entries:
        with rc_context(STYLE):
            figure.legend(loc="outside upper left", ncols=min(entries, 3), labelcolor=INK)


def _layer_ticks(axes, names: list[str]) -> None:
    # Every layer if there is room; always those that have words for names.
    every = -(-len(names) // 14)
    shown = [i for i, name in enumerate(names) if not name.isdecimal() or int(name) % every == 0]
    axes.set_xticks(shown, [names[i].replace(" the blocks", "") for i in shown])


def _colours(names: list[str]) -> dict[str, str]:
    if set(names) <= set(PATHS):
        return {name: PATHS[name] for name in names}
    if len(names) == 1:
        return {names[0]: PATHS.get(names[0].partition("/")[0], BACKBONE)}
    # Hues of one lightness, which stand out from white and from black alike.
    rgb = [colorsys.hls_to_rgb(0.6 - 0.55 * i / (len(names) - 1), 0.5, 0.62) for i in range(len(names))]
    return {n: "#" + "".join(f"{round(255 * c):02x}" for c in row) for n, row in zip(names, rgb, strict=True)}


def _thinned(steps: list[int], most: int = 60) -> list[int]:
    every = -(-len(steps) // most)
    return [s for i, s in enumerate(steps) if i % every == 0 or i == len(steps) - 1]


def _svg(figure: Figure, key: str, said: str) -> Markup:
    stream = io.StringIO()
    # Names that are not drawn at random: the same run gives the same page.
    with rc_context({**STYLE, "svg.hashsalt": key}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    # Ids are the page's: several charts must not share one.
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r"url\(#", f"url(#{key}-", text).replace('xlink:href="#', f'href="#{key}-')
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    # Sized by the style sheet; its own size is what the view box says.
    head = re.sub(r' (width|height)="[\d.]+pt"', "", text[: text.index(">")])
    named = f'{head} role="img" aria-label="{escape(said)}">'
    return Markup(named + text[text.index(">") + 1 :])


__all__ = ["Chart", "bars", "curves", "layer_bars", "layer_line"]
