"""nepa3d's kernels beside other libraries: same inputs, answers compared first, then timed in turns. See README.md."""
