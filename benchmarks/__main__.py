"""``python -m benchmarks`` compares kernels with peers; with a name after it, what that module says of itself."""

from __future__ import annotations

import sys

from benchmarks import (
    attention,
    attention_cpu,
    evaluation,
    gpu_check,
    gpu_geometry,
    layouts,
    recipe,
    run,
    scale,
    scaling,
    search,
    shapes,
    summary,
    training,
)

COMMANDS = {
    "attention": attention.main,
    "attention_cpu": attention_cpu.main,
    "evaluation": evaluation.main,
    "gpu_check": gpu_check.main,
    "gpu_geometry": gpu_geometry.main,
    "layouts": layouts.main,
    "recipe": recipe.main,
    "scale": scale.main,
    "scaling": scaling.main,
    "search": search.main,
    "shapes": shapes.main,
    "summary": summary.main,
    "training": training.main,
}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:] or [""]
    raise SystemExit(COMMANDS[name](arguments) if name in COMMANDS else run.main(sys.argv[1:]))
