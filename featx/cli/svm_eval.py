"""`featx svm-eval`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("svm-eval", epilog="Example: featx svm-eval features.h5 --dataset ucf101 --splits ucfTrainTestlist")
@click.argument("features", type=click.Path())
@click.option(
    "--dataset",
    required=True,
    metavar="NAME",
    help="ucf101, hmdb51, activitynet, objects; yupenn, maryland, scenes (leave one out); folders; csv.",
)
@click.option(
    "--splits",
    type=click.Path(),
    metavar="PATH",
    help="Folder of the data set's list files; for activitynet and csv the file.",
)
@click.option(
    "--split", "numbers", type=int, multiple=True, metavar="N", help="Only this split; repeatable.  [default: all]"
)
@click.option("--layer", help="Layer to evaluate; may be left out where the file holds one.")
@click.option("-C", "--C", "C", type=float, default=1.0, show_default=True, help="Penalty of the SVM.")
@click.option("--dims", type=int, multiple=True, metavar="D", help="Again after PCA to D dimensions; repeatable.")
@click.option(
    "--folds", type=int, metavar="K", help="Folds of the grouped cross-validation of class folders.  [default: 5]"
)
@click.option(
    "--metric", "metrics", multiple=True, help="accuracy, top-K or map; repeatable.  [default: those of the papers]"
)
@click.option("--allow-missing", is_flag=True, help="Leave out listed videos that the file does not have.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of solver and folds.")
@click.option("--per-class", is_flag=True, help="Print the accuracy of each class.")
@click.option("--json", "json_path", type=click.Path(), metavar="FILE", help="Write everything to FILE.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(features, dataset, per_class, quiet, **options) -> None:
    """Train and test a linear SVM on L2-normalised descriptors, by the official splits of a data set."""
    from featx.evaluation import svm_eval

    result = svm_eval(features, dataset, progress=not quiet, **options)
    click.echo(
        f"{result.dataset}, {result.checkpoint} {result.layer}: {result.num_classes} classes, chance {result.chance:.1f} %; "
        f"LinearSVC, C {result.C:g}"
    )
    for run in result.runs:
        click.echo(f"\n{run.num_dims} dimensions{' after PCA' if run.pca else ''}")
        for split in run.splits:
            sizes = f"({split.num_train} train, {split.num_test} test)"
            click.echo(f"  {split.name:<9} {split.accuracy:6.2f} %   {_figures(split.figures)}{sizes}")
        click.echo(f"  {'mean':<9} {run.mean:6.2f} %   {_figures(run.figures)}".rstrip())
        if run.published is not None:
            click.echo(f"  {'published':<9} {run.published:6.2f} %   {_figures(run.published_figures)}".rstrip())
        if per_class:
            for name, value in run.per_class.items():
                click.echo(f"    {name}  {'not tested' if value is None else f'{value:.1f} %'}")
    click.echo(f"\npublished figure: {result.published_source}")
    for note in result.notes:
        click.echo(f"note: {note}")
    for warning in result.warnings:
        click.echo(f"warning: {warning}")


def _figures(figures: dict[str, float]) -> str:
    return "".join(f"{name} {value:.2f} %   " for name, value in figures.items())
