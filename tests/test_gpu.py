"""What a GPU gives beside the CPU, from the same weights and draws; ``pytest -m gpu`` on a machine that has one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nepa3d import cli
from nepa3d.analysis import completion_cpac_udf as cpac
from nepa3d.analysis import surfaces
from nepa3d.cli import flags
from nepa3d.cli.flags import build
from nepa3d.models.embedding import ProbeRequest, open_probe, shapes_of
from nepa3d.ops.attention import DualMask, dual_mask, remaining_edges, unpack_edges
from nepa3d.probes.distance_head import Headed, fit_head
from nepa3d.probes.retrieval import RetrievalSettings, embed_views, retrieve
from nepa3d.probes.surfaces import MODEL, fields_of
from nepa3d.train import finetune_cls, pretrain
from nepa3d.train.corpus import Batch, EpochBatches, open_corpus
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.loop import train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: pytest -m gpu"),
]

QA = {"qa_tokens": 1, "dual_mask_near": 0.4, "dual_mask_far": 0.1, "dual_mask_window": 4, "dual_mask_warmup_frac": 0.0}
SIZES = {"n_point": 16, "n_ray": 8, "d_model": 32, "layers": 2, "heads": 2, "batch": 16, "mix_num_samples": 48}


def config(**more: Any) -> pretrain.Config:
    given = {"mix_config": "mix.yaml", "save_dir": "none", "auto_resume": 0}
    return flags.build(pretrain.Config, given | SIZES | more)


def batches(settings: pretrain.Config, process_group: ProcessGroup) -> list[Batch]:
    corpus = open_corpus(settings.corpus, settings.sample_settings(), settings.seed)
    return [*EpochBatches(corpus, 0, settings.loop.batch, process_group)]


def losses(settings: pretrain.Config, device: str) -> list[float]:
    """Of three steps."""
    process_group = ProcessGroup(0, 1, torch.device(device))
    run = pretrain.start(settings, process_group, 3, total_steps=3)
    found = []
    for batch in batches(settings, process_group):
        found.append(float(run.trainer.mean_error(train_step(run, batch))))
        run.step += 1
    return found


@pytest.mark.parametrize("amp", ["none", "fp16", "bf16"])
@pytest.mark.parametrize("more", [QA, QA | {"skip_missing_rays": 1, "accumulate": 2}, {"objective": "mae"}], ids=str)
def test_steps_lose_what_they_do_on_the_cpu(golden: Path, amp: str, more: dict[str, Any]) -> None:
    expected = losses(config(**more, amp="none"), "cpu")
    found = losses(config(**more, amp=amp), "cuda")
    if amp == "none":
        assert found == pytest.approx(expected, rel=1e-4)
    else:
        assert found[0] == pytest.approx(expected[0], rel=0.02)
        assert found[1:] == pytest.approx(expected[1:], rel=0.2)  # the scaler may leave out the first updates


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the compiler
def test_a_compiled_step_is_the_same(golden: Path) -> None:
    found = losses(config(**QA, amp="none", compile=1), "cuda")
    assert found == pytest.approx(losses(config(**QA, amp="none"), "cuda"), rel=1e-4)


def test_a_run_goes_on_where_it_stopped(golden: Path, tmp_path: Path) -> None:
    def run(folder: str, epochs: int) -> list[float]:
        words = [f"--{name}={value}" for name, value in (SIZES | QA | {"mix_config": "mix.yaml"}).items()]
        words += ["--save_dir", f"{tmp_path / folder}", "--epochs", f"{epochs}", "--num_workers", "2"]
        assert pretrain.main(words) == cli.EXIT_OK
        return [json.loads(line)["loss"] for line in (tmp_path / folder / "loss.jsonl").read_text().splitlines()]

    whole = run("whole", 3)
    run("parts", 1)
    assert run("parts", 3) == pytest.approx(whole, rel=1e-3)


def test_too_large_a_batch_says_what_to_try(golden: Path) -> None:
    settings = config(**QA, amp="none")
    process_group = ProcessGroup(0, 1, torch.device("cuda"))
    run = pretrain.start(settings, process_group, 3, total_steps=3)
    (batch, *_) = batches(settings, process_group)
    many = Batch(batch.features.repeat(4000, 1, 1), batch.types.repeat(4000, 1), batch.parts.repeat(4000), 0, 64000)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.005)
    try:
        with pytest.raises(MemoryError, match=r"a batch of 64000 samples does not fit onto cuda.*--accumulate 2"):
            run.trainer.step(many, 0, DualMask(0.4, 0.1, 4, 1))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.isfinite(float(run.trainer.mean_error(run.trainer.step(batch, 0, DualMask(0.4, 0.1, 4, 1)))))


@pytest.mark.parametrize("length", [1, 130, 1026])
def test_the_mask_has_the_cpus_bits(length: int) -> None:
    mask = DualMask(0.4, 0.1, 32, 2**40 + 7)
    words = remaining_edges(length, mask, device="cuda")
    assert words is not None
    assert torch.equal(unpack_edges(words.cpu()), dual_mask(length, mask))
    assert torch.equal(dual_mask(length, mask, device="cuda").cpu(), dual_mask(length, mask))


@pytest.mark.parametrize("ckpt", ["nepa_v1.pt", "nepa_qa.pt", "mae_v1.pt"])
def test_retrieval_embeds_what_the_cpu_does(golden: Path, ckpt: str) -> None:
    settings, paths = RetrievalSettings(gallery_seed=9), shapes_of("unpaired", "eval")
    gpu, cpu = (open_probe(ProbeRequest(ckpt, device=device)) for device in ("cuda", "cpu"))
    ours, theirs = (embed_views(probe, paths, settings, {}) for probe in (gpu, cpu))
    np.testing.assert_allclose(ours.queries, theirs.queries, rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.gallery, theirs.gallery, rtol=0, atol=1e-4)
    half = embed_views(replace(gpu, precision="bf16"), paths, settings, {})
    assert (half.queries * theirs.queries).sum(1).min() > 0.99
    plain = [retrieve(probe, paths, settings).controls["raw_distances"] for probe in (gpu, cpu)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("ckpt", ["nepa_v1.pt", "nepa_qa.pt"])
def test_completion_errs_as_on_the_cpu(golden: Path, ckpt: str) -> None:
    given = {"cache_root": "unpaired", "ckpt": ckpt, "n_context": 16, "n_query": 16, "batch": 3}
    ours, theirs, half = (
        cpac.complete(build(cpac.Config, given | more)).to_json()
        for more in ({"device": "cuda"}, {"device": "cpu"}, {"device": "cuda", "precision": "bf16"})
    )
    assert ours["mae"] == pytest.approx(theirs["mae"], rel=1e-3)
    assert ours["nearest_copy"] == theirs["nearest_copy"]
    assert (half["mae"], half["precision"]) == (pytest.approx(theirs["mae"], rel=0.3), "bf16")


def test_surfaces_are_of_the_cpus_fields(golden: Path, tmp_path: Path) -> None:
    fields = []
    for device in ("cuda", "cpu"):
        given = {"cache_root": "unpaired", "ckpt": "nepa_qa.pt", "out_root": tmp_path / device, "device": device}
        sizes = {"n_context": 16, "n_query": 24}
        config = build(surfaces.Config, given | sizes | {"max_shapes": 1, "resolution": 12})
        assert surfaces.complete_surfaces(config).items["path"]
        settings = build(surfaces.Config, given | sizes).settings()
        probe = config.model.load()
        plan = config.plan(probe)
        weights, _ = fit_head(probe, plan, settings.ridge_lambda, settings.seed, settings.reading, {})
        completed = fields_of(plan.test[0], {MODEL: Headed(probe, weights)}, plan.test_settings, settings)
        fields.append(completed.fields)
    assert np.abs(fields[0].pop(MODEL) - fields[1].pop(MODEL)).mean() < 0.01
    assert fields[0].keys() == fields[1].keys() != set()
    assert all(np.array_equal(field, fields[1][way]) for way, field in fields[0].items())


def test_fine_tuning_ends(golden: Path, tmp_path: Path) -> None:
    def run(epochs: int) -> dict[str, Any]:
        flags = ["--cache_root", "cache", "--ckpt", "nepa_v1.pt", "--save_dir", f"{tmp_path / str(epochs)}"]
        flags += ["--batch", "8", "--val_ratio", "0.25", "--epochs", f"{epochs}", "--num_workers", "2"]
        assert finetune_cls.main(flags) == cli.EXIT_OK
        result: dict[str, Any] = json.loads((tmp_path / str(epochs) / "result.json").read_text())
        return result

    first, second = run(1), run(2)
    assert first["n_test"] == second["n_test"] == 12
    assert 0 <= second["test_acc"] <= 1
