"""Probes of frozen features on shapes whose classes are known to be easy, impossible, or leaked."""

from __future__ import annotations

import itertools
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nepa3d import cli
from nepa3d.analysis import tables
from nepa3d.analysis.classification_probes import Config, main, probe_classes
from nepa3d.cli.flags import build
from nepa3d.corpora.objects import objects_of, write_objects
from nepa3d.execution.files import write_npz
from nepa3d.models.embedding import ProbeRequest, open_probe
from nepa3d.models.encoder import load
from nepa3d.probes import classifiers
from nepa3d.probes.classification import CLASSIFICATION, run
from nepa3d.probes.classifiers import Examples, answer, classify, nearest_neighbours, standardized
from nepa3d.probes.embedding import untrained
from nepa3d.probes.held_out import HeldOut
from nepa3d.probes.table import result_of
from nepa3d.report.tables import collect
from nepa3d.samples.labelled import split_sets
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.scans import normalize_scan, scan_pools
from tests.commands import errors, status_of
from tests.conftest import GOLDEN

pytest.importorskip("sklearn")

CKPT = f"{GOLDEN / 'nepa_v1.pt'}"
CLASSES = ("ball", "plate", "rod")
DISTANCES = ("pt_dist_pool", "pt_dist_pc_pool")
POOLS = PoolSettings(pt_pool=200, ray_pool=4)
KINDS = tuple(classifiers.SETTINGS)


def make_cache(root: Path, scans: int = 1, train: int = 10, test: int = 5, mixed: bool = False) -> Path:
    """Shapes of three classes, ``scans`` of each object: distances are large where x, y or z is positive, by class.

    ``mixed`` has each of these three forms in every class, equally often.
    """
    for split, count in (("train", train), ("test", test)):
        objects = {}
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i, scan in itertools.product(range(count), range(scans)):
                key = f"{name}/{split}{i:02d}_{scan}"
                objects[key] = f"{split}-{name}-{i}"
                rng = np.random.default_rng([number, i, scan, split == "test"])
                pools = scan_pools(normalize_scan(rng.normal(size=(40, 3)), key), POOLS, 0, key)
                axis = pools["pt_xyz_pool"][:, (number + i) % 3 if mixed else number]
                distances = 0.1 + 0.5 * (axis > 0) + rng.uniform(0, 0.05, len(axis))
                write_npz(root / split / f"{key}.npz", pools | dict.fromkeys(DISTANCES, distances.astype(np.float32)))
        if scans > 1:
            write_objects(root, split, objects)
    return root


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    make_cache(folder / "forms", train=15, test=8)
    make_cache(folder / "scanned", scans=3, train=6, test=3)
    return folder


