"""`featx svm-predict`."""

from __future__ import annotations

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json
from featx.cli.svm_eval import CONCAT_OPTION

__all__ = ["command"]


@click.command("svm-predict", cls=Command, epilog="Example: featx svm-predict new.h5 --model model.h5 -o labels.csv")
@click.argument("features", type=click.Path())
@click.option("--model", required=True, type=click.Path(), help="What 'featx svm-fit' wrote.")
@click.option("-o", "--output", type=click.Path(), help="File to write, .csv or .json.  [default: CSV on stdout]")
@click.option("--top", type=int, default=1, show_default=True, metavar="K", help="Best classes a video.")
@click.option("--layer", help="Layer to use.  [default: the model's]")
@CONCAT_OPTION
@click.option("--allow-missing", is_flag=True, help="Leave out videos that a joined file does not have.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@json_option
def command(features, output, overwrite, as_json, **options) -> None:
    """Label the videos of a feature file with a trained SVM: key, label, score.

    A score is a distance from the class's boundary, positive on its side, and not a probability. Features that were made
    otherwise than those the model learned (another net, layer, or way of sampling) are refused.
    """
    from featx.evaluation import svm_predict, write_predictions
    from featx.evaluation.train import as_csv, as_entries, check_predictions

    if output is not None:
        check_predictions(output, overwrite)
    predictions = svm_predict(features, **options)
    if output is not None:
        write_predictions(output, predictions)
    if as_json:
        print_json({"output": output, "model": options["model"], "videos": as_entries(predictions)})
    elif output is None:
        click.echo(as_csv(predictions), nl=False)
    else:
        click.echo(f"{output}: {len(predictions)} videos labelled")
