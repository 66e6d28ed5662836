"""The papers' evaluations: one file a protocol, one row a data set, the linear SVM and the figures it is held against."""

from featx.evaluation.aslan import FoldResult, SimilarityResult, similarity
from featx.evaluation.datasets import DATASETS, Dataset
from featx.evaluation.evaluate import svm_eval
from featx.evaluation.results import Run, SplitResult, SVMResult

__all__ = [
    "DATASETS",
    "Dataset",
    "FoldResult",
    "Run",
    "SVMResult",
    "SimilarityResult",
    "SplitResult",
    "similarity",
    "svm_eval",
]
