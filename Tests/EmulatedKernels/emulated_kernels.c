// The kernels with the register width of AVX-512 in whatever instructions the platform has: the same
// loops, tiles and remainders as that instruction set's, on machines without it.
#pragma clang diagnostic ignored "-Wpsabi"
#define ISA_NAME "emulated-512"
#define VECTOR_FLOATS 16
// So that backends take the paths of processors with bfloat16 instructions.
#define BFLOAT16_PAYS 1
#define ISA_TABLE emulated_kernels_512
#include "../../Sources/CMonetKernels/kernels.inc"

const monet_kernels *emulated_kernels(void) { return &emulated_kernels_512; }