@pytest.fixture
def forms(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cache as seen from its folder: draws depend on how paths are spelt."""
    monkeypatch.chdir(corpora)
    return "forms"


@pytest.fixture
def scanned(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same with three scans an object."""
    monkeypatch.chdir(corpora)
    return "scanned"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def probe(root: str | Path, **more: Any) -> dict[str, Any]:
    given = {"ckpt": CKPT, "val_ratio": 0.2, "random_init": 0, "num_workers": 0, **more}
    return probe_classes(build(Config, {"cache_root": f"{root}", **given})).to_json()


def test_easy_classes_are_told_apart(forms: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    flags = ["--cache_root", forms, "--ckpt", CKPT, "--val_ratio", "0.2", "--n_seeds", "2", "--out_json", f"{out}"]
    assert main([*flags, "--num_workers", "0"]) == cli.EXIT_OK
    shown, result = capsys.readouterr().out, json.loads(out.read_text())
    assert result["probe"] == "classification"
    for row in (result, result["random_init"], result["raw_distances"]):
        for kind in KINDS:
            low, high = row[kind]["interval"]["accuracy"]
            assert low <= row[kind]["accuracy"] <= high
            assert [seed["converged"] for seed in row[kind]["by_seed"]] == [True, True]
    assert all(result["raw_distances"][kind]["accuracy"] >= 0.9 for kind in KINDS)
    assert all(result[kind]["accuracy"] >= 0.8 for kind in ("logistic", "svm"))
    assert result["chance"] == {"accuracy": pytest.approx(1 / 3), "balanced_accuracy": pytest.approx(1 / 3)}
    assert result["majority"] == {"class": "ball", "accuracy": pytest.approx(1 / 3), "balanced_accuracy": 1 / 3}
    assert result["above"]["majority"]["svm"]["low"] > 0
    sizes = [result[f"n_{name}"] for name in ("train", "validation", "test", "train_objects", "test_objects")]
    assert sizes == [36, 9, 24, 45, 24]
    assert result["items"]["path"] == sorted(result["items"]["path"])
    assert np.mean(result["items"]["svm"]) == pytest.approx(result["svm"]["accuracy"])
    assert result["failed"] == []
    assert any("not surely better than the plain distances" in alarm for alarm in result["alarms"])
    for said in ("24 test shapes of 24 objects", "model, knn", "untrained model, svm", "plain distances", "chance"):
        assert said in shown


def test_classes_with_fewer_shapes_than_shots_are_named(forms: str) -> None:
    result = probe(forms, fewshot_k=13)
    assert result["fewshot_short"] == dict.fromkeys(result["classes"], 12)
    assert any("fewshot_k 13 is more than these classes have" in alarm for alarm in result["alarms"])
    assert probe(forms, fewshot_k=12)["fewshot_short"] == {}


def test_impossible_classes_are_at_chance_and_it_is_said(here: Path) -> None:
    result = probe(make_cache(Path("cache"), train=30, test=18, mixed=True))
    for kind in KINDS:
        low, high = result[kind]["interval"]["accuracy"]
        assert low <= 1 / 3 <= high + 0.05
        assert any(re.search(f"not surely better than the commonest.*{kind}", alarm) for alarm in result["alarms"])


def test_a_collapsed_model_knows_the_commonest_class_only(here: Path) -> None:
    checkpoint = torch.load(CKPT, weights_only=True)
    for name in ("token_mlp.0.weight", "token_mlp.2.weight"):
        checkpoint["model"][name].zero_()
    torch.save(checkpoint, "collapsed.pt")
    root = make_cache(Path("cache"), train=8)
    for extra in range(8, 12):
        source = root / "train" / "plate" / f"train{extra - 8:02d}_0.npz"
        source.with_name(f"train{extra}_0.npz").write_bytes(source.read_bytes())
    result = probe(root, ckpt="collapsed.pt", batch=7)
    for kind in KINDS:
        assert result[kind]["accuracy"] == result["majority"]["accuracy"] == pytest.approx(1 / 3)
        assert f"{kind}: nearly all predictions are plate" in result["alarms"]
    assert result["majority"]["class"] == "plate"
    assert any("collapsed features" in alarm for alarm in result["alarms"])
    assert result["raw_distances"]["knn"]["accuracy"] >= 0.9


def test_no_object_stands_on_both_sides(scanned: str) -> None:
    for seed in range(5):
        for group_by, shared in (("object", False), ("file", True)):
            sets = split_sets(scanned, 0.4, seed, 0, 0, group_by)  # type: ignore[arg-type]
            train, validation = (set(objects_of(scanned, "train", part)) for part in (sets.train, sets.validation))
            assert bool(train & validation) is shared, (seed, group_by)
            few = split_sets(scanned, 0.4, seed, 3, seed, group_by)  # type: ignore[arg-type]
            assert bool(set(objects_of(scanned, "train", few.train)) & validation) in {shared, False}


def test_intervals_resample_objects(scanned: str) -> None:
    by_object, by_file = (probe(scanned, group_by=group_by) for group_by in ("object", "file"))
    assert by_object["n_test"] == 27 and by_object["n_test_objects"] == 9
    for result, count in ((by_object, 9), (by_file, 27)):
        assert len(set(result["items"]["object"])) == count
    assert by_object["n_validation"] == 9 and by_object["n_train"] == 45
    assert by_file["group_by"] == "file"

    labels = np.repeat([0, 1], 30)
    right = np.repeat([1.0, 0, 1, 1, 0, 1], 10)
    widths = []
    for objects in (np.arange(60), np.arange(60) // 10):
        held_out = HeldOut([], labels, objects, ["a", "b"])
        low, high = held_out.intervals(right)["accuracy"]
        widths.append(high - low)
        difference = held_out.difference(right)
        assert (difference["low"], difference["high"]) == pytest.approx((low, high))
    assert widths[1] > 2 * widths[0]


def test_test_objects_in_train_are_counted(here: Path) -> None:
    root = make_cache(Path("cache"), scans=2, train=4, test=2)
    listed = json.loads((root / "_meta" / "objects_test.json").read_text())
    write_objects(root, "test", {key: name.replace("test-ball", "train-ball") for key, name in listed.items()})
    result = probe(root)
    assert result["n_objects_in_both"] == 2
    assert "2 of 6 test objects are in train, too" in result["alarms"]


def test_the_same_seed_gives_the_same_json(forms: str, tmp_path: Path) -> None:
    def run(name: str, *flags: str) -> bytes:
        out = tmp_path / f"{name}.json"
        given = ["--cache_root", forms, "--ckpt", CKPT, "--mc_k", "2", "--out_json", f"{out}"]
        assert main([*given, *flags]) == cli.EXIT_OK
        return out.read_bytes()

    first = run("a", "--num_workers", "0")
    assert run("b", "--num_workers", "0") == first
    assert run("c", "--num_workers", "3") == first
    results = [json.loads(content) for content in (first, run("d", "--batch", "4"))]
    for kind in KINDS:
        assert results[0]["items"][kind] == results[1]["items"][kind]
        assert results[0][kind]["by_seed"] == results[1][kind]["by_seed"]
    assert results[0]["above"] == results[1]["above"]
    assert run("e", "--seed", "1") != first


def test_few_shots(forms: str) -> None:
    result = probe(forms, fewshot_k=2, n_seeds=2)
    assert (result["n_train"], result["n_validation"], result["refit_on"]) == (6, 9, "the shots")
    assert [tried["setting"] for tried in result["knn"]["by_seed"][0]["tried"]] == [1, 5]
    second = probe(forms, fewshot_k=2, fewshot_seed=1, seed=1)
    for kind in KINDS:
        assert result[kind]["by_seed"][1] == second[kind]["by_seed"][0]


def test_an_unreadable_shape_is_listed_and_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_cache(Path("cache"), train=6, test=3)
    broken = [root / "train" / "rod" / "train03_0.npz", root / "test" / "ball" / "test01_0.npz"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:500])
    assert main(["--cache_root", f"{root}", "--ckpt", CKPT, "--out_json", "out.json"]) == cli.EXIT_SOME_FAILED
    result = json.loads(Path("out.json").read_text())
    assert sorted(failure["path"] for failure in result["failed"]) == sorted(map(str, broken))
    assert result["n_train"] + result["n_validation"] == 17
    assert result["n_test"] == len(result["items"]["knn"]) == 8
    assert f"failed: {broken[0]}" in capsys.readouterr().err


def test_a_set_without_a_readable_shape_names_the_first(here: Path) -> None:
    root = make_cache(Path("cache"), train=6, test=1)
    tests = sorted((root / "test").rglob("*.npz"))
    for path in tests:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"in the test set, none of 3 shapes could be read; first: {tests[0]}: \w+"):
        probe(root)
    trained = sorted((root / "train").rglob("*.npz"))
    for path in trained:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"^none of 21 shapes could be read; first: cache/train/.*\.npz: \w+"):
        probe(root)


