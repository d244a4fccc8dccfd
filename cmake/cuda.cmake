# nepa3d._cuda, where there is a CUDA compiler, and nepa3d._cuda_host, which runs the same thread functions on the CPU.
#
# The compiler is CUDACXX, or the nvcc on the path, of a toolkit or of the wheels that `make cuda` installs.

set(NEPA3D_CUDA AUTO CACHE STRING "Build nepa3d._cuda: ON (an error without a CUDA compiler), AUTO (if there is one) or OFF")
set_property(CACHE NEPA3D_CUDA PROPERTY STRINGS AUTO ON OFF)

# Rounds like the core (nepa3d_compile_options), without what it may assume about zeros and traps: what nvcc would do.
pybind11_add_module(_cuda_host csrc/cuda/bindings.cpp csrc/cuda/host.cpp)
target_compile_options(_cuda_host PRIVATE -Wall -Wextra -Wconversion -Wno-sign-conversion -ffp-contract=off
  $<$<BOOL:${NEPA3D_WERROR}>:-Werror>
  "$<$<BOOL:${NEPA3D_SANITIZE}>:-fsanitize=address,undefined;-fno-sanitize-recover=undefined;-O1;-g1>")
target_link_options(_cuda_host PRIVATE $<$<BOOL:${NEPA3D_SANITIZE}>:-fsanitize=address,undefined>)
target_include_directories(_cuda_host PRIVATE csrc)
target_compile_definitions(_cuda_host PRIVATE NEPA3D_ISA=one_lane NEPA3D_CUDA_MODULE=_cuda_host)
install(TARGETS _cuda_host LIBRARY DESTINATION nepa3d)

macro(build_without reason) # returns from this file
  if(NEPA3D_CUDA STREQUAL "ON")
    message(FATAL_ERROR "NEPA3D_CUDA is ON, but ${reason}. `make cuda` installs a compiler.")
  endif()
  message(STATUS "nepa3d._cuda: not built, ${reason}")
  return()
endmacro()

if(NEPA3D_CUDA STREQUAL "OFF")
  message(STATUS "nepa3d._cuda: not built, NEPA3D_CUDA is OFF")
  return()
endif()
if(NOT NEPA3D_CUDA MATCHES "^(AUTO|ON)$")
  message(FATAL_ERROR "NEPA3D_CUDA must be AUTO, ON or OFF, got ${NEPA3D_CUDA}")
endif()

set(nvcc $ENV{CUDACXX})
if(CMAKE_VERSION VERSION_LESS 3.22)
  set(nvcc)
  set(reason "that takes CMake 3.22 or newer, this is ${CMAKE_VERSION}")
elseif(NOT nvcc)
  find_program(NEPA3D_NVCC nvcc
    PATHS /usr/local/cuda/bin ${CMAKE_SOURCE_DIR}/build/cuda_wheels/nvidia/cu13/bin)
  mark_as_advanced(NEPA3D_NVCC)
  set(nvcc ${NEPA3D_NVCC})
endif()
if(nvcc)
  # The wheels keep their libraries in lib, where nvcc does not look.
  get_filename_component(toolkit "${nvcc}" REALPATH)
  get_filename_component(toolkit "${toolkit}/../.." REALPATH)
  set(ENV{LIBRARY_PATH} "${toolkit}/lib:$ENV{LIBRARY_PATH}")
  set(ENV{CUDACXX} "${nvcc}")
  include(CheckLanguage)
  check_language(CUDA)
endif()
if(NOT CMAKE_CUDA_COMPILER)
  if(reason)
    # said above
  elseif(nvcc)
    set(reason "${nvcc} cannot compile with this C++ compiler")
  else()
    set(reason "there is no nvcc on the path, and CUDACXX is not set")
  endif()
  build_without("${reason}")
endif()

set(chosen_architectures ${CMAKE_CUDA_ARCHITECTURES}) # enabling the language sets a default
if(NOT chosen_architectures)
  set(chosen_architectures $ENV{CUDAARCHS}) # CMake's own variable for the same
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
  build_without("that takes CUDA 12 or newer, ${CMAKE_CUDA_COMPILER} is ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
foreach(kind STANDARD EXTENSION) # CMake before 3.26 does not know that nvcc has C++20
  if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION -std=c++20)
  endif()
endforeach()
if(NOT chosen_architectures)
  set(chosen_architectures 80-real 86-real 89-real 90)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(chosen_architectures 80-real 86-real 89-real 90-real 100) # the last one also as PTX, for newer GPUs
  endif()
endif()
message(STATUS "nepa3d._cuda: built with ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} for ${chosen_architectures}")

pybind11_add_module(_cuda NO_EXTRAS # nvcc does not know the flags of link-time optimization
  csrc/cuda/bindings.cpp
  csrc/cuda/bvh_build.cu
  csrc/cuda/closest_points.cu
  csrc/cuda/distance_transform.cu
  csrc/cuda/first_hits.cu
  csrc/cuda/nearest.cu
  csrc/cuda/nearest_tree.cu
  csrc/cuda/ordering.cu
  csrc/cuda/row_sort.cu
  csrc/cuda/runtime.cu
  csrc/cuda/surface.cu
  csrc/cuda/voxel.cu)
set_target_properties(_cuda PROPERTIES
  CUDA_ARCHITECTURES "${chosen_architectures}" CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
  CUDA_VISIBILITY_PRESET hidden)
target_compile_options(_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Wno-sign-conversion -ffp-contract=off>
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -fmad=false -prec-div=true -prec-sqrt=true -ftz=false -Xptxas=-v>) # the core's bits
target_include_directories(_cuda PRIVATE csrc)
target_link_directories(_cuda PRIVATE ${toolkit}/lib)
target_compile_definitions(_cuda PRIVATE NEPA3D_ISA=one_lane NEPA3D_CUDA_MODULE=_cuda)
install(TARGETS _cuda LIBRARY DESTINATION nepa3d)
