"""Jobs on a Ray cluster: each takes a GPU or a processor wherever there is one, and runs as it would here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nepa3d.execution.progress_bar import progress_bar
from nepa3d.execution.ray_tasks import ray, ray_cluster
from nepa3d.experiments.jobs import Finished, Job, Processes, require_same_settings, run_job

PATIENCE = 10.0  # seconds in which jobs that are told to end may do so


def _run(job: Job, folder: str) -> Finished:
    """Run a job on a worker, in the folder of the one who asked; Ray has chosen the GPU, if it takes one."""
    os.chdir(folder)
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "") or "cpu"
    return run_job(job, device, Processes())


def run_jobs_on_ray(jobs: Sequence[Job], address: str, slots: Sequence[str]) -> list[Finished]:
    """Run the jobs, begun in order, each once; one whose node is lost has failed. ``slots`` tells whether GPUs are
    used and, without an address, how many there are. ``ValueError`` as ``require_same_settings`` says."""
    require_same_settings(jobs)
    gpus = sum(slot != "cpu" for slot in slots)
    remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=0)(_run)
    folder = f"{Path.cwd()}"
    finished: list[Finished] = []
    with ray_cluster(address, len(slots), gpus) as next_done, progress_bar(total=len(jobs), unit="job") as progress:
        running: dict[Any, Job] = {remote.remote(job, folder): job for job in jobs}
        try:
            while running:
                done = next_done(running)
                job = running.pop(done)
                try:
                    finished.append(ray.get(done))
                except ray.exceptions.WorkerCrashedError:
                    finished.append(Finished(job, "failed", status=-1))
                progress.update()
                progress.write(finished[-1].line)
        finally:  # whoever ends us ends them
            for task in running:
                ray.cancel(task)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)
    return finished