def test_its_table_is_one_of_those_that_are_printed(
    forms: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe_cls_a.json"
    out.write_text(json.dumps(probe(forms, random_init=1)))
    assert tables.main(["--results", f"{out}"]) == cli.EXIT_OK
    said = capsys.readouterr()
    assert said.err == "" and said.out.startswith("Probes of frozen features\n")
    (table,) = collect([f"{out}"])
    model = Path(CKPT).parent.name
    beside = ["plain distances, no model", "the commonest class", "chance"]
    assert [row[0] for row in table.rows] == [model, f"{model}, untrained", *beside]
    result = json.loads(out.read_text())
    low, high = result["svm"]["interval"]["accuracy"]
    cells = dict(zip(table.heads, table.rows[0], strict=True))
    assert cells["svm, accuracy"] == f"{result['svm']['accuracy']:.3f} ({low:.3f} to {high:.3f})"
    assert table.rows[-1][2:-1] == ["0.333"] * 6


def test_a_result_of_the_library_has_its_table(forms: str) -> None:
    """Which says nothing of shots."""
    paths = {split: sorted(f"{path}" for path in Path(forms, split).rglob("*.npz")) for split in ("train", "test")}
    labels = {split: [CLASSES.index(Path(path).parent.name) for path in some] for split, some in paths.items()}
    given = (paths["train"], labels["train"], paths["test"], labels["test"])
    result = run(load(CKPT), *given, classifiers=KINDS)
    read = result_of(result.to_json())
    assert read is not None and CLASSIFICATION.table is not None
    assert CLASSIFICATION.table([("a", read)]).rows[0][1] == "pointcloud_noray, eos, all of train"


def test_an_untrained_model_is_a_function_of_the_seed() -> None:
    trained = open_probe(ProbeRequest(CKPT))
    state = torch.random.get_rng_state()
    models = [untrained(trained, seed).model.state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in trained.model.state_dict().items():
        assert models[0][name].shape == value.shape
        assert torch.equal(models[0][name], models[1][name])
    name = "token_mlp.0.weight"
    assert not torch.equal(models[0][name], models[2][name])
    assert not torch.equal(models[0][name], trained.model.state_dict()[name])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ckpt": "none.pt"}, "none.pt: expected a checkpoint"),
        ({"cache_root": "nowhere"}, "nowhere.*no such folder"),
        ({"val_ratio": "0"}, r"val_ratio must lie in \(0, 1\), got 0"),
        ({"n_seeds": "0"}, "n_seeds must be at least 1, got 0"),
        ({"batch": "0"}, "batch must be at least 1"),
        ({"seed": "-1"}, "seed must be at least 0, got -1"),
        ({"n_point": "-2"}, "n_point must be at least 0, or -1"),
        ({"n_point": "99"}, "make 117 tokens, but .* takes at most 50"),
        ({"backend": "hologram"}, "backend.*hologram"),
        ({"pooling": "mean_q"}, "pooling mean_q needs a token of that kind"),
        ({"device": "no_such"}, "device.*no_such"),
    ],
)
def test_bad_requests_end_in_one_line(
    more: dict[str, str], said: str, forms: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"cache_root": forms, "ckpt": CKPT, **more}
    assert status_of(main, [part for name, value in flags.items() for part in (f"--{name}", value)]) == cli.EXIT_USAGE
    assert re.search(said, errors(capsys))


