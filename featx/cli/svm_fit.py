"""`featx svm-fit`."""

from __future__ import annotations

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json
from featx.cli.svm_eval import C_OPTION, CONCAT_OPTION, DEVICE_OPTION, SOLVER_OPTION

__all__ = ["command"]


@click.command("svm-fit", cls=Command, epilog="Example: featx svm-fit features.h5 --labels folders -o model.h5")
@click.argument("features", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Model file to write.")
@click.option(
    "--labels",
    metavar="folders|stored|CSV",
    help="folders (class = parent folder), stored (as the feature file keeps them, of --segments), or a CSV file of key,label.",
)
@click.option("--dataset", metavar="NAME", help="Learn the training videos of a data set's split instead.")
@click.option("--splits", type=click.Path(), metavar="DIR", help="--dataset: folder of its list files.")
@click.option("--split", "number", type=int, metavar="N", help="--dataset: the split.")
@click.option("--layer", help="Layer to learn; may be left out where the file holds one.")
@CONCAT_OPTION
@click.option("--dims", type=int, metavar="D", help="PCA to D dimensions first.")
@C_OPTION
@SOLVER_OPTION
@DEVICE_OPTION
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of solver and folds.")
@click.option("--allow-missing", is_flag=True, help="Leave out labelled videos that the file does not have.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(features, output, quiet, as_json, **options) -> None:
    """Train a linear SVM on labelled descriptors and keep it, to label new videos with 'featx svm-predict'."""
    from featx.evaluation import svm_fit

    model, notes = svm_fit(features, output, progress=not quiet, **options)
    if as_json:
        told = ("classes", "num_train", "trained_on", "C", "solver")
        facts = {name: getattr(model, name) for name in told}
        print_json(
            {"output": output, **facts, "num_dims": model.linear.weights.shape[1], "pca": model.basis is not None},
            notes=notes,
        )
        return
    dims = f", PCA to {model.basis.num_dims} dimensions" if model.basis is not None else ""
    click.echo(
        f"{output}: {len(model.classes)} classes from {model.num_train} videos ({model.trained_on}){dims}, C {model.C:g}"
    )
    for note in notes:
        click.echo(f"note: {note}")
