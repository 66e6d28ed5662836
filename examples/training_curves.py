"""Draw the loss curves of runs of train_mini.py.

    python examples/training_curves.py RUN [RUN…] -o curves.svg      # needs pip install 'featx[plots]'

A panel a loss that more than one clip in five has an answer to, a line a run; logs are RUN/log.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

# Losses and what they are called; the others differ little over a run or are rare.
PANELS = {
    "cells": "descriptors of cells",
    "pooled": "descriptors of clips",
    "uniformity": "uniformity",
    "parts": "where limbs are",
    "part_motions": "which way they go",
    "motion": "motion of a simple figure",
    "action": "action",
    "picture": "kind of picture",
}
COLUMNS = 4


def read_log(run: Path) -> list[dict]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def draw(runs: list[Path], output: Path) -> None:
    """Draw all runs into one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {run.name: read_log(run) for run in runs}
    rows = -(-len(PANELS) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(12, 2.6 * rows), layout="constrained")
    for axis, (loss, title) in zip(axes.flat, PANELS.items(), strict=False):
        for name, lines in logs.items():
            known = [line for line in lines if loss in line["losses"]]
            if known:
                axis.plot([line["minutes"] for line in known], [line["losses"][loss] for line in known], label=name)
        axis.set_title(title)
        axis.set_xlabel("minutes")
        axis.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axes.flat[0].legend(frameon=False)
    figure.savefig(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of train_mini.py")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".svg, .png or .pdf")
    args = parser.parse_args()
    draw(args.runs, args.output)


if __name__ == "__main__":
    main()
