"""The data sets that can be evaluated: one row each. A new one is a file with a `load` function, and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featx.errors import UnknownNameError
from featx.evaluation import activitynet, csv_folds, folders, hmdb51, objects, scenes, stored, ucf101
from featx.evaluation.protocol import Protocol, Request

__all__ = ["DATASETS", "Dataset", "get_dataset"]


@dataclass(frozen=True)
class Dataset:
    """One data set: `load` turns a request into its protocol.

    `metrics` are those that its papers print, see `featx.evaluation.metrics`; `unit` says what a row is, "video" or "clip".
    `trained_as`: how the cards of checkpoints call its training videos; empty where there are no such checkpoints.
    """

    name: str
    title: str
    load: Callable[[Request], Protocol]
    metrics: tuple[str, ...] = ("accuracy",)
    unit: str = "video"
    trained_as: str = ""


DATASETS = {
    row.name: row
    for row in (
        Dataset("ucf101", "UCF101", ucf101.load, trained_as="UCF101"),
        Dataset("hmdb51", "HMDB51", hmdb51.load, trained_as="HMDB51"),
        Dataset("yupenn", "YUPENN dynamic scenes", scenes.load_yupenn),
        Dataset("maryland", "Maryland dynamic scenes", scenes.load_maryland),
        Dataset("scenes", "class folders, leave one video out", scenes.load),
        Dataset(
            "activitynet", "ActivityNet v1.3", activitynet.load, ("accuracy", "top-3", "map"), trained_as="ActivityNet"
        ),
        Dataset("objects", "egocentric objects", objects.load, unit="clip"),
        Dataset("folders", "class folders", folders.load),
        Dataset("stored", "labels of the feature file", stored.load),
        Dataset("csv", "a table of key, label and fold", csv_folds.load),
    )
}


def get_dataset(name: str) -> Dataset:
    """The row of a data set. Raises UnknownNameError with suggestions."""
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return DATASETS[name]
