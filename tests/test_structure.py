"""The shape of the package: what imports what, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import featx

PACKAGE = Path(featx.__file__).parent
ONLY_IMPORTER = {
    "av": {"video", "images", "hardware_decode"},
    "h5py": {"store"},
    "click": {"cli"},
    "ctypes": {"engine", "hardware_decode"},
    "matplotlib": {"plots"},
    "ray": {"workers"},
    "pyarrow": {"parquet"},
    "fsspec": {"remote"},
}

# Imports point down: a module may import those of its own line and of the lines below it.
LEVELS = [
    {"cli", "__main__"},
    {
        "run",
        "dry_run",
        "estimate_run",
        "measure",
        "doctor",
        "run_progress",
        "timestamps",
        "integrity",
        "c3d_blobs",
        "matrices",
        "per_video",
        "exports",
        "compact",
        "classification",
        "evaluation",
        "neighbours",
        "plots",
        "report",
    },
    {"workers"},
    {"extractor", "parts", "part_writer", "resume", "urls", "uploads"},
    {"aggregation", "first_clips"},
    {"decode_choice", "feeder", "fetch_ahead"},
    {"clip_frames"},
    {"devices"},
    {"engine", "checkpoints", "store", "basis", "decode_pool"},
    {
        "catalog",
        "descriptors",
        "plan",
        "c3d_lists",
        "csv_lines",
        "decode_worker",
        "lists",
        "clip_rows",
        "bins",
        "segments",
        "layer_names",
        "parquet",
    },
    {"backbones", "preprocess", "clips", "video", "features", "provenance"},
    {
        "container_faults",
        "containers",
        "content",
        "damage",
        "hardware_decode",
        "lost_ends",
        "durable",
        "estimate",
        "frame_folders",
        "frame_times",
        "home",
        "images",
        "interrupt",
        "job_supply",
        "key_paths",
        "machine",
        "profile",
        "progress",
        "reachable",
        "remote",
        "resize",
        "scratch",
        "shards",
        "small_files",
        "views",
        "errors",
        "weights",
        "yuv",
    },
]
LEVEL_OF = {name: -i for i, names in enumerate(LEVELS) for name in names}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        yield relative.parts[0].removesuffix(".py"), relative


def imports(tree):
    """Top-level package and, for featx, the module below it, of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            if node.module == "featx":
                for alias in node.names:
                    yield ["featx", alias.name]
            else:
                yield node.module.split(".")


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda x: str(x) if isinstance(x, Path) else "")
def test_imports(room, path):
    for name, *below in imports(ast.parse((PACKAGE / path).read_text())):
        assert room in ONLY_IMPORTER.get(name, {room}), f"{path} imports {name}"
        if name == "featx" and below and room != "__init__" and below[0] != "__version__":
            assert LEVEL_OF[below[0]] <= LEVEL_OF[room], f"{path} imports featx.{below[0]}, which is above it"


def test_the_kernels_stand_alone():
    """They include each other and the compiler's own headers, and all go into the library."""
    files = sorted((PACKAGE / "engine/cpp").iterdir())
    assert {path.suffix for path in files} == {".cpp", ".h"}
    for path in files:
        text = path.read_text()
        includes = [line.split()[1] for line in text.splitlines() if line.startswith("#include")]
        assert set(includes) <= {f'"{other.name}"' for other in files} | {"<immintrin.h>", "<omp.h>", "<vector>"}, path
        assert path.suffix == ".cpp" or "#pragma once" in text, path


def test_public_names_are_pinned_and_exist():
    assert featx.__all__ == sorted(
        "Extractor FeatureSet Features FeatxError Index LacksWarning classify embed export export_c3d extract extract_to "
        "find_duplicates import_c3d import_matrix list_backbones merge open pca search similarity svm_eval svm_fit svm_predict "
        "write_report".split()
    )
    for name in featx.__all__:
        assert getattr(featx, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'extarct'"):
        featx.extarct  # noqa: B018


@pytest.mark.parametrize(
    "code", ["import featx", "import featx.cli", "import featx.decode_worker", "import featx.catalog"]
)
def test_import_is_cheap(code):
    heavy = f"{code}; import sys; print([m for m in ('torch', 'sklearn', 'h5py') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
