#!/usr/bin/env bash
# ShapeNet's meshes to caches.
# Variables named as its flags in upper case change them, here and under `qsub -v NAME=value`; flags may follow too.
set -euo pipefail
set -a
: "${SHAPENET_ROOT:=data/ShapeNetCore.v2}" "${OUT_ROOT:=data/shapenet_cache_v0}" "${SPLIT:=all}"
set +a
for root in "$(cd "$(dirname "$0")/../.." && pwd)" "${PBS_O_WORKDIR:-}" "${SLURM_SUBMIT_DIR:-}"; do
  [ ! -f "$root/scripts/run.sh" ] || break
done
. "$root/scripts/run.sh" nepa3d.data.preprocess_shapenet "$@"
