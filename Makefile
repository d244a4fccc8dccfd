# make demo   the whole pipeline on real meshes, ending in a table and a picture (QUICK=1: a small run)
# make test   the tests
# make bench  kernels, preprocessing, training and probes beside other libraries, answers compared first: tables, JSON, pictures,
#              and README's table of them (QUICK=1: the kernels on small meshes; CORPUS=DIR: meshes that are there already)
# make cuda   the geometry on a GPU: builds nepa3d._cuda, with a compiler from NVIDIA's wheels where there is no nvcc
# make gpu-check  on a machine with a GPU: its tests and benchmarks, part by part within 12 minutes; goes on where it ended
# make wheels  the wheels and the sdist: dist/, checked where there is no compiler, for each CPython on the path
# make docs   the documentation as a site: build/site/index.html
# Every target creates the environment first, logs each step and can be run again. The other targets are for developers.

PYTHON ?= python3
VENV ?= .venv
QUICK ?=
CORPUS ?=
DEMO_ROOT ?= demo$(if $(QUICK),/quick,/full)

BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt constraints.txt $(shell find cmake csrc python -type f -not -name '*.so' -not -path '*/.*' -not -path '*/__pycache__/*')
SANITIZED := build/sanitized
CUDA_WHEELS := build/cuda_wheels

FUZZ_RUNS ?= 1000000

# What an extra of the package asks for, without building the package again.
define install_extra
	@$(BIN)/python -c 'from importlib.metadata import requires; \
		print(*(line.partition(";")[0] for line in requires("nepa3d") if line.endswith("extra == \"$(1)\"")), sep="\n")' > $(VENV)/$(1).txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement $(VENV)/$(1).txt
endef

.PHONY: help env demo test bench cuda gpu-check wheels docs lint stubs sanitize fuzz clean

help:
	@sed -n 's/^# make/make/p; s/^#      /     /p' Makefile

env: $(VENV)/.installed

$(VENV)/.installed: $(SOURCES)
	@echo "== environment: $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -c 'import sysconfig, pathlib, sys; sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' \
		|| { echo "Python's headers are missing. On Debian and Ubuntu: apt install python3-dev"; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
		|| { echo "A C++20 compiler is needed. On Debian and Ubuntu: apt install g++"; exit 1; }
	@echo "== install nepa3d (builds the compiled core) with the versions of constraints.txt"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ".[demo,dev]"
	@touch $@

demo: env
	@$(BIN)/python -m nepa3d.experiments.demo --root $(DEMO_ROOT) $(if $(QUICK),--quick)

test: env
	@echo "== tests"
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadgroup

$(VENV)/.bench: $(VENV)/.installed
	@echo "== install the peers of the benchmarks"
	$(call install_extra,bench)
	@$(BIN)/python -c 'import open3d' 2>/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install --yes --quiet=2 libusb-1.0-0 libgl1 libgomp1 >/dev/null \
			&& $(BIN)/python -c 'import open3d'; } \
		|| { echo "Open3D needs libraries of the system. On Debian and Ubuntu: apt install libusb-1.0-0 libgl1 libgomp1"; exit 1; }
	@touch $@

bench: $(VENV)/.bench
	@echo "== benchmarks"
	@$(BIN)/python -m benchmarks $(if $(CORPUS),--corpus $(CORPUS)) $(if $(QUICK),--quick)
ifndef QUICK
	@$(BIN)/python -m benchmarks shapes $(if $(CORPUS),--corpus $(CORPUS))
	@$(BIN)/python -m benchmarks training
	@$(BIN)/python -m benchmarks evaluation
	@$(BIN)/python -m benchmarks summary --readme README.md
endif

# CMake looks for these wheels, too (cmake/cuda.cmake): once they are there, every build has the module.
$(VENV)/.cuda: $(VENV)/.installed
	@echo "== build the CUDA module"
	@command -v nvcc >/dev/null || test -x $(CUDA_WHEELS)/nvidia/cu13/bin/nvcc \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(CUDA_WHEELS) "nvidia-cuda-nvcc==13.*" \
			"nvidia-nvvm==13.*" "nvidia-cuda-crt==13.*" "nvidia-cuda-runtime==13.*" "nvidia-cuda-cccl==13.*"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --force-reinstall \
		-Ccmake.define.NEPA3D_CUDA=ON .
	@touch $@

