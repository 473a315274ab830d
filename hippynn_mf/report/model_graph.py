"""The graph of a model: the shared trunk and a linear head per level, as the paper's figure 2.

Everything drawn is read from the nodes of a model: layers, their sizes, levels, parameters. The
places are our own: networkx's layered layout sorts the linear layers of all heads into one column,
so that heads stand mixed, arrows cross and boxes overlap; hippynn's drawing has a box per node of
the graph, some thirty of them, without sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ase.data import chemical_symbols
from hippynn.networks import hipnn
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from hippynn_mf.errors import UserError
from hippynn_mf.labels import Labels, parse_labels
from hippynn_mf.model.heads import Head, Heads
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.runs.experiment import Experiment

TRUNK_COLOR = "#d9ead3"
TRUNK_EDGE = "#6aa84f"
BAND_COLOR = "#f4f9f2"
INPUT_COLOR = "#eeeeee"
ORDERS = ((hipnn.HipnnQuad, 2), (hipnn.HipnnVec, 1), (hipnn.Hipnn, 0))

# Places in units of the drawing: columns of blocks, and rows of heads.
COLUMN, FIRST_COLUMN, WIDTH = 2.3, 2.5, 1.75
ROW, HEIGHT = 1.0, 0.62
TOP, PAIRS_Y, TRUNK_Y, HEADS_Y = 4.2, 3.7, 1.9, -0.25
TAP = -0.74  # from the middle of a block to the line down to its linear layers
INCHES_PER_UNIT = 0.8


def draw_model_graph(
    heads: Heads, labels: Mapping[str, str] | Labels, *, name: str | None = None
) -> Figure:
    """Draw trunk and heads of a model that is trained on these labels.

    Labels that are trained on have solid boxes; forces that are only predicted have dashed ones. A
    coupled head adds the energy of the level above it, from which an arrow comes.

    Args:
        heads: those of `build_heads`, or `model.heads`.
        labels: level → `"E"` or `"EF"`.
        name: of the model; by default that of the experiment that trains these heads together.

    Raises:
        UserError: if these are not the levels of the heads, or for a trunk that is no HIP-NN.
    """
    resolved = parse_labels(labels)
    if list(resolved) != heads.levels:
        found, expected = ([level.id for level in levels] for levels in (resolved, heads.levels))
        raise UserError(f"The labels are of {found}, the heads of {expected}; name all of these.")
    network = heads.network.torch_module
    if not isinstance(network, hipnn.Hipnn):
        raise UserError(
            f"Only HIP-NN networks can be drawn, not {type(network).__name__}: "
            "Hipnn, HipnnVec, HipnnQuad or those of hippynn_mf."
        )
    right = _column(len(network.feature_sizes) + 1) + 0.75
    bottom = HEADS_Y - ROW * (len(heads) - 1) - 0.5
    figure = Figure(figsize=(INCHES_PER_UNIT * right, INCHES_PER_UNIT * (TOP - bottom)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, right), ylim=(bottom, TOP))
    axes.set_axis_off()
    _draw_trunk(axes, network)
    for row, (head, properties) in enumerate(zip(heads.values(), resolved.values(), strict=True)):
        _draw_head(axes, head, HEADS_Y - ROW * row, trained_forces=properties.forces)
    _draw_taps(axes, network.feature_sizes, len(heads))
    counts = [_count(network), *(_count(head.energy.torch_module) for head in heads.values())]
    if name is None:
        prefix = "MFC" if any(head.base is not None for head in heads.values()) else None
        name = Experiment(labels={v.label: p for v, p in resolved.items()}, prefix=prefix).name
    of_heads = "each head" if len(heads) > 1 else "the head"
    text = f"{sum(counts):,} parameters:\n{counts[0]:,} of the trunk,\n{counts[1]:,} of {of_heads}"
    x = _column(len(network.feature_sizes)) - 0.75
    axes.text(x, TRUNK_Y + 0.75, name, va="center", size=10, weight="bold")
    axes.text(x, TRUNK_Y + 0.05, text, va="center", size=8.5, color="0.3", linespacing=1.4)
    return figure


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _column(n: int) -> float:
    """Middle of block n."""
    return FIRST_COLUMN + COLUMN * (n + 0.5)


def _draw_trunk(axes: Axes, network: Any) -> None:
    symbols = [chemical_symbols[number] for number in network.species_set if number]
    elements = ", ".join(symbols) if len(symbols) <= 5 else f"of {len(symbols)} elements"
    order = next(order for module, order in ORDERS if isinstance(network, module))
    sizes = network.feature_sizes
    last = _column(len(sizes) - 1)
    left = _column(0) - WIDTH / 2 - 0.1
    band = Rectangle((left, 0.5), last + WIDTH / 2 + 0.2 - left, 2.55, color=BAND_COLOR, zorder=0)
    axes.add_patch(band)
    axes.text(left + 0.1, 2.87, "trunk, shared by all levels", va="center", size=8.5, color="0.3")
    _box(axes, 0.95, PAIRS_Y, 1.5, HEIGHT, "positions R", INPUT_COLOR)
    _box(axes, 0.95, TRUNK_Y, 1.5, HEIGHT, "species Z", INPUT_COLOR)
    pairs_x = _column(0)
    text = f"pairs of atoms,\nr < {network.dist_hard_max:g} Å"
    _box(axes, pairs_x, PAIRS_Y, WIDTH, HEIGHT, text, INPUT_COLOR)
    _arrow(axes, (1.7, PAIRS_Y), (pairs_x - WIDTH / 2, PAIRS_Y))
    axes.plot([pairs_x + WIDTH / 2, last], [PAIRS_Y] * 2, color="black", linewidth=1)
    text = f"n = 0\none-hot {elements}\n{_counted(sizes[0], 'feature')}"
    _box(axes, _column(0), TRUNK_Y, WIDTH, 1.1, text, TRUNK_COLOR, edge=TRUNK_EDGE, size=8.5)
    _arrow(axes, (1.7, TRUNK_Y), (_column(0) - WIDTH / 2, TRUNK_Y))
    for n, block in enumerate(network.blocks, start=1):
        x, y = _column(n), TRUNK_Y - 0.05
        _box(axes, x, y, WIDTH + 0.12, 1.9, "", "white", edge=TRUNK_EDGE)
        axes.text(x, y + 0.78, f"n = {n}", ha="center", va="center", size=8.5)
        n_sensitivities = network.n_sensitivities
        text = f"interaction, ℓ = {order}\n{_counted(n_sensitivities, 'sensitivity')}"
        _box(axes, x, y + 0.27, WIDTH - 0.1, 0.66, text, TRUNK_COLOR, size=8)
        text = f"{_counted(len(block) - 1, 'atom layer')}\n{_counted(sizes[n], 'feature')}"
        _box(axes, x, y - 0.52, WIDTH - 0.1, 0.66, text, TRUNK_COLOR, size=8)
        _arrow(axes, (x, PAIRS_Y), (x, y + 0.95))
        start = _column(n - 1) + (WIDTH + 0.12 * (n > 1)) / 2
        _arrow(axes, (start, TRUNK_Y), (x - WIDTH / 2 - 0.06, TRUNK_Y))


def _counted(n: int, noun: str) -> str:
    """`1 feature`, `4 features`."""
    plural = {"sensitivity": "sensitivities"}.get(noun, f"{noun}s")
    return f"{n} {noun if n == 1 else plural}"


def _draw_taps(axes: Axes, sizes: Sequence[int], n_heads: int) -> None:
    """From every block down to the linear layers of all heads, along their left sides."""
    rows = [HEADS_Y - ROW * row for row in range(n_heads)]
    for n in range(len(sizes)):
        x, start = _column(n) + TAP, TRUNK_Y - (0.55 if n == 0 else 1.0)
        axes.plot([x, x], [start, rows[-1]], color=TRUNK_EDGE, linewidth=1.2)
        for y in rows:
            _arrow(axes, (x, y), (x + 0.2, y), color=TRUNK_EDGE)


def _draw_head(axes: Axes, head: Head, y: float, *, trained_forces: bool) -> None:
    level, color = head.level, level_color(head.level)
    axes.text(0.2, y + 0.12, f"{level.label} head", va="center", size=10, weight="bold")
    axes.text(0.2, y - 0.16, f"{level.method}/{level.basis}", va="center", size=8, color="0.3")
    linear = head.energy.torch_module.layers
    for n, layer in enumerate(linear):
        left, right = _column(n) + TAP + 0.2, _column(n) + WIDTH / 2
        text = f"linear {layer.in_features} → {layer.out_features}\nE$^{{{n}}}$ = Σ over atoms"
        _box(axes, (left + right) / 2, y, right - left, HEIGHT, text, "white", edge=color, size=7.5)
        sign = "+" if n < len(linear) - 1 else "="
        axes.text(right + 0.24, y, sign, ha="center", va="center", size=12)
    x, gradient = _column(len(linear)), _column(len(linear) + 1) - 0.15
    text = f"{level.label} energy"
    if head.base is not None:  # drawn right above
        _arrow(axes, (x, y + ROW - HEIGHT / 2), (x, y + HEIGHT / 2))
        axes.text(x + 0.14, y + ROW / 2, "+", ha="center", va="center", size=11)
    _box(axes, x, y, 1.5, HEIGHT, text, color, edge=color, alpha=0.35)
    _arrow(axes, (x + 0.75, y), (gradient - 0.75, y), dashed=not trained_forces)
    axes.text((x + gradient) / 2, y + 0.19, "−d/dR", ha="center", va="center", size=8)
    text = f"{level.label} forces" + ("" if trained_forces else "\nnot trained")
    _box(
        *(axes, gradient, y, 1.5, HEIGHT, text),
        color if trained_forces else "white",
        edge=color,
        alpha=0.35,
        dashed=not trained_forces,
    )


def _box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str,
    face: str,
    *,
    edge: str = "0.4",
    alpha: float = 1.0,
    size: float = 9,
    dashed: bool = False,
) -> None:
    """A box around (x, y); `alpha` is of its face."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=to_rgba(face, alpha),
            edgecolor=edge,
            linewidth=1.3,
            linestyle="--" if dashed else "-",
            label=text,
        )
    )
    axes.text(x, y, text, ha="center", va="center", size=size, linespacing=1.25)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = "black",
    dashed: bool = False,
) -> None:
    style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
    style["linestyle"] = "--" if dashed else "-"
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
