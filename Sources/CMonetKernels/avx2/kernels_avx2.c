// x86-64 with AVX2 and FMA (Haswell, Zen and later).
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define ISA_NAME "avx2"
#define VECTOR_FLOATS 8
#define ISA_AVX2
#define ISA_TABLE monet_kernels_avx2
#include "../kernels.inc"
#pragma clang attribute pop
#else
typedef int monet_kernels_avx2_absent;
#endif
