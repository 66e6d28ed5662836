"""`featx similarity`."""

from __future__ import annotations

import click

from featx.cli.help import Command
from featx.cli.json_output import print_json
from featx.errors import one_line
from featx.small_files import require_different

__all__ = ["command"]


@click.command(
    "similarity",
    cls=Command,
    epilog="Example: featx similarity aslan.h5 View2.mat --layer prob --layer fc6 --json result.json",
)
@click.argument("features", type=click.Path())
@click.argument("pairs", type=click.Path())
@click.option("--layer", "layers", multiple=True, help="Layer to compare; repeatable.  [default: all of the file]")
@click.option(
    "--norm",
    default="sum",
    show_default=True,
    help="Of the vectors in the last four measures: sum (to one), l2 or none.",
)
@click.option(
    "--scaling",
    default="standard",
    show_default=True,
    help="Of a pair's numbers: standard (by the training pairs), or l2 (P3D's paper).",
)
@click.option("-C", "--C", "C", type=float, default=1.0, show_default=True, help="Penalty of the SVM.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the solver.")
@click.option("--allow-missing", is_flag=True, help="Leave out pairs of videos that the file does not have.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(),
    metavar="FILE",
    help="Write everything, the ROC curve too, to FILE, which replaces one of before; -: to stdout.",
)
@click.option("--plot", "plot_path", type=click.Path(), metavar="FILE", help="Draw the ROC curve (.png, .svg or .pdf).")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(features, pairs, plot_path, quiet, **options) -> None:
    """Tell pairs of videos that show the same action from those that do not.

    PAIRS is ASLAN's View2.mat, or a CSV file of first,second,same,fold with same 1 or 0. Twelve (dis)similarities a layer and
    pair go to a linear SVM, which is trained on all folds but one and tested on that one.
    """
    require_different({"--json": options["json_path"], "--plot": plot_path})
    from featx.evaluation.aslan import similarity

    if plot_path is not None:
        from featx.plots import check_picture

        check_picture(plot_path)
    to_stdout = options["json_path"] == "-"
    options["json_path"] = None if to_stdout else options["json_path"]
    result = similarity(features, pairs, progress=not quiet, **options)
    if plot_path is not None:  # first: who reads what is printed may leave before its end
        from featx.plots import draw_roc

        draw_roc([result], plot_path)
    if to_stdout:
        print_json(result.as_dict())
    else:
        _print_result(result)


def _print_result(result) -> None:
    scaling = "standardised by the training pairs" if result.scaling == "standard" else "scaled to length 1"
    click.echo(
        f"{result.checkpoint} {'+'.join(result.layers)}: {result.num_pairs} pairs in {len(result.folds)} folds; "
        f"{result.num_numbers} numbers a pair, {scaling}; linear SVM, C {result.C:g}\n"
    )
    for fold in result.folds:
        sizes = f"({fold.num_train} train, {fold.num_test} test)"
        click.echo(f"  {fold.name:<9} {fold.accuracy:6.2f} %   AUC {fold.auc:6.2f} %   {sizes}")
    click.echo(f"  {'mean':<9} {result.accuracy:6.2f} % ± {result.standard_error:.2f} (standard error)")
    click.echo(f"  {'ROC':<9} {result.auc:6.2f} % area under the curve of all pairs")
    if result.published:
        published = [f"{figure:.2f} % {name}" for name, figure in result.published.items()]
        click.echo(f"  {'published':<9} {', '.join(published)}")
    click.echo(f"\npublished figure: {result.published_source}")
    for note in result.notes:
        click.echo(one_line(f"note: {note}"))
    for warning in result.warnings:
        click.echo(one_line(f"warning: {warning}"))
