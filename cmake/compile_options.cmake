# Options every target of ours is compiled with.
add_library(nepa3d_compile_options INTERFACE)
target_compile_options(nepa3d_compile_options INTERFACE
  -Wall -Wextra -Wconversion -Wno-sign-conversion
  -ffp-contract=off # the same bits on every processor
  -fno-math-errno -fno-trapping-math -fno-signed-zeros) # lets loops over lanes become vector code
if(NEPA3D_WERROR)
  target_compile_options(nepa3d_compile_options INTERFACE -Werror)
endif()
if(NEPA3D_SANITIZE)
  target_compile_options(nepa3d_compile_options INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
    -O1 -g1) # more takes twice as long to compile
  target_link_options(nepa3d_compile_options INTERFACE -fsanitize=address,undefined)
endif()
