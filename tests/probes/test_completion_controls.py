"""The controls of completion: the spline by its plain twin, the untrained model, and what is said where one is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import nepa3d
from nepa3d.analysis.completion_cpac_udf import Config, complete, main
from nepa3d.cli.flags import build
from nepa3d.probes import completion
from nepa3d.probes.completion import COMPLETION, TEST_SEED_OFFSET, CompletionSettings
from nepa3d.probes.completion_tables import bars
from nepa3d.probes.distance_head import Reading
from nepa3d.probes.embedding import untrained_encoder
from nepa3d.probes.local_regression import fit_local_regression, local_features
from nepa3d.probes.result import Json, Result
from nepa3d.probes.spline import spline_distances
from nepa3d.probes.table import result_of
from nepa3d.samples.completion import SequenceSettings, completion_sample
from nepa3d.samples.completion_loader import batch_of_samples
from nepa3d.samples.schema import POINT_DISTANCE, XYZ

SIZES = {"n_context": 16, "n_query": 16}
FLAGS = ["--cache_root", "unpaired", "--ckpt", "nepa_v1.pt", "--n_context", "16", "--n_query", "16"]


def result_of_flags(**more: object) -> Json:
    given = {"cache_root": "unpaired", "ckpt": "nepa_v1.pt", **SIZES, **more}
    return complete(build(Config, given)).to_json()


def eval_shapes() -> list[str]:
    return sorted(f"{path}" for path in Path("unpaired/eval").rglob("*.npz"))


@pytest.mark.parametrize("ckpt", ["nepa_v1.pt", "nepa_qa.pt"])
def test_the_spline_is_that_of_each_sequence(ckpt: str, golden: Path) -> None:
    pytest.importorskip("scipy")
    found = result_of_flags(ckpt=ckpt, n_context=10, n_query=8, batch=5)
    qa = ckpt == "nepa_qa.pt"
    settings = SequenceSettings("pointcloud_noray", 10, 8, qa=qa, eos=found["add_eos"])
    errors = []
    for path in eval_shapes():
        sample = completion_sample(path, settings, seed=completion.TEST_SEED_OFFSET)
        step = 2 if qa else 1
        asked, answered = sample.features[1 : 1 + 10 * step : step], sample.features[step : 1 + 10 * step : step]
        queries = sample.features[sample.query_tokens][:, XYZ]
        errors.append(spline_distances(asked[:, XYZ], answered[:, POINT_DISTANCE], queries) - sample.target)
    every = np.concatenate(errors)
    assert found["spline"]["mae"] == pytest.approx(np.abs(every).mean(), rel=1e-6)
    assert found["spline"]["rmse"] == pytest.approx(np.sqrt((every**2).mean()), rel=1e-6)
    assert found["spline"]["mae"] < found["nearest_copy"]["mae"]
    assert "missing_controls" not in found


def test_a_missing_control_is_said(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    for more, said in (
        (["--n_context", "3"], "it takes at least 4 context points, there are 3"),
        (["--context", "absent"], "there is no context"),
        (["--spline", "0"], "left out"),
    ):
        assert main([*FLAGS, *more, "--out_json", f"{out}"]) == 0
        result = json.loads(out.read_text())
        assert result["spline"] is None and result["missing_controls"]["spline"] == said
        assert f"no spline: {said}" in capsys.readouterr().out
        again = result_of(result)
        assert again is not None and again.diagnostics["missing_controls"] == result["missing_controls"]


def test_a_flat_context_names_its_shape(golden: Path) -> None:
    pytest.importorskip("scipy")
    shape = nepa3d.Shape.from_cache(eval_shapes()[0])
    arrays = {key: shape[key].copy() for key in shape}
    arrays["pt_xyz_pool"][:, 2] = 0
    encoder = nepa3d.load("nepa_qa.pt", device="cpu")
    encoder.fit_distance_head(eval_shapes(), view="udfgrid")
    found = completion.run(encoder, [*eval_shapes(), nepa3d.Shape(arrays, "flat")])
    assert found.controls["spline"] is None
    assert found.diagnostics["missing_controls"]["spline"].startswith("flat: context must not lie in one plane")
    assert found.controls["nearest_copy"] is not None


def test_without_scipy_it_is_said_before_any_work(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nepa3d.probes.spline.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "scipy.interpolate", None)
    assert main(FLAGS) == 2
    said = capsys.readouterr().err
    assert "SciPy is not installed: pip install 'nepa3d[probes]'" in said and "--spline 0" in said
    assert main([*FLAGS, "--spline", "0"]) == 0


def test_the_untrained_model_has_a_head_of_its_own(golden: Path) -> None:
    trained, other = result_of_flags(random_init=True), result_of_flags(random_init=True, seed=1)
    assert trained["random_init"]["mae"] > 0
    assert trained["random_init"]["mae"] not in (trained["mae"], other["random_init"]["mae"])
    assert trained["mae"] == result_of_flags()["mae"]
    assert "random_init" not in result_of_flags()
    assert result_of_flags(random_init=True)["random_init"] == trained["random_init"]


def test_an_untrained_encoder_is_a_function_of_its_seed(golden: Path, tmp_path: Path) -> None:
    nepa3d.load("nepa_qa.pt", device="cpu").save(tmp_path / "saved")
    encoders = [nepa3d.load(source, device="cpu") for source in ("nepa_qa.pt", tmp_path / "saved")]
    fresh = [untrained_encoder(encoder, 3) for encoder in encoders]
    vectors = [encoder.embed(eval_shapes()[:2]) for encoder in (*fresh, untrained_encoder(encoders[0], 4), encoders[0])]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3
    assert np.abs(vectors[0] - vectors[3]).max() > 1e-3
    for encoder in (encoders[0], fresh[0]):
        encoder.fit_distance_head(eval_shapes(), view="udfgrid")
    settings = CompletionSettings(reading=Reading(progress=False))
    found = completion.run(encoders[0], eval_shapes(), settings, untrained=fresh[0])
    alone = completion.run(fresh[0], eval_shapes(), settings)
    assert found.controls["random_init"] == pytest.approx(alone.figures)
    assert "untrained model" in completion.text(found)


def test_the_local_regression_knows_the_context_and_no_model(golden: Path) -> None:
    """It is the same beside any model, is fitted on the head's shapes, and learns what it is fitted on."""
    pytest.importorskip("sklearn")
    found = result_of_flags(local_regression=True)
    assert found["local_regression"]["mae"] > 0
    assert found["mae"] == result_of_flags()["mae"]
    again = result_of_flags(local_regression=True, random_init=True)
    assert again["local_regression"] == found["local_regression"]
    other = result_of_flags(local_regression=True, head_train_max_shapes=2)
    assert other["local_regression"] != found["local_regression"]
    for more in ({"context": "mismatched"}, {"head_train_split": "own"}):
        with pytest.raises(ValueError, match="local_regression 1 needs shapes to be fitted on and a context"):
            result_of_flags(local_regression=True, **more)
    settings = SequenceSettings("pointcloud_noray", 40, 60, qa=False, eos=True)
    samples = [completion_sample(path, settings, seed) for path in eval_shapes() for seed in range(8)]
    batch = batch_of_samples([f"{i}" for i in range(len(samples))], samples)
    fitted = fit_local_regression([batch], seed=0)
    features = local_features(batch)
    assert features.shape == (len(samples), 60, 16)
    spline = np.abs(features[..., 0] - batch.target).mean()
    assert np.abs(fitted.distances(batch) - batch.target).mean() < 0.7 * spline
    np.testing.assert_array_equal(fit_local_regression([batch], 0).distances(batch), fitted.distances(batch))