def test_one_class_or_no_validation_is_refused(here: Path) -> None:
    root = make_cache(Path("cache"), train=1, test=1)
    with pytest.raises(ValueError, match="expected shapes in the validation set, it is empty"):
        probe(root)
    for split in ("train", "test"):
        for name in ("ball", "rod"):
            for path in (root / split / name).iterdir():
                path.unlink()
    with pytest.raises(ValueError, match="expected at least two classes"):
        probe(root)


def test_without_scikit_learn_it_is_said_what_to_install(forms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pip install 'nepa3d\[probes\]'"):
        probe(forms)


def test_a_solver_that_does_not_converge_is_said_and_not_shown(
    forms: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifiers, "MAX_STEPS", 1)
    result = probe(forms)
    for kind in ("logistic", "svm"):
        assert not result[kind]["by_seed"][0]["converged"]
        assert f"{kind}: the solver did not converge in 1 of 1 seeds" in result["alarms"]
    assert "ConvergenceWarning" not in capsys.readouterr().err


class TestClassifiers:
    def examples(self, count: int, seed: int = 0) -> Examples:
        rng = np.random.default_rng(seed)
        return Examples(rng.normal(size=(count, 6)), rng.integers(0, 3, count))

    @pytest.mark.parametrize("k", [1, 2, 5, 10, 37])
    def test_neighbours_are_those_of_a_slow_loop(self, k: int) -> None:
        train, queries = self.examples(37), self.examples(23, seed=1).vectors
        found = nearest_neighbours(train, queries, k)
        for query, label in zip(queries, found, strict=True):
            cosine = [v @ query / np.linalg.norm(v) / np.linalg.norm(query) for v in train.vectors]
            nearest = sorted(range(37), key=lambda i: -cosine[i])[:k]
            votes = [(train.labels[nearest] == c).sum() for c in range(3)]
            alike = [sum(cosine[i] for i in nearest if train.labels[i] == c) for c in range(3)]
            best = max(range(3), key=lambda c: (votes[c], alike[c]))
            assert label == best

    def test_neighbours_that_tie_share_the_places_left(self) -> None:
        vectors = np.array([[1.0, 0]] * 5 + [[0, 1.0]])
        train = Examples(vectors, np.array([1, 2, 2, 2, 1, 0]))
        for order in (np.arange(6), np.arange(6)[::-1]):
            shuffled = Examples(train.vectors[order], train.labels[order])
            for k in range(1, 6):
                assert nearest_neighbours(shuffled, np.array([[1.0, 1e-9], [3, 0]]), k).tolist() == [2, 2]

    @pytest.mark.parametrize("k", [0, 38])
    def test_numbers_of_neighbours_that_are_not_there(self, k: int) -> None:
        with pytest.raises(ValueError, match=rf"k must lie in 1\.\.37, .*got {k}"):
            nearest_neighbours(self.examples(37), np.zeros((1, 6)), k)

    def test_vectors_and_labels_must_fit(self) -> None:
        with pytest.raises(ValueError, match=r"got \(3, 2\) and \(2,\)"):
            Examples(np.zeros((3, 2)), np.zeros(2, np.int64))
        with pytest.raises(ValueError, match="kind must be one of knn, logistic, svm, got 'tree'"):
            answer("tree", self.examples(4), self.examples(4), self.examples(4), np.zeros((1, 6)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_setting_is_the_first_that_validation_likes_best(self, kind: str) -> None:
        fit, validation, queries = self.examples(40), self.examples(30, seed=1), self.examples(9, seed=2).vectors
        train = fit.joined(validation)
        found = answer(kind, fit, validation, train, queries)
        accuracies = [
            float((classify(kind, fit, validation.vectors, setting)[0] == validation.labels).mean())
            for setting in classifiers.SETTINGS[kind]
        ]
        assert [tried.accuracy for tried in found.tried] == accuracies
        assert found.setting == classifiers.SETTINGS[kind][int(np.argmax(accuracies))]
        np.testing.assert_array_equal(found.predictions, classify(kind, train, queries, found.setting)[0])

    @pytest.mark.parametrize("kind", ["logistic", "svm"])
    def test_linear_classifiers_separate_and_converge_without_a_word(self, kind: str) -> None:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 4, 300)
        vectors = np.eye(4)[labels] @ rng.normal(size=(4, 20)) * 1e3 + rng.normal(size=(300, 20))
        train = Examples(vectors[:200], labels[:200])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for setting in classifiers.SETTINGS[kind]:
                predictions, converged = classify(kind, train, vectors[200:], setting)
                assert converged
                assert (predictions == labels[200:]).all()

    def test_axes_that_only_round_are_no_features(self) -> None:
        rng = np.random.default_rng(0)
        train = np.stack([np.full(50, 0.5), rng.normal(0.5, 1e-7, 50), rng.normal(0.5, 1e-3, 50)], axis=1)
        known, asked = standardized(train, train[:5] + 1)
        np.testing.assert_array_equal(known[:, :2], 0)
        np.testing.assert_array_equal(asked[:, :2], 0)
        assert known[:, 2].std() == pytest.approx(1)
        assert known[:, 2].mean() == pytest.approx(0)