cuda: $(VENV)/.cuda
	@echo "== CUDA module"
	@$(BIN)/python -m nepa3d doctor

gpu-check: cuda
	@echo "== what a GPU has to show"
	@$(BIN)/python -m benchmarks gpu_check

$(VENV)/.wheels: $(VENV)/.installed
	@echo "== install the tools that build wheels"
	$(call install_extra,wheels)
	@touch $@

# Without PyTorch, whose wheel for GPUs takes gigabytes where the index has no other; .github/workflows/wheels.yml has one.
wheels: $(VENV)/.wheels
	@echo "== wheels: dist"
	@$(BIN)/python tests/packaging/build_wheels.py dist
	@$(BIN)/python tests/packaging/check_wheel.py content dist/*.whl
	@$(BIN)/python tests/packaging/check_wheel.py install --without-torch --constraint constraints.txt dist/*.whl

$(VENV)/.docs: $(VENV)/.installed
	@echo "== install the documentation's tools"
	$(call install_extra,docs)
	@touch $@

docs: $(VENV)/.docs
	@echo "== documentation: build/site"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: env
	@echo "== lint"
	@$(BIN)/ruff format --check python tests benchmarks examples
	@$(BIN)/ruff check python tests benchmarks examples
	@$(BIN)/mypy
	@find csrc tests/fuzz -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(MAKE) --no-print-directory stubs-current
	@! nm -C build/*/CMakeFiles/nepa3d_avx*.dir/csrc/simd/*.o 2>/dev/null | grep -E ' [VWu] ' | grep -v ' nepa3d::avx\| void nepa3d::avx' \
		|| { echo "these would be shared with code for plain processors, see csrc/simd/lanes.hpp"; exit 1; }

# The core's tests with the address and undefined behaviour sanitizers, in a build of its own.
sanitize: env
	@echo "== sanitizers"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps \
		--target $(SANITIZED)/site --upgrade -Cbuild-dir=$(SANITIZED)/build -Ccmake.build-type=RelWithDebInfo \
		-Ccmake.define.NEPA3D_SANITIZE=ON -Ccmake.define.NEPA3D_WERROR=ON -Ccmake.define.NEPA3D_CUDA=OFF .
	@LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		PYTHONPATH=$(SANITIZED)/site $(BIN)/python -m pytest tests/ops/test_geometry.py tests/ops/test_instruction_sets.py tests/ops/test_mesh_readers.py tests/ops/test_binary_readers.py tests/ops/test_polygons.py tests/samples/test_loader.py tests/samples/test_completion_loader.py tests/cuda/test_host.py

# The native readers under libFuzzer with both sanitizers; needs clang. For GLB and VRML see tests/fuzz/fuzz_readers.py.
fuzz: env
	@echo "== fuzzing: $(FUZZ_RUNS) inputs a format"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt cmake
	@$(BIN)/cmake -S tests/fuzz -B build/fuzz -DCMAKE_CXX_COMPILER=$$(command -v clang++ || command -v clang++-14) >/dev/null
	@$(BIN)/cmake --build build/fuzz -j2 >/dev/null
	@for format in obj off ply stl npz; do mkdir -p build/fuzz/corpus_$$format; \
		build/fuzz/fuzz_$$format -runs=$(FUZZ_RUNS) -max_len=6000 -timeout=5 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/ build/fuzz/corpus_$$format tests/fuzz/corpus/$$format 2>&1 | grep -v '# Uses' || exit 1; done

stubs: env
	@$(BIN)/pybind11-stubgen nepa3d._core --output-dir build/stubs >/dev/null
	@cp build/stubs/nepa3d/_core.pyi python/nepa3d/_core.pyi

stubs-current: env
	@$(BIN)/pybind11-stubgen nepa3d._core --output-dir build/stubs >/dev/null
	@diff -u python/nepa3d/_core.pyi build/stubs/nepa3d/_core.pyi \
		|| { echo "python/nepa3d/_core.pyi is stale: make stubs"; exit 1; }

clean:
	rm -rf build $(VENV)
