// x86-64 with AVX-512 F, BW, DQ and VL (Skylake server, Ice Lake, Zen 4 and later).
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#define ISA_NAME "avx512"
#define VECTOR_FLOATS 16
#define ISA_AVX512
#define ISA_TABLE monet_kernels_avx512
#include "../kernels.inc"
#pragma clang attribute pop
#else
typedef int monet_kernels_avx512_absent;
#endif
