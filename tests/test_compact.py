import hashlib
import os
import re
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from feature_files import write_file
from sklearn.decomposition import PCA

from featx.cli import main
from featx.compact import pca
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, ProvenanceError, UnknownNameError, UsageError
from featx.store import open_features, write_features, write_transformed

KEYS = [f"{name}/v_{name}_g{i:02d}_c01" for name in ("Archery", "Biking") for i in range(10)]


def vectors(dims, seed=0):
    rows = np.random.default_rng(seed).gamma(1, 1, (len(KEYS), dims)) * np.linspace(2, 0.5, dims)
    return dict(zip(KEYS, l2_normalise(rows), strict=True))


@pytest.fixture
def features(tmp_path):
    clips = {key: 30 * np.abs(np.random.default_rng(i).standard_normal((3, 24))) for i, key in enumerate(KEYS)}
    return write_file(
        tmp_path / "features.h5",
        {"fc6": vectors(24), "prob": vectors(9, seed=1)},
        clips={
            "fc6": {key: rows.astype(np.float32) for key, rows in clips.items()},
            "prob": {key: rows[:, :9].astype(np.float32) for key, rows in clips.items()},
        },
        failures=[("Biking/broken", "no frames")],
    )


def sklearn_projection(fit, rows, dims):
    """Full-solver PCA with the sign rule: the entry of largest magnitude is positive."""
    fitted = PCA(dims, svd_solver="full").fit(fit.astype(np.float64))
    parts = fitted.components_
    signs = np.sign(parts[np.arange(dims), np.abs(parts).argmax(axis=1)])
    return fitted.transform(rows.astype(np.float64)) * signs


def test_the_file_holds_the_projection_of_descriptors_and_clips(features, tmp_path):
    summary = pca(features, tmp_path / "compact.h5", dims=5)
    with open_features(features) as before, open_features(tmp_path / "compact.h5") as after:
        assert after.keys == before.keys and after.failures == before.failures and after.layers == before.layers
        for layer in ("fc6", "prob"):
            rows = np.asarray(before.descriptors(layer))
            np.testing.assert_allclose(after.descriptors(layer), sklearn_projection(rows, rows, 5), atol=1e-4)
            clips = np.concatenate(list(before.clip_blocks(layer)))
            expected = sklearn_projection(rows, l2_normalise(clips), 5)  # clips at the descriptors' scale
            np.testing.assert_allclose(np.concatenate(list(after.clip_blocks(layer))), expected, atol=1e-4)
        np.testing.assert_array_equal(after.column("path"), before.column("path"))
    layer = summary.layers[0]
    assert (layer.layer, layer.num_features, layer.num_dims, layer.method) == ("fc6", 24, 5, "gram")
    assert layer.fitted_on == "all 20 videos" and 0 < layer.explained < 1
    assert (summary.num_videos, summary.num_clips) == (20, 60)


def test_a_link_to_itself_and_a_name_that_is_too_long_are_told_at_once(features, tmp_path):
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    with pytest.raises(UsageError, match="Too many levels of symbolic links"):
        pca(features, tmp_path / "loop.h5", dims=2)
    with pytest.raises(
        UsageError, match=r"its name has 243 bytes, and \d+ more .*; choose a name of at most 2\d\d$"
    ) as told:
        pca(features, tmp_path / ("x" * 240 + ".h5"), dims=2)
    allowed = int(str(told.value).rpartition(" ")[2])
    pca(features, tmp_path / ("x" * (allowed - 3) + ".h5"), dims=2)


