"""`featx svm-eval`."""

from __future__ import annotations

import click

from featx.cli.help import Command
from featx.cli.json_output import print_json
from featx.errors import one_line
from featx.small_files import STDOUT, require_different

__all__ = ["command"]


class _NumberOrAuto(click.ParamType):
    name = "number or auto"

    def convert(self, value, param, ctx):
        if value == "auto" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"'{value}' is not a number, and not auto", param, ctx)


C_OPTION = click.option(
    "-C",
    "--C",
    "C",
    type=_NumberOrAuto(),
    default=1.0,
    show_default=True,
    metavar="NUMBER|auto",
    help="Penalty of the SVM; auto: by cross-validation inside the training rows.",
)
SOLVER_OPTION = click.option(
    "--solver",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="newton, liblinear (scikit-learn's LinearSVC: the same minimum), or auto: newton from 2,000 training rows on.",
)
DEVICE_OPTION = click.option(
    "--device", default="auto", show_default=True, help="Where newton runs: auto, cpu, cuda or cuda:N."
)
CONCAT_OPTION = click.option(
    "--concat",
    type=click.Path(),
    multiple=True,
    metavar="FILE",
    help="Join the descriptors of FILE (or FILE:LAYER) to each of FEATURES; repeatable.",
)


@click.command(
    "svm-eval", cls=Command, epilog="Example: featx svm-eval features.h5 --dataset ucf101 --splits ucfTrainTestlist"
)
@click.argument("features", type=click.Path(), nargs=-1, required=True)
@click.option(
    "--dataset",
    required=True,
    metavar="NAME",
    help="ucf101, hmdb51, activitynet, objects; yupenn, maryland, scenes (leave one out); folders; stored (labels of "
    "--segments); csv.",
)
@click.option(
    "--splits",
    type=click.Path(),
    metavar="PATH",
    help="Folder of the data set's list files; for activitynet, csv and stored (key,fold) the file.",
)
@click.option(
    "--split", "numbers", type=int, multiple=True, metavar="N", help="Only this split; repeatable.  [default: all]"
)
@click.option("--layer", help="Layer to evaluate; may be left out where a file holds one, or stand in FEATURES.")
@CONCAT_OPTION
@C_OPTION
@click.option("--dims", type=int, multiple=True, metavar="D", help="Again after PCA to D dimensions; repeatable.")
@click.option(
    "--folds", type=int, metavar="K", help="Folds of the grouped cross-validation of class folders.  [default: 5]"
)
@click.option(
    "--metric", "metrics", multiple=True, help="accuracy, top-K or map; repeatable.  [default: those of the papers]"
)
@click.option("--allow-missing", is_flag=True, help="Leave out videos that the lists or a file has and another not.")
@SOLVER_OPTION
@DEVICE_OPTION
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of solver and folds.")
@click.option("--per-class", is_flag=True, help="Print the accuracy of each class.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(),
    metavar="FILE",
    help="Write everything to FILE, which replaces one of before; -: to stdout, instead of the text.",
)
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(),
    metavar="FILE",
    help="Write a table of the accuracies to FILE, or to stdout, likewise.",
)
@click.option(
    "--plot-curves",
    "curves_path",
    type=click.Path(),
    metavar="FILE",
    help="Draw accuracy against --dims, a line for each of FEATURES (.png, .svg or .pdf).",
)
@click.option(
    "--plot-confusion",
    "confusion_path",
    type=click.Path(),
    metavar="FILE",
    help="Draw which class was taken for which, of one feature file.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(features, dataset, per_class, json_path, csv_path, curves_path, confusion_path, quiet, **options) -> None:
    """Train and test a linear SVM on L2-normalised descriptors, by the official splits of a data set.

    FEATURES are one feature file or several, compared with each other; FILE:LAYER names one of a file's layers.
    """
    from featx.evaluation import compare, curve, save_csv, save_json
    from featx.evaluation.results import compared

    require_different(
        {"--json": json_path, "--csv": csv_path, "--plot-curves": curves_path, "--plot-confusion": confusion_path}
    )
    _check_pictures(curves_path, confusion_path, len(features), options["dims"])
    to_stdout, json_path = json_path == "-", None if json_path == "-" else json_path
    results = compare(features, dataset, outputs=(json_path, csv_path), progress=not quiet, **options)
    # files first: who reads what is printed may leave before its end
    if csv_path not in (None, STDOUT):
        save_csv(csv_path, results)
    if json_path is not None:
        results[0].save_json(json_path) if len(results) == 1 else save_json(json_path, results)
    if curves_path is not None:
        from featx.plots import draw_curves

        draw_curves([curve(result) for result in results], curves_path, title=results[0].dataset)
    if confusion_path is not None:
        from featx.plots import draw_confusion

        draw_confusion(results[0], confusion_path)
    if to_stdout:
        print_json(results[0].as_dict() if len(results) == 1 else compared(results))
    elif csv_path == STDOUT:
        save_csv(csv_path, results)
    else:
        _print_results(results, per_class)


def _check_pictures(curves_path: str | None, confusion_path: str | None, num_files: int, dims: tuple[int, ...]) -> None:
    """Refuse before the first training what could not be drawn after the last."""
    from featx.plots import check_picture

    if curves_path is not None and not dims:
        raise click.UsageError("--plot-curves draws accuracy against dimensions; give some with --dims, repeatable")
    if confusion_path is not None and num_files > 1:
        raise click.UsageError(f"--plot-confusion draws one feature file, but {num_files} are given; name one of them")
    for path in (curves_path, confusion_path):
        if path is not None:
            check_picture(path)


def _print_results(results, per_class: bool) -> None:
    for i, result in enumerate(results):
        click.echo("\n" * bool(i), nl=False)
        _print_result(result, per_class)
    if len(results) > 1:
        _print_table(results)


def _print_result(result, per_class: bool) -> None:
    click.echo(
        f"{result.dataset}, {result.name}: {result.num_classes} classes, chance {result.chance:.1f} %; "
        f"linear SVM ({result.solver}), C {result.C if result.C == 'auto' else format(result.C, 'g')}"
    )
    for run in result.runs:
        click.echo(f"\n{run.num_dims} dimensions{' after PCA' if run.pca else ''}")
        for split in run.splits:
            chosen = f", C {split.C:g}" if result.C == "auto" and split.C is not None else ""
            sizes = f"({split.num_train} train, {split.num_test} test{chosen})"
            click.echo(f"  {split.name:<9} {split.accuracy:6.2f} %   {_figures(split.figures)}{sizes}")
        click.echo(f"  {'mean':<9} {run.mean:6.2f} %   {_figures(run.figures)}".rstrip())
        if run.published is not None:
            click.echo(f"  {'published':<9} {run.published:6.2f} %   {_figures(run.published_figures)}".rstrip())
        if per_class:
            for name, value in run.per_class.items():
                click.echo(one_line(f"    {name}  {'not tested' if value is None else f'{value:.1f} %'}"))
    click.echo(f"\npublished figure: {result.published_source}")
    for note in result.notes:
        click.echo(one_line(f"note: {note}"))
    for warning in result.warnings:
        click.echo(one_line(f"warning: {warning}"))


def _figures(figures: dict[str, float]) -> str:
    return "".join(f"{name} {value:.2f} %   " for name, value in figures.items())


def _print_table(results) -> None:
    """Mean accuracies, a line a feature file, a column a number of dimensions."""
    dims = [run.num_dims for run in results[0].runs[1:]]
    width = max(len(result.name) for result in results)
    click.echo(f"\n{'mean accuracy in %':<{width}}" + "".join(f"{d:>8}" for d in dims) + "     all")
    for result in results:
        means = [run.mean for run in (*result.runs[1:], result.runs[0])]
        click.echo(f"{result.name:<{width}}" + "".join(f"{mean:8.2f}" for mean in means))
