"""The controls of retrieval: ranks by hand and by plain twins, and where they are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nepa3d
from nepa3d.analysis import retrieval_ucpr as ucpr
from nepa3d.cli.flags import build
from nepa3d.probes import ranking, retrieval
from nepa3d.probes.embedding import untrained, untrained_encoder
from nepa3d.probes.lipschitz import violation
from nepa3d.probes.plain_retrieval import FIELD_POINTS, FIELD_SEED, plain_metrics, rank_by_spline_fields
from nepa3d.probes.point_answers import PointAnswers, point_answers
from nepa3d.probes.result import Json, Result
from nepa3d.probes.retrieval import RETRIEVAL, RetrievalSettings
from nepa3d.probes.spline import spline_distances
from nepa3d.probes.table import result_of
from nepa3d.samples.dataset import SampleSettings, evaluation_sample

pytest.importorskip("scipy")
VIEWS = {"query_backend": "mesh", "gallery_backend": "udfgrid", "eval_seed_gallery": 999, "device": "cpu"}
CKPT = "nepa_qa.pt"


def eval_shapes() -> list[str]:
    return sorted(f"{path}" for path in Path("unpaired/eval").rglob("*.npz"))


def retrieved(**more: object) -> Result:
    return ucpr.retrieve(build(ucpr.Config, {"cache_root": "unpaired", "ckpt": CKPT, **VIEWS, **more}))


def test_ranks_by_distance_by_hand() -> None:
    """The first query's item is the nearest; the second's ties with one and is beaten by one; the third's is last."""
    ranks = ranking.rank_by_distance(np.array([[0.0, 1, 2], [1, 2, 2], [0, 1, 5]]))
    assert ranks.better.tolist() == [0, 1, 2] and ranks.tied.tolist() == [0, 1, 0]
    assert ranks.expected.tolist() == [1.0, 2.5, 3.0]
    alike = ranking.retrieval_metrics(ranking.rank_by_distance(np.ones((4, 4))))
    assert alike == pytest.approx(ranking.chance_metrics(4))
    with pytest.raises(ValueError, match=r"apart must be finite and have shape \(N, N\), got \(2, 3\)"):
        ranking.rank_by_distance(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="apart must be finite"):
        ranking.rank_by_distance(np.full((2, 2), np.nan))


def spheres(seed: int, points: int) -> PointAnswers:
    """Six concentric spheres, each asked at points of its own."""
    xyz = np.random.default_rng(seed).uniform(-1, 1, (6, points, 3)).astype(np.float32)
    radii = np.linspace(0.1, 0.9, 6, dtype=np.float32)[:, None]
    return PointAnswers(xyz, np.abs(np.linalg.norm(xyz, axis=2) - radii))


def test_exact_answers_find_each_sphere() -> None:
    found, missing = plain_metrics(spheres(0, 40), spheres(1, 40), lipschitz=True, spline=True, threads=2)
    assert missing == {} and found["lipschitz"]["r@1"] == 1.0 and found["spline_field"]["r@1"] == 1.0
    few, missing = plain_metrics(spheres(0, 3), spheres(1, 3), lipschitz=True, spline=True, threads=1)
    assert missing == {"spline_field": "it takes at least 4 points a shape, there are 3"} and "lipschitz" in few
    none, missing = plain_metrics(spheres(0, 0), spheres(1, 0), lipschitz=True, spline=False, threads=1)
    assert none == {}
    assert missing == {"lipschitz": "it takes at least 1 points a shape, there are 0", "spline_field": "left out"}
    flat = spheres(0, 40)
    flat.points[2, :, 1] = 0
    assert "one plane" in f"{rank_by_spline_fields(flat, spheres(1, 40), 1)}"


def test_a_probes_controls_are_of_its_own_samples(golden: Path) -> None:
    """By plain twins, of the samples that the model was given; an ablation of the model does not change them."""
    form = SampleSettings(8, 4, qa=True, eos=True)
    told = []
    for view, seed in (("mesh", 0), ("udfgrid", 999)):
        samples = [evaluation_sample(path, view, form, seed) for path in eval_shapes()]
        told.append(point_answers(*(np.stack(part) for part in zip(*samples, strict=True))))
    pairs = [[*zip(*of_view, strict=True)] for of_view in told]
    twin = ranking.rank_by_distance(np.array([[violation(*q, *g) for g in pairs[1]] for q in pairs[0]]))
    points = np.random.default_rng(FIELD_SEED).uniform(-1, 1, (FIELD_POINTS, 3))
    fields = [[spline_distances(*pair, points, 1e-2) for pair in of_view] for of_view in pairs]
    by_field = ranking.rank_by_distance(np.array([[np.abs(q - g).sum() for g in fields[1]] for q in fields[0]]))
    for more in ({}, {"ablate_point_xyz": True, "chunk": 5}):
        found = retrieved(n_point=8, n_ray=4, **more)
        assert found.controls["lipschitz"] == pytest.approx(ranking.retrieval_metrics(twin))
        assert found.controls["spline_field"] == pytest.approx(ranking.retrieval_metrics(by_field))
    more_draws = retrieved(n_point=8, n_ray=4, mc_k=4)
    assert (more_draws.controls["lipschitz"] or {})["mAP"] > (found.controls["lipschitz"] or {})["mAP"]