@pytest.mark.parametrize("style", ["keys", "train list", "paths"])
def test_fit_on_a_list(features, tmp_path, style):
    chosen = KEYS[3:17]
    lines = {
        "keys": chosen,
        "train list": [f"{key}.avi 1" for key in chosen],
        "paths": [f"/videos/{key}.avi" for key in chosen],
    }[style]
    names = tmp_path / "trainlist01.txt"
    names.write_text("\r\n".join(reversed(lines)))
    summary = pca(features, tmp_path / "compact.h5", dims=5, layers=["fc6"], fit_on=names)
    with open_features(features) as before, open_features(tmp_path / "compact.h5") as after:
        rows = np.asarray(before.descriptors("fc6"))
        np.testing.assert_allclose(after.descriptors("fc6"), sklearn_projection(rows[3:17], rows, 5), atol=1e-4)
        assert after.layers == ("fc6",)
    digest = hashlib.sha256(names.read_bytes()).hexdigest()
    assert summary.layers[0].fitted_on == f"14 videos of trainlist01.txt (sha256 {digest})"


def test_a_list_that_can_be_read_once_is_recorded_by_what_it_held(features, tmp_path):
    content = "\n".join(KEYS[3:17]).encode()
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as file:
        file.write(content)
        file.close()
        summary = pca(features, tmp_path / "compact.h5", dims=5, layers=["fc6"], fit_on=f"/dev/fd/{reader}")
    assert hashlib.sha256(content).hexdigest() in summary.layers[0].fitted_on


