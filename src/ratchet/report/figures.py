"""Which pictures tell how good a model is and what changed? The same ones for MLflow and for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from sklearn.metrics import confusion_matrix, roc_curve

from ratchet.check import Check
from ratchet.evaluation.calibration import bin_table
from ratchet.evaluation.loss import Z

INK, SOFT, GOOD, BAD, ACCENT = "#1f2933", "#9aa5b1", "#2f855a", "#c53030", "#2b6cb0"
FATE_COLOURS = {"inherited": "#718096", "introduced": BAD, "fixed": GOOD}
PALETTE = [ACCENT, "#dd6b20", GOOD, "#805ad5", SOFT]
DASHES, MARKS = ("-", (0, (4, 2)), (0, (1, 1)), "-."), "os^D"


def _panels(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex="col")
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.tick_params(colors=INK)
    return figure, panels


def _figure(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Any]:
    figure, panels = _panels(width, height)
    return figure, panels[0, 0]


def svg(figure: Figure) -> str:
    """The figure as SVG text to stand inside a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def reliability(models: dict[str, np.ndarray], truth: np.ndarray) -> Figure:
    """Observed share of label 1 against predicted probability, in equal-mass bins."""
    figure, axes = _figure(5.4, 4.4)
    top = 0.05
    for colour, (name, probability) in zip(PALETTE, models.items(), strict=False):
        table = pd.DataFrame(bin_table(probability, truth))
        error = Z * np.sqrt(np.maximum(table["observed"] * (1 - table["observed"]), 1e-9) / table["rows"])
        axes.errorbar(table["predicted"], table["observed"], yerr=error, marker="o", ms=4, lw=1.4, capsize=2, color=colour, label=name)
        top = max(top, float(table["predicted"].max()), float((table["observed"] + error).max()))
    axes.plot([0, top], [0, top], ls="--", color=SOFT, lw=1, label="perfect")
    axes.set(xlabel="predicted probability", ylabel="observed share", title="Reliability")
    axes.legend(frameon=False)
    return figure


def roc(models: dict[str, np.ndarray], truth: np.ndarray) -> Figure:
    """Receiver operating characteristic of several models on the same rows."""
    figure, axes = _figure(5.4, 4.4)
    for colour, (name, probability) in zip(PALETTE, models.items(), strict=False):
        false_positive, true_positive, _ = roc_curve(truth, probability)
        area = float(np.trapezoid(true_positive, false_positive))
        axes.plot(false_positive, true_positive, color=colour, lw=1.5, label=f"{name} (area {area:.3f})")
    axes.plot([0, 1], [0, 1], ls="--", color=SOFT, lw=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC on the test rows")
    axes.legend(frameon=False, loc="lower right")
    return figure


def confusion(probability: np.ndarray, truth: np.ndarray, threshold: float, names: tuple[str, str]) -> Figure:
    """Rows by truth and decision; `names` are those of label 0 and label 1."""
    figure, axes = _figure(4.6, 4.0)
    table = confusion_matrix(truth.astype(int), (probability >= threshold).astype(int), labels=[0, 1])
    axes.imshow(table, cmap="Blues")
    axes.grid(False)
    for i in range(2):
        for j in range(2):
            dark = table[i, j] > table.max() / 2
            axes.text(j, i, f"{table[i, j]:,}\n{table[i, j] / table.sum():.1%}", ha="center", va="center", color="white" if dark else INK)
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names)
    axes.set(xlabel="decided", ylabel="true", title=f"Decisions at threshold {threshold:g}")
    return figure


def families(values: dict[str, float], metric: str, picked: str) -> Figure:
    """The metric of each family and of the rule on the test rows."""
    figure, axes = _figure(5.4, 3.0)
    names = sorted(values, key=lambda name: -values[name])
    colours = [ACCENT if name == picked else SOFT for name in names]
    bars = axes.barh(names, [values[name] for name in names], color=colours)
    axes.bar_label(bars, fmt="%.4f", padding=3)
    axes.set(xlabel=f"{metric} per row on the test rows (lower is better)", title="Families")
    axes.margins(x=0.15)
    return figure


