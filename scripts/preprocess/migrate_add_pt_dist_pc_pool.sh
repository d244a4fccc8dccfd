#!/usr/bin/env bash
# Give older caches the point cloud's own distances.
# Variables named as its flags in upper case change them, here and under `qsub -v NAME=value`; flags may follow too.
set -euo pipefail
set -a
: "${CACHE_ROOT:=data/shapenet_cache_v0}" "${SPLITS:=train,test}" "${WORKERS:=16}"
set +a
for root in "$(cd "$(dirname "$0")/../.." && pwd)" "${PBS_O_WORKDIR:-}" "${SLURM_SUBMIT_DIR:-}"; do
  [ ! -f "$root/scripts/run.sh" ] || break
done
. "$root/scripts/run.sh" nepa3d.data.migrate_add_pt_dist_pc_pool "$@"
