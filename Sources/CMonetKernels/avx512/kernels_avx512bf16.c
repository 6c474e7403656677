// x86-64 with AVX-512 F, BW, DQ and VL, with VNNI and BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later).
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma"))), \
                             apply_to = function)
#define ISA_NAME "avx512bf16"
#define VECTOR_FLOATS 16
#define ISA_AVX512
#define ISA_VNNI
#define ISA_BF16
#define ISA_TABLE monet_kernels_avx512bf16
#include "../kernels.inc"
#pragma clang attribute pop
#else
typedef int monet_kernels_avx512bf16_absent;
#endif
