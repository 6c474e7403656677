// x86-64 with AVX-512 F, BW, DQ and VL, with VNNI (Cascade Lake, Ice Lake and later).
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma"))), \
                             apply_to = function)
#define ISA_NAME "avx512vnni"
#define VECTOR_FLOATS 16
#define ISA_AVX512
#define ISA_VNNI
#define ISA_TABLE monet_kernels_avx512vnni
#include "../kernels.inc"
#pragma clang attribute pop
#else
typedef int monet_kernels_avx512vnni_absent;
#endif
