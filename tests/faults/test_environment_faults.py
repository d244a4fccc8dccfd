"""Environments as schedulers and machines leave them (docs/faults.md, rows E): commands run as a user starts them."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks
import nepa3d
from nepa3d import cli
from nepa3d.corpora import shapenet
from nepa3d.execution import sockets
from nepa3d.execution.sharding import Shard, choose_shard
from nepa3d.experiments import jobs
from nepa3d.train import pretrain
from nepa3d.train.distributed import local_rank
from tests.data.corpus import SMALL, make_corpus, write_mesh

PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # names of files are ASCII there
MODEL = ["--batch", "2", "--epochs", "1", "--n_point", "8", "--n_ray", "4", "--d_model", "16", "--layers", "1"]
MODEL += ["--heads", "2", "--num_workers", "2"]


def start(module: str, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with these variables beside or instead of this process's."""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        env=os.environ | paths | variables,
        capture_output=True,
        encoding="utf-8",
        timeout=180,
    )


def preprocess(corpus: Path, out: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    folders = ["--shapenet_root", f"{corpus}", "--out_root", f"{out}"]
    return start("nepa3d.data.preprocess_shapenet", *folders, *SMALL, "--workers", "1", *flags, **variables)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a refused command says."""
    assert done.returncode == cli.EXIT_USAGE, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four meshes and their caches."""
    folder = tmp_path_factory.mktemp("made")
    make_corpus(folder / "meshes", chair=4)
    assert preprocess(folder / "meshes", folder / "cache").returncode == cli.EXIT_OK
    return folder


@pytest.fixture
def long_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files whose path alone is as long as a socket's may be."""
    folder = tmp_path / ("y" * 110)
    folder.mkdir(parents=True)
    yield folder
    assert not list(folder.glob("pymp-*"))


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def test_a_long_tmpdir(made: Path, tmp_path: Path, long_folder: Path, engine: str) -> None:
    """E01: sockets go where their paths fit, those of workers and those of Ray."""
    if engine == "ray":
        pytest.importorskip("ray")
    done = preprocess(made / "meshes", tmp_path / "cache", "--engine", engine, TMPDIR=f"{long_folder}")
    assert done.returncode == cli.EXIT_OK, done.stderr
    assert len(list((tmp_path / "cache").glob("*/*/*.npz"))) == 4


def test_training_and_jobs_under_a_long_tmpdir(
    made: Path, tmp_path: Path, long_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--cache_root", f"{made / 'cache'}", *MODEL, "--save_dir", f"{tmp_path / 'run'}"]
    monkeypatch.setenv("TMPDIR", f"{long_folder}")
    job = jobs.Job("one", cli.parse(pretrain.Config, flags), tmp_path / "run" / "last.pt", tmp_path / "one.log")
    assert [finished.state for finished in jobs.run_jobs([job], ["cpu"])] == ["ok"], (tmp_path / "one.log").read_text()


def test_no_folder_for_sockets(monkeypatch: pytest.MonkeyPatch, long_folder: Path) -> None:
    monkeypatch.setattr(sockets, "USUAL", ())
    monkeypatch.setattr(sockets.tempfile, "tempdir", f"{long_folder}")
    with pytest.raises(ValueError, match=f"TMPDIR: {long_folder} is too long"):
        sockets.socket_folder(32)


def test_empty_variables_of_torchrun(made: Path, tmp_path: Path) -> None:
    """E02: they count as not set; so do those of NCCL, which would be read as numbers."""
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCH_NCCL_BLOCKING_WAIT")
    flags = ["--cache_root", f"{made / 'cache'}", *MODEL, "--save_dir", f"{tmp_path / 'run'}"]
    done = start("nepa3d.train.pretrain", *flags, **dict.fromkeys(names, ""))
    assert done.returncode == cli.EXIT_OK, done.stderr
    assert (tmp_path / "run" / "last.pt").exists()


def test_a_world_without_ranks(made: Path, tmp_path: Path) -> None:
    """E03: several processes that torchrun did not start."""
    flags = ["--cache_root", f"{made / 'cache'}", *MODEL, "--save_dir", f"{tmp_path / 'run'}"]
    done = start("nepa3d.train.pretrain", *flags, WORLD_SIZE="2", RANK="")
    assert "WORLD_SIZE is 2, but not set: RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT" in one_line(done)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": " "}, None),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "1234"}, 1),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "1234"}, "not set: LOCAL_RANK"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK must lie"),
        (
            {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "70000"},
            "MASTER_PORT",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number"),
    ],
)
def test_what_the_variables_of_torchrun_mean(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: int | str | None
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, variables[name]) if name in variables else monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "")
    if isinstance(found, str):
        with pytest.raises(ValueError, match=found):
            local_rank()
    else:
        assert local_rank() == found
    assert "TORCH_NCCL_BLOCKING_WAIT" not in os.environ