def test_the_untrained_model_and_what_is_left_out(golden: Path) -> None:
    encoder = nepa3d.load(CKPT, device="cpu")
    found = retrieved(random_init=True, spline=False, lipschitz=False)
    assert found.controls["lipschitz"] is None and found.controls["spline_field"] is None
    assert found.diagnostics["missing_controls"] == {"lipschitz": "left out", "spline_field": "left out"}
    assert "no lipschitz: left out" in retrieval.text(found)
    alone = retrieval.retrieve(untrained(encoder.probe, 0), eval_shapes(), RetrievalSettings(), progress=False)
    assert found.controls["random_init"] == pytest.approx(alone.figures)
    in_memory = retrieval.run(encoder, eval_shapes(), untrained=untrained_encoder(encoder, 0))
    assert in_memory.controls["random_init"] == pytest.approx(alone.figures)
    assert "random_init" not in retrieved().controls
    again = result_of(found.to_json())
    assert again is not None and again == found


RESULT: Json = {
    "r@1": 0.4,
    "r@5": 0.5,
    "r@10": 0.6,
    "mAP": 0.5,
    "n_files": 10,
    "n_point": 64,
    "query_backend": "mesh",
    "gallery_backend": "udfgrid",
    "split": "eval",
    "ckpt": "runs/a/last.pt",
    "interval": {"mAP": [0.45, 0.55]},
    "chance": {"mAP": 0.1},
    "raw_distances": {"r@1": 0.1, "r@5": 0.1, "r@10": 0.1, "mAP": 0.2},
}
MORE: Json = {
    "lipschitz": {"r@1": 0.1, "r@5": 0.1, "r@10": 0.1, "mAP": 0.9},
    "spline_field": {"r@1": 0.1, "r@5": 0.1, "r@10": 0.1, "mAP": 0.48},
    "random_init": {"r@1": 0.1, "r@5": 0.1, "r@10": 0.1, "mAP": 0.3},
}


def read(content: Json) -> Result:
    found = result_of(content)
    assert found is not None
    return found


def test_the_controls_are_shown_and_judged() -> None:
    old, new = read(RESULT), read(RESULT | MORE)
    assert RETRIEVAL.doubts(old) == []
    (doubt,) = RETRIEVAL.doubts(new)
    assert doubt.startswith("mAP 0.5000 is no better than that of the pairwise Lipschitz violation")
    assert [c.outcome for c in RETRIEVAL.judged(old)[0].compared] == ["surely"] * 2
    assert [c.outcome for c in RETRIEVAL.judged(new)[0].compared] == ["surely", "surely", "no", "unsure", "surely"]
    assert RETRIEVAL.judged(read(RESULT | {"lipschitz": None}))[0].beats == "missing"
    assert RETRIEVAL.table is not None and RETRIEVAL.report_table is not None
    rows = RETRIEVAL.table([("ucpr_a", old), ("ucpr_b", new)]).rows
    names = ["`ucpr_a`", "`ucpr_b`", "no model", "Lipschitz", "spline field", "untrained", "chance"]
    assert [row[0] for row in rows] == names
    assert rows[3][1:] == [
        *("-", "`mesh -> udfgrid`", "`eval`", "10", "0.1000", "0.1000", "0.1000", "0.9000"),
        "pairwise Lipschitz violation of the answers; 64 points",
    ]
    assert rows[5][1] == "`runs/a/last.pt`"
    shown = RETRIEVAL.report_table([("ucpr_a", old), ("ucpr_b", new)])
    column = shown.heads.index("No model")
    assert [row[column : column + 4] for row in shown.rows] == [
        ["0.200", "-", "-", "-"],
        ["0.200", "0.900", "0.480", "0.300"],
    ]
    dots = RETRIEVAL.drawings([("ucpr_b", new)])[0]
    assert [*vars(dots)["rows"][0].references] == ["chance", "no model", "Lipschitz", "spline field", "untrained"]
