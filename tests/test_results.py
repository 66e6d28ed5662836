"""results.py: what an evaluation writes is replaced by the next one, and nothing else is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from feature_files import write_file

import featx
from featx.errors import UsageError
from featx.evaluation.aslan import SimilarityResult
from featx.evaluation.embedding import Embedding
from featx.evaluation.results import Run, SplitResult, SVMResult, check_output, save_csv, save_json, write_text
from featx.evaluation.train import Prediction, check_predictions, write_predictions

SPLIT = SplitResult("1", 4, 2, 50.0, {"a": 50.0, "b": None}, 1.0, True)
RESULT = SVMResult(
    "f.h5", (), "csv", "c3d", "c3d-sports1m", "fc6", 1.0, "newton", 0, 2, (Run(4, False, None, (SPLIT,)),), "", ()
)
SIMILARITY = SimilarityResult(
    "f.h5", "p.csv", "c3d", "c3d-sports1m", ("fc6",), "sum", 0.0, "standard", 1.0, 0, 12, 9,
    50.0, 1.0, 50.0, (), {}, {}, "", (), (),
)  # fmt: skip
EMBEDDING = Embedding(("a",), ("b",), np.zeros((1, 2), np.float32), "c3d-sports1m", "fc6", "video", "pca", 0, 1)
WRITERS = {
    "svm.csv": lambda path: save_csv(path, [RESULT]),
    "svm.json": RESULT.save_json,
    "several.json": lambda path: save_json(path, [RESULT, RESULT]),
    "similarity.json": lambda path: write_text(path, json.dumps(SIMILARITY.as_dict(), indent=2)),
    "embedding.csv": EMBEDDING.save_csv,
    "hits.csv": lambda path: featx.search(path.parent / "f.h5", ["a"], csv_path=path),
    "pairs.csv": lambda path: featx.find_duplicates(path.parent / "f.h5", csv_path=path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_of_an_evaluation_is_replaced(name, tmp_path):
    write_file(tmp_path / "f.h5", {"fc6": {"a": np.ones(3), "b": np.ones(3)}})
    for _ in range(2):
        check_output(tmp_path / name)
        WRITERS[name](tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "name,label,x,y\na,b,1,2\n",
        '{\n  "features": [1]\n}',
        '{\n  "results": 1}',
        "{",
        "key,label\na,b\n",
        '{"name": "my-card"}',
        '[\n  {\n    "key": "a"',
        "x",
    ],
)
def test_a_list_of_the_users_is_not(text, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(
        UsageError, match=r"a.csv exists and is no table or JSON that featx wrote; it is not replaced: choose"
    ):
        check_output(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("")
    check_output(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_predictions_are_replaced_on_request_alone(name, tmp_path):
    check_predictions(tmp_path / name)
    write_predictions(tmp_path / name, [Prediction("v", ("a",), (1.0,))])
    with pytest.raises(UsageError, match=rf"{name} exists; choose another name, or allow it with --overwrite"):
        check_predictions(tmp_path / name)
    check_predictions(tmp_path / name, overwrite=True)
    (tmp_path / "thing").write_bytes(b"x")
    with pytest.raises(UsageError, match="not named as a table"):
        check_predictions(tmp_path / "thing", overwrite=True)