def test_names_under_a_plain_locale(made: Path, tmp_path: Path) -> None:
    """E04: the files are those of a UTF-8 locale, and every table can be printed."""
    corpus = tmp_path / "Möbel"
    shutil.copytree(made / "meshes", corpus)
    (corpus / "chair").rename(corpus / "stühle")
    write_mesh(corpus, "stühle/椅子", "")
    same = ("--eval_split", "train")
    for name, variables in (("plain", PLAIN | {"PYTHONIOENCODING": "ascii"}), ("usual", {})):
        out = tmp_path / name
        done = preprocess(corpus, out, **variables)
        assert done.returncode == cli.EXIT_SOME_FAILED, done.stderr
        assert len(list((out / "train" / "stühle").iterdir())) == 4
        for flags in (
            ["nepa3d.data.verify", f"{out}"],
            ["nepa3d.data.shapenet_unpaired_split", "--cache_root", f"{out}", "--out_json", f"{out}/split.json", *same],
            ["nepa3d.train.pretrain", "--cache_root", f"{out}", *MODEL, "--save_dir", f"{out}/run"],
        ):
            done = start(*flags, **variables)
            assert done.returncode == cli.EXIT_OK, done.stderr
    for file in ("_meta/verify.json", "_splits/train.txt", "_splits/train_keys.json", "split.json", "run/loss.jsonl"):
        outs = [tmp_path / name for name in ("plain", "usual")]
        texts = [(out / file).read_text(encoding="utf-8").replace(f"{out}", "") for out in outs]
        assert texts[0] == texts[1], file


def test_a_wrapper_under_a_plain_locale(made: Path, tmp_path: Path) -> None:
    variables = {"SHAPENET_ROOT": f"{tmp_path / 'Möbel'}", "OUT_ROOT": f"{tmp_path / 'cache'}"}
    for more in (PLAIN, {"PYTHONIOENCODING": "ascii"}):
        done = start("nepa3d.cli.from_environment", "nepa3d.data.preprocess_shapenet", **variables, **more)
        assert "bel is not a folder" in one_line(done)


