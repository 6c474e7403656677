// 64-bit Arm, where NEON is part of the base instruction set.
#if defined(__aarch64__)
#define ISA_NAME "neon"
#define VECTOR_FLOATS 4
#define ISA_TABLE monet_kernels_neon
#include "../kernels.inc"
#else
typedef int monet_kernels_neon_absent;
#endif
