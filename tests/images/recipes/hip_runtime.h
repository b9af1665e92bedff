/* SPDX-License-Identifier: GPL-2.0-only
 * A stand-in for AMD's header, made by the tests of EasySIF: what the test of a recipe uses, on the CPU. */
#include <stdlib.h>
#define __global__ static
#define hipHostMalloc(pointer, size) (*(pointer) = malloc(size))
#define hipLaunchKernelGGL(kernel, grid, block, memory, stream, ...) kernel(__VA_ARGS__)
#define hipDeviceSynchronize() ((void)0)