def text_calls_without_encoding(source: str) -> list[int]:
    """Lines that read or write text in whatever encoding the locale has."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        modes = [*node.args, *given.values()]
        binary = any(isinstance(m, ast.Constant) and isinstance(m.value, str) and "b" in m.value for m in modes)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        of = getattr(receiver, "id", getattr(receiver, "attr", ""))
        method = receiver is not None and of not in ("files", "os")
        reads = name == "read_text" and method and not node.args
        writes = name == "write_text" and method and len(node.args) < 2
        mode = node.args[0] if node.args else None
        opens = (
            name == "open"
            and of != "os"
            and not binary
            and of not in ("archive", "_zip", "tarfile", "ShapeIndex", "ShapeTable")
            and (method or mode is not None)
        )
        text = name in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & given.keys()
        if (reads or writes or opens or text) and "encoding" not in given:
            found.append(node.lineno)
    return found


def test_the_rule_for_encodings_sees_what_it_should() -> None:
    bad = ["p.read_text()", "p.write_text(t)", "open(p)", "p.open()", "p.open('a')", "run(c, text=True)"]
    assert [text_calls_without_encoding(line) for line in bad] == [[1]] * len(bad)
    good = ["p.read_text('utf-8')", "p.write_text(t, encoding='utf-8')", "p.open('rb')", "open(p, 'wb')", "run(c)"]
    assert [text_calls_without_encoding(line) for line in good] == [[]] * len(good)


def test_every_text_file_is_opened_as_utf8() -> None:
    """E05: also those that no test opens under another locale."""
    files = [path for package in (nepa3d, benchmarks) for path in Path(package.__path__[0]).rglob("*.py")]
    assert len(files) > 100
    found = {f"{file}": lines for file in files if (lines := text_calls_without_encoding(file.read_text("utf-8")))}
    assert not found


def slurm(number: int, first: int, last: int, tasks: int) -> dict[str, str]:
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    values = (f"{number}", f"{first}", f"{last}", f"{tasks}", "")
    return {f"SLURM_ARRAY_TASK_{name}": value for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("first", [0, 1])
def test_tasks_of_an_array_run_again(first: int) -> None:
    """E06: `--array=1,4,9` with the count of the whole does what these tasks of the whole did."""
    whole = [choose_shard(0, 1, "slurm", slurm(n, first, first + 9, 10)) for n in range(first, first + 10)]
    assert sorted(shard.index for shard in whole) == list(range(10))
    for number in (1, 4, 9):
        assert choose_shard(0, 10, "slurm", slurm(number, 1, 9, 3)) == whole[number - first]
        assert choose_shard(0, 10, "slurm", slurm(number, number, number, 1)) == whole[number - first]
        assert choose_shard(0, 10, "pbs", {"PBS_ARRAY_INDEX": "", "PBS_ARRAYID": f"{number}"}) == whole[number - first]
    assert choose_shard(0, 5, "slurm", slurm(0, 0, 2, 3)) == Shard(0, 5)


@pytest.mark.parametrize(
    ("variables", "flags", "said"),
    [
        (slurm(1, 1, 9, 3), [], "pass --num_shards with the number of tasks of the whole"),
        (slurm(4, 4, 4, 1), [], "pass --num_shards"),
        (slurm(9, 1, 9, 3), ["--num_shards", "5"], "must lie in 0..5, for num_shards 5, got 9"),
        (dict.fromkeys(slurm(0, 0, 0, 0), ""), [], "SLURM_ARRAY_TASK_ID is not set, so this is no array job"),
    ],
)
def test_tasks_of_an_array_that_tell_too_little(
    made: Path, tmp_path: Path, variables: dict[str, str], flags: list[str], said: str
) -> None:
    """E07: which part such a task is cannot be known."""
    done = preprocess(made / "meshes", tmp_path / "cache", "--shard_array", "slurm", *flags, **variables)
    assert said in one_line(done)
    assert not list(tmp_path.glob("cache/*/*/*.npz"))


def test_single_tasks_complete_a_run(made: Path, tmp_path: Path) -> None:
    for number in (0, 1, 2):
        again = ["--shard_array", "slurm", "--num_shards", "3"]
        variables = slurm(number, number, number, 1)
        assert preprocess(made / "meshes", tmp_path / "cache", *again, **variables).returncode == cli.EXIT_OK
    assert len(list(tmp_path.glob("cache/*/*/*.npz"))) == 4


@pytest.mark.parametrize("pattern", ["/data/*/*.obj", "../*/*.obj", "", "a**/*.obj"])
def test_a_mesh_glob_that_is_no_pattern_below_the_root(made: Path, tmp_path: Path, pattern: str) -> None:
    """E08"""
    done = preprocess(made / "meshes", tmp_path / "cache", "--mesh_glob", pattern)
    assert "mesh_glob" in one_line(done)
    assert repr(pattern) in done.stderr


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("nepa3d.data.preprocess_shapnet", "did you mean nepa3d.data.preprocess_shapenet?"),
        ("nepa3d.data.preprocess_shapenet.Config", "there is no module nepa3d.data.preprocess_shapenet.Config"),
        ("nepa3d.ops", "nepa3d.ops is no command"),
    ],
)
def test_a_module_that_is_no_command(module: str, said: str) -> None:
    """E09"""
    assert said in one_line(start("nepa3d.cli.from_environment", module))


@pytest.mark.parametrize("content", ['{"seed": 0, "pc_', "", "[]", "\udcff"])
def test_truncated_settings(made: Path, tmp_path: Path, content: str) -> None:
    """E10"""
    shutil.copytree(made / "cache", tmp_path / "cache")
    path = tmp_path / "cache" / "_meta" / "preprocess_settings_train.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    assert one_line(preprocess(made / "meshes", tmp_path / "cache")).startswith(f"error: {path}: ")


def test_other_truncated_files(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    shutil.copytree(made / "cache", out)
    half = json.dumps({"records": [1], "shard": 0})[:-9]
    status = out / "_meta" / "progress" / "preprocess_all_shard0000of0002.json"
    status.parent.mkdir()
    split, keys = out / "split.json", out / "_splits" / "train_keys.json"
    view = ["--src_cache_root", f"{out}", "--split_json", f"{split}", "--out_root", f"{out}/view", "--splits", "eval"]
    for path, command in (
        (split, ["nepa3d.data.preprocess_shapenet_unpaired", *view]),
        (status, ["nepa3d.data.progress", "--out_root", f"{out}"]),
        (keys, ["nepa3d.data.verify", f"{out}", "--workers", "1"]),
        (split, ["nepa3d.analysis.tables", "--results", f"{split}"]),
    ):
        path.write_text(half, encoding="utf-8")
        done = start(*command)
        assert done.returncode == cli.EXIT_USAGE
        assert f"error: {path}: not readable as JSON" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_metadata_of_macos_is_no_mesh(made: Path) -> None:
    """E11"""
    beside = made / "meshes" / "chair" / "m00" / "models" / "._model_normalized.obj"
    beside.write_bytes(b"\0\5\x16\7")
    found = shapenet.find_meshes(made / "meshes", "*/*/models/*.obj")
    beside.unlink()
    assert len(found) == 4
