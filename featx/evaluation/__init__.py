"""The papers' evaluations: one file a protocol, one row a data set, the linear SVM and the figures it is held against."""

from featx.evaluation.datasets import DATASETS, Dataset
from featx.evaluation.evaluate import compare, svm_eval
from featx.evaluation.results import Curve, Run, SplitResult, SVMResult, curve, save_csv, save_json

__all__ = [
    "DATASETS",
    "Curve",
    "Dataset",
    "Run",
    "SVMResult",
    "SplitResult",
    "compare",
    "curve",
    "save_csv",
    "save_json",
    "svm_eval",
]
