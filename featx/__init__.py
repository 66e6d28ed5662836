"""featx: spatiotemporal features from videos with pretrained 3D ConvNets.

    features = featx.extract("a.mp4")                          one video, with the embedded checkpoint
    featx.extract_to("videos/", "features.h5")                 a folder, resumable
    featx.classify("videos/", top=5)                           what a network sees in them, by name
    featx.open("features.h5").descriptors("pool5")             the design matrix, (V, D)
    featx.search("features.h5", "a.mp4", k=5)                  the nearest videos
    featx.pca("features.h5", "compact.h5", dims=500)
    featx.svm_eval("features.h5", "ucf101", splits="ucfTrainTestlist")
    featx.similarity("features.h5", "View2.mat")
    featx.write_report("features.h5", "report.html")           what it holds, as one page

Names are loaded when they are first used, so that `import featx` costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# public name -> (module, name there)
_PUBLIC = {
    "Extractor": ("featx.extractor", "Extractor"),
    "Features": ("featx.features", "Features"),
    "FeatureSet": ("featx.store", "FeatureSet"),
    "FeatxError": ("featx.errors", "FeatxError"),
    "LacksWarning": ("featx.errors", "LacksWarning"),
    "Index": ("featx.neighbours", "Index"),
    "classify": ("featx.classification", "classify"),
    "embed": ("featx.evaluation", "embed"),
    "export": ("featx.exports", "export"),
    "export_c3d": ("featx.c3d_blobs", "export_c3d"),
    "extract": ("featx.extractor", "extract"),
    "extract_to": ("featx.run", "extract_to"),
    "find_duplicates": ("featx.neighbours", "find_duplicates"),
    "import_c3d": ("featx.c3d_blobs", "import_c3d"),
    "import_matrix": ("featx.matrices", "import_matrix"),
    "list_backbones": ("featx.catalog", "list_backbones"),
    "merge": ("featx.run", "merge"),
    "open": ("featx.store", "open_features"),
    "pca": ("featx.compact", "pca"),
    "search": ("featx.neighbours", "search"),
    "similarity": ("featx.evaluation", "similarity"),
    "svm_eval": ("featx.evaluation", "svm_eval"),
    "svm_fit": ("featx.evaluation", "svm_fit"),
    "svm_predict": ("featx.evaluation", "svm_predict"),
    "write_report": ("featx.report", "write_report"),
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'featx' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
