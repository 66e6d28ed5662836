"""The papers' evaluations: one file a protocol, one row a data set, the linear SVM and the figures it is held against."""

from featx.evaluation.aslan import FoldResult, SimilarityResult, similarity
from featx.evaluation.datasets import DATASETS, Dataset
from featx.evaluation.embedding import Embedding, embed
from featx.evaluation.evaluate import compare, svm_eval
from featx.evaluation.model import SVMModel
from featx.evaluation.results import Curve, Run, SplitResult, SVMResult, curve, save_csv, save_json
from featx.evaluation.train import Prediction, svm_fit, svm_predict, write_predictions

__all__ = [
    "DATASETS",
    "Curve",
    "Dataset",
    "Embedding",
    "FoldResult",
    "Prediction",
    "Run",
    "SVMModel",
    "SVMResult",
    "SimilarityResult",
    "SplitResult",
    "compare",
    "curve",
    "embed",
    "save_csv",
    "save_json",
    "similarity",
    "svm_eval",
    "svm_fit",
    "svm_predict",
    "write_predictions",
]