def curves(family: str, training: dict[str, list[float]]) -> Figure:
    """Training and tuning loss per epoch or iteration."""
    figure, axes = _figure(5.4, 3.4)
    losses = {name: values for name, values in training.items() if name.endswith("loss")}
    for colour, (name, values) in zip(PALETTE, losses.items(), strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, label=name.replace("_", " "))
    axes.set(xlabel="epoch or iteration", ylabel="log loss", title=f"Training of the {family}")
    axes.legend(frameon=False)
    return figure


def slices(groups: dict[str, dict[str, dict[str, float]]], title: str = "Favourable decisions by group") -> Figure:
    """The rate of the favourable decision in every protected group with its 95% interval."""
    rows = [(f"{name}: {group}", row) for name, table in groups.items() for group, row in table.items()]
    figure, axes = _figure(6.0, 1.2 + 0.34 * max(1, len(rows)))
    for place, (_, row) in enumerate(rows):
        rate, n = row["favourable_rate"], row["rows"]
        error = Z * np.sqrt(max(rate * (1 - rate), 1e-9) / n)
        error = [[min(error, rate)], [min(error, 1 - rate)]]
        axes.errorbar(rate, place, xerr=error, fmt="o", color=ACCENT, capsize=3)
        axes.text(1.02, place, f"n = {int(n):,}", va="center", fontsize=8, color=INK, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set(xlabel="share given the favourable decision", title=title)
    axes.invert_yaxis()
    return figure


def drift(checks: Sequence[Check]) -> Figure:
    """Each feature's p-value against the limit that keeps the year's false alarms in budget."""
    told = [check for check in checks if check.name.startswith("data_drift") and check.value is not None]
    figure, axes = _figure(6.0, 1.2 + 0.28 * max(1, len(told)))
    floor = 1e-30
    names = [check.name.split(":")[1] for check in told]
    strength = [-np.log10(max(check.value or 0.0, floor)) for check in told]
    axes.barh(names, strength, color=[BAD if check.verdict == "fail" else GOOD for check in told])
    if told and told[0].limit:
        limit = -np.log10(told[0].limit)
        axes.axvline(limit, color=INK, ls="--", lw=1)
        # Beside the line, above the first bar: a legend would lie upon one.
        axes.annotate(" limit", (limit, -0.6), color=INK, va="bottom", fontsize=8, annotation_clip=False)
    axes.set(xlabel="strength of evidence, -log10 p (cut at 30)", title="Drift by feature")
    axes.invert_yaxis()
    return figure


def inheritance(groups: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Errors inherited, introduced and fixed, by batch and by protected group."""
    rows = [(f"{name} {group}", row) for name, table in groups.items() for group, row in table.items()]
    figure, axes = _figure(6.4, 1.4 + 0.34 * max(1, len(rows)))
    left = np.zeros(len(rows))
    totals = np.array([sum(row[fate] for fate in (*FATE_COLOURS, "right")) for _, row in rows])
    for fate, colour in FATE_COLOURS.items():
        share = np.array([row[fate] for _, row in rows]) / np.maximum(totals, 1)
        axes.barh([name for name, _ in rows], share, left=left, color=colour, label=fate)
        left += share
    axes.set(xlabel="share of test rows", title="Errors: inherited, introduced, fixed")
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.28 if len(rows) < 5 else -0.16))
    axes.invert_yaxis()
    return figure


def timeline(live: pd.DataFrame, metric: str, marks: dict[str, int]) -> Figure:
    """The live loss along the log, in blocks of predictions, with what happened when.

    `live` has `place` (number of the prediction), `loss` and `version`; `marks` maps a name to a place.
    """
    figure, axes = _figure(9.0, 3.4)
    for colour, (version, part) in zip(PALETTE, live.groupby("version", sort=False), strict=False):
        block = (part["place"] // 250) * 250
        means = part.groupby(block)["loss"].agg(["mean", "sem"])
        axes.errorbar(
            means.index + 125,
            means["mean"],
            yerr=Z * means["sem"],
            marker="o",
            ms=3,
            lw=1.2,
            capsize=2,
            color=colour,
            label=f"version {version}",
        )
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.25 * (top - bottom))
    top = axes.get_ylim()[1]
    for height, (name, place) in enumerate(marks.items()):
        axes.axvline(place, color=INK, ls=":", lw=1)
        axes.text(place, top * (1 - 0.07 * (height % 3)), f" {name}", fontsize=8, color=INK, va="top")
    axes.set(xlabel="prediction", ylabel=f"{metric} per row", title="Live cost, in blocks of 250 labelled predictions")
    axes.legend(frameon=False, loc="upper left")
    return figure


def shares(panels: Sequence[tuple[str, str, dict[str, pd.DataFrame]]], of: str = "candidates") -> Figure:
    """Shares with their intervals, a panel for each (axis label, column along it, frame of value, low, high by name)."""
    figure, axes_of = _panels(6.0 * len(panels), 4.2, columns=len(panels))
    for axes, (label, along, lines) in zip(axes_of[0], panels, strict=True):
        for place, (colour, (name, part)) in enumerate(zip(PALETTE, lines.items(), strict=False)):
            # One line may lie upon another: by its dashes and marks both are seen.
            dashes, mark = DASHES[place % len(DASHES)], MARKS[place % len(MARKS)]
            axes.plot(part[along], part["value"], ls=dashes, marker=mark, ms=5, lw=1.6, color=colour, label=name)
            axes.fill_between(part[along], part["low"], part["high"], color=colour, alpha=0.12, lw=0)
        if along == "rows":
            axes.set_xscale("log")
            places = sorted({int(rows) for part in lines.values() for rows in part["rows"]})
            axes.set_xticks(places, [str(EngFormatter(sep="")(place)) for place in places])
            axes.minorticks_off()
        axes.set(xlabel=label, ylabel=f"share of {of}, 95% interval", ylim=(-0.03, 1.03))
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=3.5)
    return figure


def learning(points: Sequence[dict[str, float]], law: dict[str, float]) -> Figure:
    """Accuracy and log loss against the labels learnt from, with the power law that tells what more would bring."""
    figure, ((above,), (axes,)) = _panels(5.4, 4.8, rows=2)
    above.plot([point["labels"] for point in points], [point["accuracy"] for point in points], "o", color=ACCENT)
    above.set(ylabel="accuracy", title="Learning curve")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    labels, losses = [point["labels"] for point in points], [point["log_loss"] for point in points]
    along = np.geomspace(min(labels), max(labels) * 1.5, 100)
    axes.plot(along, law["a"] + law["b"] * (along / 1000) ** -law["c"], color=SOFT, lw=1.2, ls="--", label="power law")
    axes.plot(labels, losses, "o", color=ACCENT, label="trained and measured")
    axes.set(xlabel="labels learnt from", ylabel="log loss")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False)
    return figure


def robustness(checks: Sequence[Check]) -> Figure:
    """The relative loss of ROC AUC by severity, a line for each kind of corruption and measurement scale."""
    figure, axes = _figure(6.4, 4.0)
    told = [check for check in checks if check.name.startswith("robustness") and check.evidence]
    lines = [
        (f"{check.name.split(':')[1].replace('_', ' ')}, {scale}", curve)
        for check in told
        for scale, curve in check.evidence["curves"].items()
    ]
    strongest = sorted(lines, key=lambda line: -line[1][-1]["drop"])
    for place, (name, curve) in enumerate(strongest):
        shown = place < len(PALETTE)
        colour = PALETTE[place] if shown else "#d2d6dc"
        axes.plot(
            [p["severity"] for p in curve],
            [p["drop"] for p in curve],
            marker="o",
            ms=3,
            color=colour,
            label=name if shown else None,
            zorder=2 if shown else 1,
        )
    if told and told[0].limit is not None:
        axes.plot([3], [told[0].limit], marker="v", color=BAD, ls="", label="borne at severity 3")
    axes.set(xlabel="severity", ylabel="share of ROC AUC lost", title="Corrupted rows", xticks=[1, 2, 3, 4, 5])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def importance(now: Sequence[dict[str, float]], changes: Sequence[dict[str, Any]]) -> Figure:
    """What the ROC AUC loses when a feature is shuffled, for this version and, where there is one, its champion."""
    top = list(now)[:12]
    figure, axes = _figure(6.0, 1.3 + 0.34 * max(1, len(top)))
    before = {item["feature"]: item["before"] for item in changes}
    places = np.arange(len(top))
    values = np.array([float(item["value"]) for item in top])
    error = np.array([max(float(item["value"]) - float(item["low"]), 0.0) for item in top])
    axes.barh(places, values, xerr=error, color=ACCENT, height=0.55, label="this version", error_kw={"lw": 0.8, "ecolor": INK})
    known = [(place, before[item["feature"]]) for place, item in zip(places, top, strict=True) if before.get(item["feature"]) is not None]
    if known:
        axes.plot(
            [value for _, value in known], [place for place, _ in known], "|", ms=14, mew=2, color="#dd6b20", label="the champion before it"
        )
        axes.legend(frameon=False, loc="lower right")
    axes.set_yticks(places, [str(item["feature"]) for item in top])
    axes.set(xlabel="ROC AUC lost when shuffled", title="What the decision hangs on")
    axes.invert_yaxis()
    return figure


def compared_slices(found: Sequence[dict[str, Any]], metric: str, margin: float) -> Figure:
    """The slices in which the candidate might be worse: its loss less the champion's, with 95% intervals."""
    told = list(found)[:8]
    figure, axes = _figure(7.4, 1.5 + 0.42 * max(1, len(told)))
    for place, item in enumerate(told):
        colour = BAD if item["p"] < 0.05 else ACCENT
        axes.errorbar(
            item["value"], place, xerr=[[item["value"] - item["low"]], [item["high"] - item["value"]]], fmt="o", color=colour, capsize=3
        )
    axes.axvline(0, color=SOFT, lw=1)
    axes.axvline(margin, color=INK, ls="--", lw=1, label="margin")
    names = [str(item["slice"]).replace(" and ", ",\n") for item in told]
    axes.set_yticks(
        range(len(told)),
        [f"{name} ({item['rows']:,} rows, {item['negative_flips']:.1%} flipped)" for name, item in zip(names, told, strict=True)],
        fontsize=8,
    )
    axes.set(xlabel=f"{metric}, candidate less champion", title="Slices")
    figure.legend(frameon=False, loc="outside lower right")
    axes.invert_yaxis()
    return figure


def genealogy(generations: Sequence[dict[str, Any]]) -> Figure:
    """What became of each generation's errors: inherited, introduced, fixed; one bar a generation with a parent."""
    figure, axes = _figure(6.0, 1.7 + 0.4 * max(1, len(generations)))
    names = [f"version {item['version']}\nchild of {item['parent']}" for item in generations]
    left = np.zeros(len(generations))
    for fate, colour in FATE_COLOURS.items():
        counts = np.array([item[fate] for item in generations], dtype=float)
        bars = axes.barh(names, counts, left=left, color=colour, label=fate, height=0.6)
        axes.bar_label(bars, [f"{count:,.0f}" if count else "" for count in counts], label_type="center", color="white", fontsize=8)
        left += counts
    axes.set(xlabel="test rows", title="Error genealogy")
    figure.legend(frameon=False, ncols=3, loc="outside lower center")
    axes.invert_yaxis()
    return figure


def answer(shares: dict[str, float], title: str) -> Figure:
    """What each feature added to a single answer, in probability."""
    top = sorted(shares.items(), key=lambda item: -abs(item[1]))[:8]
    figure, axes = _figure(5.4, 1.1 + 0.3 * len(top))
    axes.barh([name for name, _ in top], [value for _, value in top], color=[BAD if value > 0 else GOOD for _, value in top])
    axes.axvline(0, color=INK, lw=0.8)
    axes.set(xlabel="added to the probability (SHAP)", title=title)
    axes.invert_yaxis()
    return figure


def history(values: Sequence[float], objective: str) -> Figure:
    """What each trial of a search reached, and the best until then."""
    figure, axes = _figure(6.0, 3.4)
    axes.plot(range(1, len(values) + 1), values, "o", ms=4, color=SOFT, label="trial")
    axes.plot(range(1, len(values) + 1), np.minimum.accumulate(values), color=ACCENT, label="best until then")
    axes.set(xlabel="trial", ylabel=objective.replace("_", " "), title="Search")
    axes.legend(frameon=False)
    return figure


def front(trials: pd.DataFrame, one: str, other: str) -> Figure:
    """Two objectives of every trial; the Pareto front is blue."""
    figure, axes = _figure(5.4, 4.0)
    on = trials["front"].to_numpy(bool)
    axes.plot(trials.loc[~on, one], trials.loc[~on, other], "o", ms=4, color=SOFT, label="dominated")
    axes.plot(trials.loc[on, one], trials.loc[on, other], "o", ms=5, color=ACCENT, label="Pareto front")
    axes.set(xlabel=one.replace("_", " "), ylabel=other.replace("_", " "), title="Objectives")
    axes.legend(frameon=False)
    return figure
