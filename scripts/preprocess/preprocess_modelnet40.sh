#!/usr/bin/env bash
# ModelNet40's meshes to caches.
# Variables named as its flags in upper case change them, here and under `qsub -v NAME=value`; flags may follow too.
set -euo pipefail
set -a
: "${MODELNET_ROOT:=data/ModelNet40}" "${OUT_ROOT:=data/modelnet40_cache}" "${SPLIT:=train}"
set +a
for root in "$(cd "$(dirname "$0")/../.." && pwd)" "${PBS_O_WORKDIR:-}" "${SLURM_SUBMIT_DIR:-}"; do
  [ ! -f "$root/scripts/run.sh" ] || break
done
. "$root/scripts/run.sh" nepa3d.data.preprocess_modelnet40 "$@"
