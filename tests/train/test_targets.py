"""Fixed embeddings of answers as targets: of the answer alone, and the same in every run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nepa3d.cli import flags
from nepa3d.samples.schema import POINT_DISTANCE, RAY_HIT, RAY_ORIGIN, RAY_T, XYZ, TokenType
from nepa3d.train.corpus import EpochBatches, open_corpus
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.objectives.targets import answer_targets
from nepa3d.train.pretrain import Config, start

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


def test_targets_are_of_the_answer_alone() -> None:
    features = torch.zeros(1, 4, 15)
    features[0, :, POINT_DISTANCE] = torch.tensor([0.1, 0.1, 0.1, 0.4])
    features[0, 1, XYZ] = 0.7  # a point's place is its question's
    features[0, 2, RAY_ORIGIN] = 0.7
    found = answer_targets(features, torch.full((1, 4), TokenType.A_POINT), 32)[0]
    assert found.shape == (4, 32)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert torch.cosine_similarity(found[0], found[3], dim=0) < 0.9
    assert torch.equal(answer_targets(features, torch.full((1, 4), TokenType.A_POINT), 32)[0], found)


def test_a_hit_tells_its_place_and_a_miss_nothing() -> None:
    features = torch.zeros(1, 3, 15)
    features[0, :2, RAY_HIT] = 1
    features[0, :, RAY_T] = 1.5
    features[0, 1, XYZ] = 0.3
    features[0, 2, XYZ] = 0.3  # of a miss there is none, but were there one
    found = answer_targets(features, torch.full((1, 3), TokenType.A_RAY), 32)[0]
    assert not torch.equal(found[0], found[1])
    features[0, 2, [0, 1, 2, 9]] = 0
    assert torch.equal(answer_targets(features, torch.full((1, 3), TokenType.A_RAY), 32)[0, 2], found[2])


@pytest.mark.parametrize("objective", ["nepa", "mae"])
def test_no_weight_moves_the_targets(golden: Path, objective: str) -> None:
    """At the start they cannot be guessed from position and type, as embeddings can."""
    given = {"mix_config": "mix.yaml", "mix_num_samples": 16, "n_point": 8, "n_ray": 4, "qa_tokens": 1, "batch": 8}
    given |= {"d_model": 16, "layers": 1, "heads": 2, "save_dir": "none", "auto_resume": 0}
    settings = flags.build(Config, given | {"objective": objective, "target": "answer"})
    corpus = open_corpus(settings.corpus, settings.sample_settings(), 0)
    batch = EpochBatches(corpus, 0, 8, ALONE).read(0)
    run = start(settings, ALONE, 3, total_steps=10)
    loss = run.trainer.mean_error(run.trainer.step(batch, 0, None))
    assert torch.isfinite(loss) and loss > 0.1  # it cannot be guessed from position and type at the start


@pytest.mark.parametrize("skip", [0, 1])
def test_a_model_with_kernels_trains_for_embeddings_too(golden: Path, skip: int) -> None:
    """Samples with and without rays go through it apart, and the loss is that of each alone."""
    given = {"mix_config": "mix.yaml", "mix_num_samples": 16, "n_point": 8, "n_ray": 4, "qa_tokens": 1, "batch": 16}
    given |= {"d_model": 16, "layers": 2, "heads": 2, "save_dir": "none", "auto_resume": 0, "skip_missing_rays": skip}
    parts = {"token_features": "fourier", "bound_answers": 1, "answer_keys": 1, "kernel_attention": 1}
    settings = flags.build(Config, given | parts)
    corpus = open_corpus(settings.corpus, settings.sample_settings(), 0)
    batch = EpochBatches(corpus, 0, 16, ALONE).read(0)
    missing = (batch.types == TokenType.MISSING_RAY).any(1)
    assert missing.any() and not missing.all()
    run = start(settings, ALONE, 3, total_steps=10)
    pieces = run.trainer.objective.micro_batches(run.trainer, batch, 0)
    assert len(pieces) == 2
    assert all((piece.types == piece.types[:1]).all() for piece in pieces)
    tally = run.trainer.step(batch, 0, None)
    assert tally[1, -1] == sum(int(piece.counted.sum()) for piece in pieces)
    assert torch.isfinite(run.trainer.mean_error(tally))