def test_without_scikit_learn_it_is_said_before_any_work(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nepa3d.probes.local_regression.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"local_regression: scikit-learn is not installed: pip install 'nepa3d\[probes"
    ):
        result_of_flags(local_regression=True)


RESULT: Json = {
    "mae": 0.05,
    "rmse": 0.1,
    "iou@tau": 0.5,
    "tau": 0.03,
    "ckpt": "runs/a/last.pt",
    "context_backend": "mesh",
    "n_shapes_head_test": 5,
    "eval_split": "eval",
    "interval": {"mae": [0.04, 0.06]},
    "nearest_copy": {"mae": 0.09, "rmse": 0.1, "iou@tau": 0.3},
}
SPLINE: Json = {"spline": {"mae": 0.045, "rmse": 0.1, "iou@tau": 0.6}}
UNTRAINED: Json = {"random_init": {"mae": 0.055, "rmse": 0.1, "iou@tau": 0.6}}


def read(content: Json) -> Result:
    found = result_of(content)
    assert found is not None
    return found


def test_the_controls_are_shown_and_judged() -> None:
    old, new = read(RESULT), read(RESULT | SPLINE | UNTRAINED)
    assert COMPLETION.doubts(old) == []
    assert COMPLETION.doubts(new) == ["MAE 0.0500 is no better than a spline of the context (0.0450)"]
    assert [c.outcome for c in COMPLETION.judged(old)[0].compared] == ["surely"]
    assert [c.outcome for c in COMPLETION.judged(new)[0].compared] == ["surely", "no", "unsure"]
    lost = read(RESULT | {"spline": None})
    assert COMPLETION.judged(lost)[0].beats == "missing"
    assert COMPLETION.table is not None and COMPLETION.report_table is not None
    rows = COMPLETION.table([("cpac_a", old), ("cpac_b", new)]).rows
    assert [row[0] for row in rows] == ["`cpac_a`", "`cpac_b`", "nearest copy", "spline", "untrained"]
    assert rows[3][1] == "-" and rows[3][5] == "0.0450" and rows[4][1] == "`runs/a/last.pt`"
    shown = COMPLETION.report_table([("cpac_a", old), ("cpac_b", new)])
    column = shown.heads.index("Spline: MAE")
    assert [row[column : column + 4] for row in shown.rows] == [4 * ["-"], ["0.0450", "0.600", "-", "0.0550"]]
    local = read(RESULT | {"local_regression": {"mae": 0.04, "rmse": 0.1, "iou@tau": 0.6}})
    assert COMPLETION.report_table([("cpac_a", local)]).rows[0][column + 2] == "0.0400"
    assert COMPLETION.doubts(local) == ["MAE 0.0500 is no better than gradient boosting of local features (0.0400)"]
    (dots,) = COMPLETION.drawings([("cpac_b", new)])
    assert vars(dots)["rows"][0].references == {"nearest copy": 0.09, "spline": 0.045, "untrained": 0.055}
    assert bars([("cpac_b", new)])[0].rows[0].references == (0.045,)
    assert bars([("cpac_a", old), ("cpac_b", new)])[0].rows[1].references == (0.09,)


def test_what_a_model_predicts_itself_is_of_the_target(golden: Path) -> None:
    """One call reads the same head as the command: the grid's, though the mesh's is what the encoder completes by."""
    pytest.importorskip("scipy")
    encoder = nepa3d.load("furniture-small", device="cpu")
    settings = CompletionSettings(seed=TEST_SEED_OFFSET, reading=Reading(progress=False))
    found = completion.run(encoder, eval_shapes(), settings)
    sizes = {name: found.settings[name] for name in ("n_context", "n_query", "query_source", "context_backend")}
    flags = {"cache_root": "unpaired", "ckpt": "furniture-small", "head_train_split": "own", "device": "cpu"}
    command = complete(build(Config, flags | sizes))
    assert found.figures["mae"] == pytest.approx(command.figures["mae"], rel=1e-5)
    of_mesh = build(Config, flags | sizes | {"target": "mesh", "query_source": "pool"})
    assert complete(of_mesh).figures["mae"] != pytest.approx(found.figures["mae"], rel=1e-3)
