"""The rows, a file a topic; importing this package registers them in the order of the table. No peer is imported."""

from benchmarks.cases import nearest, rays, closest, surface, grids, ordering, mesh_files, batches  # noqa: F401, I001
