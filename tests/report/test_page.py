"""The report: what it finds, what it says against figures, and the page in a browser."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nepa3d import cli
from nepa3d.analysis import classification_probes, completion_cpac_udf, retrieval_ucpr, scan_retrieval, surfaces
from nepa3d.models.checkpoint import write_tensors
from nepa3d.probes.classification import CLASSIFICATION, KINDS
from nepa3d.probes.completion import COMPLETION
from nepa3d.probes.drawings import Dot
from nepa3d.probes.kind import ProbeKind
from nepa3d.probes.result import Json, Result
from nepa3d.probes.retrieval import RETRIEVAL
from nepa3d.probes.table import PROBES, result_of
from nepa3d.report import figures, findings, page, panels
from nepa3d.report.experiment import Experiment, read_experiment
from nepa3d.report.scenes import read_scenes
from nepa3d.report.verdicts import Verdict, verdicts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECTIONS = ("data", "pretraining", "retrieval", "scan-retrieval", "completion", "surfaces", "classification")
SECTIONS += ("attention", "rays", "run")
DIAGNOSIS = {
    "loss": 0.5,
    "cos_next": 0.5,
    "cos_prev": 0.1,
    "copy_win": 0.1,
    "persistence_loss": 0.6,
    "mean_loss": 0.8,
    "position_type_loss": 0.7,
    "spread": 0.3,
    "effective_rank": 20.0,
    "width": 32,
    "gap": 0.4,
}


@pytest.fixture(scope="module")
def experiment(golden_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small experiment as the commands leave it, with the folder of the recorded data as working directory."""
    root = tmp_path_factory.mktemp("experiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(golden_folder)
        write_run(root / "runs" / "nepa")
        common = ["--cache_root", "unpaired", "--ckpt", f"{root / 'runs' / 'nepa' / 'last.pt'}"]
        sizes = ["--n_context", "16", "--n_query", "16"]
        views = ["--query_backend", "pointcloud_noray", "--gallery_backend", "udfgrid"]
        out = root / "results" / "ucpr_nepa_pc2udf.json"
        assert retrieval_ucpr.main([*common, *views, "--eval_seed_gallery", "9", "--out_json", f"{out}"]) == 0
        search = ["--query_root", "unpaired", "--query_split", "eval", "--gallery_root", "unpaired"]
        search += ["--gallery_splits", "eval", "--turn_queries", "1", "--query_backend", "mesh", "--headings", "2"]
        out = root / "results" / "scan_nepa.json"
        assert scan_retrieval.main([*search, *common[2:], "--out_json", f"{out}"]) == 0
        out = root / "results" / "cpac_nepa.json"
        assert completion_cpac_udf.main([*common, *sizes, "--out_json", f"{out}"]) == 0
        more = ["--resolution", "12", "--max_shapes", "2", "--out_root", f"{root / 'surfaces' / 'nepa'}"]
        assert surfaces.main([*common, *sizes, *more]) == 0
        labelled = ["--cache_root", "cache", *common[2:], "--backend", "mesh", "--val_ratio", "0.3"]
        out = root / "results" / "probe_cls_nepa.json"
        assert classification_probes.main([*labelled, "--out_json", f"{out}"]) == 0
        write_finetuning(root / "runs" / "scan_nepa_k5_s0", 0.4)
        write_finetuning(root / "runs" / "scan_nepa_k0_s0", 0.6)
        (root / "notes.json").write_text("{")
        np.savez(root / "results" / "embeddings.npz", z=np.zeros(3))  # which hides no result beside it
        assert page.main([f"{root}"]) == cli.EXIT_OK
        yield root


def write_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copy("nepa_qa.pt", folder / "last.pt")
    losses = [{"step": step, "epoch": 0, "loss": 1 / (step + 1)} for step in range(9)]
    (folder / "loss.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in losses))
    diagnoses = [DIAGNOSIS | {"step": step} for step in (0, 5)]
    (folder / "diagnostics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in diagnoses))


def write_finetuning(folder: Path, accuracy: float) -> None:
    folder.mkdir(parents=True)
    figures = {"test_acc": accuracy, "test_balanced_acc": accuracy / 2, "alarm": ""}
    write_tensors(folder / "last.pt", figures)
    (folder / "result.json").write_text(json.dumps(figures | {"chance": 0.25, "test_majority": 0.3}))


def test_every_part_is_on_the_page(experiment: Path) -> None:
    text = (experiment / "report.html").read_text()
    for name in SECTIONS:
        assert f'<section id="{name}">' in text and f'href="#{name}"' in text
    assert text.count("<svg role") == len(list((experiment / "report").glob("*.png"))) >= 10
    assert "nearest copy" in text and "nepa3d.analysis.retrieval_ucpr" in text
    rows = json.loads((experiment / "report" / "rays.json").read_text())["grids"]
    assert [row["grid"] for row in rows] == [16, 32, 64, 128]


def test_the_page_loads_nothing(experiment: Path) -> None:
    text = (experiment / "report.html").read_text()
    assert "default-src 'none'" in text
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", own)


def test_pictures_have_ink(experiment: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for path in (experiment / "report").glob("*.png"):
        with image.open(path) as png:
            assert (np.asarray(png.convert("L")) < 128).mean() > 0.002, path.name


def test_the_same_page_again(experiment: Path) -> None:
    first = (experiment / "report.html").read_text()
    assert page.main([f"{experiment}", "--out_html", f"{experiment / 'again.html'}"]) == cli.EXIT_OK
    again = (experiment / "again.html").read_text()
    when = r"page made [^<]*"
    assert re.sub(when, "", again) == re.sub(when, "", first)


def test_what_is_found(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_experiment((experiment,))
    assert [run.name for run in found.pretrainings] == ["nepa"]
    assert {name: len(of) for name, of in found.results.items()} == dict.fromkeys(PROBES, 1)
    assert {run.shots for run in found.finetunings} == {0, 5}
    commands = {content["command"] for _, content in found.configurations}
    probes = ("retrieval_ucpr", "scan_retrieval", "completion_cpac_udf", "surfaces", "classification_probes")
    assert commands == {f"nepa3d.analysis.{name}" for name in probes}
    assert f"left out {experiment / 'notes.json'}" in capsys.readouterr().err


def test_a_result_is_what_its_file_holds(experiment: Path, golden_folder: Path) -> None:
    """Files of every command, and old ones that lack keys of today."""
    files = [*(experiment / "results").glob("*.json"), experiment / "surfaces" / "nepa" / "scores.json"]
    contents = [json.loads(path.read_text()) for path in files]
    assert {result.probe for content in contents if (result := result_of(content))} == set(PROBES)
    old = [record["out"] for record in json.loads((golden_folder / "evals.json").read_text()).values()]
    for content in contents + old:
        result = result_of(content)
        assert result is not None
        written = json.loads(json.dumps(result.to_json()))
        assert content.items() <= written.items() if content in old else written == content
        assert set(written) - set(content) <= {"probe", "failed"}
    assert result_of({"probe": "another", "figure": 1}) is None


def test_nothing_to_report_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main([f"{tmp_path}"]) == cli.EXIT_USAGE
    assert "no losses and no results" in capsys.readouterr().err
    assert page.main([f"{tmp_path / 'nowhere'}"]) == cli.EXIT_USAGE
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_shapes_that_are_elsewhere_leave_the_rest(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert page.main([f"{experiment}", "--out_html", "page.html"]) == cli.EXIT_OK
    text = Path("page.html").read_text()
    assert "start it where the probes ran" in text
    assert '<section id="rays">' not in text and '<section id="pretraining">' in text


def test_names_are_no_markup(experiment: Path, tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>"
    root = tmp_path / "e"
    shutil.copytree(experiment / "surfaces", root / "surfaces")
    scores = json.loads((root / "surfaces" / "nepa" / "scores.json").read_text())
    scores["shapes"][0]["path"] = f"unpaired/eval/x/{bad.replace('/', '')}.npz"
    scores["ckpt"] = "runs/<b>x/last.pt"
    (root / "surfaces" / "nepa" / "scores.json").write_text(json.dumps(scores))
    assert page.main([f"{root}", "--title", bad]) == cli.EXIT_OK
    text = (root / "report.html").read_text()
    assert bad not in text and "<b>x" not in text.partition("<script>")[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"collapsed": True, "tied_fraction": 0.9}, ["the gallery has collapsed: 90%"]),
        ({"shared_draws": True}, ["share their draws"]),
        (
            {"query_backend": "mesh", "gallery_backend": "udfgrid", "query_distances": "d", "gallery_distances": "d"},
            ["both views answer with d of the cache"],
        ),
        ({"query_distances": "", "gallery_distances": ""}, []),  # they are computed
        ({"interval": {"mAP": [0.05, 0.9]}}, ["mAP 0.5000 is not above chance (0.1000)"]),
        ({"mAP": 0.15}, ["mAP 0.1500 is below that of plain distances without a model (0.2000)"]),
    ],
)
def test_doubts_about_retrieval(change: dict[str, object], said: list[str]) -> None:
    result = {"mAP": 0.5, "interval": {"mAP": [0.4, 0.6]}, "chance": {"mAP": 0.1}, "raw_distances": {"mAP": 0.2}}
    found = RETRIEVAL.doubts(read(RETRIEVAL, result | change))
    assert len(found) == len(said)
    assert all(part in doubt for part, doubt in zip(said, found, strict=True))


def test_doubts_about_completion() -> None:
    result = {"mae": 0.2, "nearest_copy": {"mae": 0.1}}
    assert "no better than copying" in COMPLETION.doubts(read(COMPLETION, result))[0]
    for other in (result | {"mae": 0.05}, result | {"context": "mismatched"}, {"mae": 0.2}):
        assert not COMPLETION.doubts(read(COMPLETION, other))


RETRIEVED: Json = {
    "ckpt": "runs/nepa/last.pt",
    "query_backend": "mesh",
    "gallery_backend": "udfgrid",
    "mAP": 0.5,
    "interval": {"mAP": [0.4, 0.6]},
    "chance": {"mAP": 0.1},
    "raw_distances": {"mAP": 0.2},
}
COMPLETED: Json = {"ckpt": "runs/nepa/last.pt", "context_backend": "mesh", "mae": 0.2, "nearest_copy": {"mae": 0.3}}


def read(kind: ProbeKind, content: Json) -> Result:
    """The result in what a file may hold at least."""
    name = next(name for name, known in PROBES.items() if known is kind)
    return kind.result.from_json(content, name, kind.figures, kind.controls, kind.diagnostics)


def verdict_of(kind: ProbeKind, *contents: Json) -> Verdict:
    """That of an experiment with results of one kind."""
    results = [(Path("r.json"), read(kind, content)) for content in contents]
    (verdict,) = verdicts(Experiment((), results={results[0][1].probe: results}))
    return verdict


@pytest.mark.parametrize(
    ("change", "answer", "said"),
    [
        ({}, "yes", "surely better than plain distances (0.200), surely better than chance (0.100)"),
        ({"raw_distances": {"mAP": 0.45}}, "not surely", "not surely better than plain distances (0.450)"),
        ({"raw_distances": {"mAP": 0.7}}, "no", "no better than plain distances (0.700)"),
        ({"raw_distances": None}, "cannot be said", "plain distances: missing from the result, surely better"),
        ({"raw_distances": None, "mAP": 0.1}, "no", "no better than chance (0.100)"),
        ({"interval": {}}, "not surely", "mAP 0.500 (no interval): not surely better"),
        ({"collapsed": True}, "no", "the gallery has collapsed"),
        ({"shared_draws": True}, "no", "share their draws"),
    ],
)
def test_the_verdict_on_retrieval(change: Json, answer: str, said: str) -> None:
    verdict = verdict_of(RETRIEVAL, RETRIEVED | change, RETRIEVED | {"ablate_point_dist": True})
    assert (verdict.probe, verdict.answer) == ("Retrieval", answer)
    assert said in verdict.reason and verdict.reason.startswith("nepa, mesh → udfgrid: mAP ")


def test_the_verdict_on_several_results_counts_them() -> None:
    worse = {"ckpt": "runs/mae/last.pt", "chance": None, "raw_distances": {"mAP": 0.6}}
    verdict = verdict_of(RETRIEVAL, RETRIEVED, RETRIEVED | worse)
    assert verdict.answer == "in part"
    assert verdict.reason == (
        "every control is surely beaten by nepa in 1 of 1 results, by mae in 0 of 1 results "
        "(each control: plain distances 1 of 2, chance 1 of 2, missing from 1)."
    )


@pytest.mark.parametrize(
    ("change", "answer", "said"),
    [
        ({"interval": {"mae": [0.1, 0.29]}}, "yes", "MAE 0.2000 (0.1000 to 0.2900): surely better than"),
        ({"interval": {"mae": [0.1, 0.31]}}, "not surely", "not surely better than the nearest-context copy (0.3000)"),
        ({"mae": 0.3}, "no", "no better than the nearest-context copy (0.3000)"),
        ({"nearest_copy": None}, "cannot be said", "the nearest-context copy: missing from the result"),
    ],
)
def test_the_verdict_on_completion(change: Json, answer: str, said: str) -> None:
    verdict = verdict_of(COMPLETION, COMPLETED | change, COMPLETED | {"context": "mismatched"})
    assert (verdict.probe, verdict.answer) == ("Completion", answer)
    assert said in verdict.reason


def test_the_verdict_on_classes(experiment: Path) -> None:
    result = read_experiment((experiment,)).results["classification"][0][1].to_json()
    names = ("raw_distances", "random_init", "majority")
    for kind in KINDS:
        result[kind] |= {"accuracy": 0.9, "interval": {"accuracy": [0.8, 1.0]}, "collapsed_to": ""}
        for name in names:
            (result[name] if name == "majority" else result[name][kind])["accuracy"] = 0.5
            result["above"][name][kind]["low"] = 0.1
    assert verdict_of(CLASSIFICATION, result).answer == "yes"
    first = f"{verdict_of(CLASSIFICATION, result).results[0]}"
    titles = ("plain distances", "the untrained model", "the commonest class")
    assert first == f"nepa, mesh, {KINDS[0]}: accuracy 0.900 (0.800 to 1.000): " + ", ".join(
        f"surely better than {title} (0.500)" for title in titles
    )
    result["above"]["random_init"]["svm"]["low"] = -0.1
    changed = verdict_of(CLASSIFICATION, result)
    assert changed.answer == "in part" and "the untrained model 2 of 3" in changed.reason
    del result["random_init"]
    assert verdict_of(CLASSIFICATION, result).answer == "cannot be said"
    assert "the untrained model 0 of 3, missing from 3" in verdict_of(CLASSIFICATION, result).reason


def test_the_verdicts_come_first(experiment: Path) -> None:
    text = (experiment / "report.html").read_text()
    found = verdicts(read_experiment((experiment,)))
    assert [verdict.probe for verdict in found] == ["Retrieval", "Completion", "Classes", "Retrieval by scans"]
    box = html.unescape(text[text.index('class="verdicts"') : text.index("What to distrust")])
    for verdict in found:
        assert verdict.reason in box
        assert len(verdict.results) == 1 or all(f"{judged}" in box for judged in verdict.results)


def test_tables_have_their_controls(experiment: Path) -> None:
    found = read_experiment((experiment,))
    tables = {name: kind.report_table(found.of(name)) for name, kind in PROBES.items() if kind.report_table}
    (retrieved,) = tables["ucpr"].rows
    ((_, result),) = found.of("ucpr")
    names = ("chance", "raw_distances", "lipschitz", "spline_field")
    assert retrieved[6:13] == [
        f"{result.figures['mAP']:.3f}",
        "{:.3f} to {:.3f}".format(*result.intervals["mAP"]),
        *(f"{(result.controls[name] or {})['mAP']:.3f}" for name in names),
        "-",  # no untrained model
    ]
    (sought,) = tables["scan_retrieval"].rows
    ((_, scanned),) = found.of("scan_retrieval")
    assert len(sought) == len(tables["scan_retrieval"].heads)
    order = ("random_init", "raw_distances", "lipschitz", "lipschitz_headings", "chance")
    assert sought[9:14] == [f"{scanned.to_json()[name]['r@1']:.3f}" for name in order]
    (completed,) = tables["cpac_udf"].rows
    assert completed[7] == f"{found.of('cpac_udf')[0][1].to_json()['nearest_copy']['mae']:.4f}"
    probed = tables["classification"]
    controls = ["nepa, untrained", "plain distances, no model", "the commonest class", "chance"]
    assert [row[0] for row in probed.rows] == ["nepa", *controls]
    logistic = found.of("classification")[0][1].figures["logistic"]
    assert probed.rows[0][3].startswith(f"{logistic['accuracy']:.3f} (")
    assert [row[0] for row in tables["surfaces"].rows] == ["nepa", "no model", "no model", "no model"]
    assert [row[1:3] for row in findings.finetuning_table(found).rows] == [["5", "1"], ["all", "1"]]
    for table in (probed, tables["surfaces"], findings.finetuning_table(found)):
        assert all(len(row) == len(table.heads) for row in table.rows)


def test_every_alarm_is_among_the_doubts(experiment: Path) -> None:
    found = read_experiment((experiment,))
    said = findings.doubts(found)
    assert len(said["Frozen features"]) == len(found.of("classification")[0][1].alarms or []) > 0
    assert "Fine-tuning" not in said and "Pretraining" not in said
    found.finetuned[0][1]["alarm"] = "nearly all predictions are chair"
    assert findings.doubts(found)["Fine-tuning"] == ["scan_nepa_k0_s0: nearly all predictions are chair."]


def test_the_scenes_hold_the_saved_surfaces(experiment: Path) -> None:
    (scene, *_) = read_scenes(read_experiment((experiment,)).results["surfaces"], "y")
    assert list(scene.surfaces) == ["nepa", "nearest copy", "spline", "true field"]
    packed = scene.surfaces["true field"]
    assert packed is not None
    mesh = trimesh.load_mesh(experiment / "surfaces" / "nepa" / scene.shape / "true_field.ply", process=False)
    columns = [np.frombuffer(base64.b64decode(packed[axis]["bdata"]), "<f4") for axis in "xyz"]
    turned = np.stack([columns[0], columns[2], -columns[1]], 1)
    np.testing.assert_array_equal(turned, np.asarray(mesh.vertices, np.float32))
    faces = [np.frombuffer(base64.b64decode(packed[part]["bdata"]), packed[part]["dtype"]) for part in "ijk"]
    np.testing.assert_array_equal(np.stack(faces, 1), mesh.faces)
    assert len(scene.context) == 16 and len(scene.context[0]) == 4


def test_a_picture_takes_the_colours_of_the_page() -> None:
    matplotlib, colors = pytest.importorskip("matplotlib"), figures.colors_of(["nepa"])
    with matplotlib.rc_context(panels.STYLE):
        figure = figures.dots([Dot("a<b", "nepa", 0.5, (0.4, 0.6), {"chance": 0.1})], "mAP", colors)
        svg = figures.as_svg(figure, "dots", 'said "so"', figures.lay_out(figure))
    assert "var(--ink)" in svg and panels.INK not in svg
    assert 'aria-label="said &quot;so&quot;"' in svg and "a&lt;b" in svg
    assert 300 < figures.width_of(svg) < 900
    long = "a name of <more> than 44 characters, " + "x" * 20
    with matplotlib.rc_context(panels.STYLE):
        figure = figures.dots([Dot(long, "nepa", 0.5, None, {})], "mAP", colors)
        svg = figures.as_svg(figure, "d", "", figures.lay_out(figure))
    assert f"<title>{html.escape(long)}</title>" in svg and f"{html.escape(long[:43])}…<" in svg
    with pytest.raises(ValueError, match="viewBox"):
        figures.width_of("<svg>")


LAYOUT = """() => {
  const main = document.querySelector("main"), inner = main.getBoundingClientRect();
  const room = inner.width - 2 * parseFloat(getComputedStyle(main).paddingLeft);
  const rows = [...document.querySelectorAll(".pictures")].map(box => {
    const right = Math.max(...[...box.children].map(figure => figure.getBoundingClientRect().right));
    return (right - box.getBoundingClientRect().left) / room;
  });
  const tables = [...document.querySelectorAll(".scroll > table")].map(table => {
    const box = table.parentElement;
    return [box.getBoundingClientRect().right <= inner.right, getComputedStyle(box).overflowX];
  });
  const cell = document.querySelector("td.text");
  const shown = getComputedStyle(cell);
  return {rows, tables, title: cell.title === cell.textContent, cut: shown.textOverflow + " " + shown.overflowX,
    name: cell.getBoundingClientRect().width,
    verdicts: document.querySelector(".verdicts").getBoundingClientRect().top};
}"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1280, 1200, 390])
def test_the_width_is_used(experiment: Path, tmp_path: Path, width: int) -> None:
    """Without scripts: only the layout is of interest."""
    playwright = pytest.importorskip("playwright.sync_api")
    text = (experiment / "report.html").read_text().replace(">nepa<", ">" + "n" * 90 + "<")
    (tmp_path / "page.html").write_text(text.replace('title="nepa"', 'title="' + "n" * 90 + '"'))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 800}, offline=True, java_script_enabled=False)
        opened = context.new_page()
        opened.goto((tmp_path / "page.html").as_uri())
        layout = opened.evaluate(LAYOUT)
        assert opened.evaluate("document.documentElement.scrollWidth") == width
        browser.close()
    assert all(used > 0.7 for used in layout["rows"])
    assert all(inside and overflow == "auto" for inside, overflow in layout["tables"])
    assert layout["title"] and layout["cut"] == "ellipsis hidden" and layout["name"] < 300
    assert layout["verdicts"] < 400


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_in_a_browser(experiment: Path, scheme: str, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        opened = context.new_page()
        errors, asked = [], []
        opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: errors.append(f"{error}"))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto((experiment / "report.html").as_uri())
        opened.wait_for_selector("#scenes[data-shown]", timeout=60_000)
        assert asked == [(experiment / "report.html").as_uri()]
        assert opened.evaluate("document.documentElement.scrollWidth") == width

        ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = opened.evaluate("getComputedStyle(document.querySelector('#pretraining svg text')).fill")
        dark = [sum(map(int, re.findall(r"\d+", color)[:3])) < 384 for color in (ground, ink)]
        assert dark == [scheme == "dark", scheme == "light"]

        views = opened.query_selector_all("#scenes .view")
        assert len(views) == 5
        eye = "view => JSON.stringify(view._fullLayout.scene.camera.eye)"
        before = [view.evaluate(eye) for view in views]
        turned = "{eye: {x: 2, y: 0, z: 0}, up: {x: 0, y: 0, z: 1}, center: {x: 0, y: 0, z: 0}}"
        views[1].evaluate(f"view => Plotly.relayout(view, {{'scene.camera': {turned}}})")
        opened.wait_for_function(
            "() => [...document.querySelectorAll('#scenes .view')].every("
            "view => view._fullLayout.scene.camera.eye.x === 2)"
        )
        assert len(set(before)) == 1
        first = opened.get_attribute("#scenes", "data-shown")
        opened.select_option("#shape", index=1)
        opened.wait_for_function(f"() => document.getElementById('scenes').dataset.shown !== {json.dumps(first)}")
        assert errors == []
        browser.close()