def test_a_basis_is_reused_on_another_file(features, tmp_path):
    pca(features, tmp_path / "compact.h5", dims=6, layers=["fc6"], whiten=True, l2=True)
    new = write_file(tmp_path / "new.h5", {"fc6": {key: row for key, row in list(vectors(24).items())[4:7]}})
    pca(new, tmp_path / "new-compact.h5", basis=tmp_path / "compact.h5")
    pca(tmp_path / "new.h5", tmp_path / "fewer.h5", basis=tmp_path / "new-compact.h5", dims=2)
    with (
        open_features(tmp_path / "compact.h5") as first,
        open_features(tmp_path / "new-compact.h5") as second,
        open_features(tmp_path / "fewer.h5") as fewer,
    ):
        np.testing.assert_allclose(second.descriptors("fc6"), first.descriptors("fc6")[4:7], atol=1e-6)
        np.testing.assert_array_equal(second.bases["fc6"]["components"], first.bases["fc6"]["components"])
        assert second.bases["fc6"]["fitted_on"] == "all 20 videos"
        np.testing.assert_allclose(fewer.descriptors("fc6"), l2_normalise(first.descriptors("fc6")[4:7, :2]), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("checkpoint", "c3d-other"), ("backbone", "res3d"), ("variant", "port"), ("checkpoint_sha256", "cd" * 32)],
)
def test_a_basis_of_another_checkpoint_is_refused(features, tmp_path, field, value):
    pca(features, tmp_path / "compact.h5", dims=5, layers=["fc6"])
    other = write_file(tmp_path / "other.h5", {"fc6": vectors(24)}, **{field: value})
    with pytest.raises(ProvenanceError, match=f"^{field} of the basis is .* of the features '{value}'"):
        pca(other, tmp_path / "out.h5", basis=tmp_path / "compact.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_damaged_basis_is_refused(features, tmp_path):
    pca(features, tmp_path / "compact.h5", dims=5, layers=["fc6"])
    with h5py.File(tmp_path / "compact.h5", "r+") as h5:
        components = h5["basis/fc6/components"]
        components[2, 3] = -components[2, 3]
    with pytest.raises(FeatureFileError, match="damaged: .*basis/fc6/components"):
        pca(features, tmp_path / "out.h5", basis=tmp_path / "compact.h5", layers=["fc6"])
    assert not (tmp_path / "out.h5").exists()


def test_refusals(features, tmp_path):
    out, compact, names = tmp_path / "out.h5", tmp_path / "compact.h5", tmp_path / "names.txt"
    names.write_text(f"{KEYS[0]}\nArchery/a\nArchery/b\nArchery/c\nArchery/d\n")
    pca(features, compact, dims=5, layers=["fc6"], l2=True)

    def refused(message, path=features, output=out, error=UsageError, **options):
        with pytest.raises(error, match=message):
            pca(path, output, **options)
        assert not out.exists()

    refused("dims is not given")
    refused("dims is 10 for prob, .* 1 to 9 dimensions", dims=10)
    refused("dims is 0", dims=0)
    refused("unknown layer 'fc9'", dims=3, layers=["fc9"], error=UnknownNameError)
    refused("4 of 5 names in .*names.txt are not in .*: Archery/a, Archery/b, Archery/c …", dims=3, fit_on=names)
    refused("leave one of them out", fit_on=names, basis=compact)
    refused("is the input too", output=features, dims=3, overwrite=True)
    refused("compact.h5 exists; .*--overwrite", output=compact, dims=3)
    refused("holds no basis", basis=features)
    refused("unknown layer 'prob'", basis=compact, error=UnknownNameError)
    refused("l2 is False, but the basis in .* was made with l2 True", basis=compact, layers=["fc6"], l2=False)
    refused("dims is 6, but the basis has 5", basis=compact, layers=["fc6"], dims=6)
    refused("fc6 has gone through PCA already", path=compact, dims=3)


@pytest.mark.parametrize("kept", ["clips", "bins"])
def test_values_beyond_float16_are_refused(tmp_path, kept):
    """A transform that multiplies by 1000 brings 65.5 to within float16's range, which ends at 65504, and 65.625 beyond it."""
    thousandfold = SimpleNamespace(num_dims=2, apply=lambda block: block * np.float32(1000))
    for name, largest in (("within", 65.5), ("beyond", 65.625)):
        rows = np.array([[1, -largest]], np.float16)
        path = write_file(tmp_path / f"{name}.h5", {"fc6": {"a": [1, 0]}}, clips={"fc6": {"a": rows}}, dtype="float16")
        with open_features(path) as features:
            provenance, video = features.provenance, features["a"]
        if kept == "bins":
            provenance = replace(provenance, save="descriptors", aggregate="bins", bins=1)
            video = replace(video, clips={}, clip_table=None, bins={"fc6": rows})
            write_features(path, provenance, [video])
        output = tmp_path / f"{name}.out.h5"
        with open_features(path) as features:
            if name == "beyond":
                with pytest.raises(
                    UsageError, match=r"fc6 has values up to 6.56e.04 .* float16's range of 65504, .*--l2"
                ):
                    write_transformed(features, output, {"fc6": thousandfold}, bases={})
                assert not output.exists() and not list(tmp_path.glob(".*.tmp"))
            else:
                write_transformed(features, output, {"fc6": thousandfold}, bases={})
                with open_features(output) as mapped:
                    stored = mapped["a"].clips if kept == "clips" else mapped["a"].bins
                    assert stored["fc6"].dtype == np.float16 and stored["fc6"].tolist() == [[1000, -65504]]


def run_cli(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return exit_.value.code, *capsys.readouterr()


def test_command_line_equals_the_api(features, tmp_path, capsys):
    options = ("--dims", 4, "--layer", "fc6", "--whiten", "--l2")
    code, out, _ = run_cli(capsys, "pca", features, "-o", tmp_path / "cli.h5", *options)
    summary = pca(features, tmp_path / "api.h5", dims=4, layers=["fc6"], whiten=True, l2=True)
    with open_features(tmp_path / "cli.h5") as cli, open_features(tmp_path / "api.h5") as api:
        np.testing.assert_array_equal(cli.descriptors("fc6"), api.descriptors("fc6"))
        assert cli.bases["fc6"].keys() == api.bases["fc6"].keys() and cli.bases["fc6"]["whiten"] == 1
    assert code == 0
    assert f"fc6: 24 -> 4 dimensions, {summary.layers[0].explained:.2%} of the variance explained" in out
    assert re.search(r"20 videos and 60 clips written to .*cli\.h5", out)


@pytest.mark.parametrize(
    "arguments",
    [("--dims", "30"), (), ("--dims", "3", "--layer", "fc9"), ("--dims", "x"), ("--basis", "absent.h5")],
)
def test_wrong_usage_is_one_line_and_exit_code_2(features, tmp_path, capsys, arguments):
    code, _, err = run_cli(capsys, "pca", features, "-o", tmp_path / "out.h5", *arguments)
    assert code == 2 and "Traceback" not in err and err.strip()
