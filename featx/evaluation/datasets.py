"""The data sets that can be evaluated: one row each. A new one is a file with a `load` function, and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featx.errors import UnknownNameError
from featx.evaluation import folders, hmdb51, ucf101
from featx.evaluation.protocol import Protocol, Request

__all__ = ["DATASETS", "Dataset", "get_dataset"]


@dataclass(frozen=True)
class Dataset:
    """One data set: `load` turns a request into its protocol."""

    name: str
    title: str
    load: Callable[[Request], Protocol]


DATASETS = {
    row.name: row
    for row in (
        Dataset("ucf101", "UCF101", ucf101.load),
        Dataset("hmdb51", "HMDB51", hmdb51.load),
        Dataset("folders", "class folders", folders.load),
    )
}


def get_dataset(name: str) -> Dataset:
    """The row of a data set. Raises UnknownNameError with suggestions."""
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return DATASETS[name]
