// Portable build of the kernels, with only the instructions that the platform guarantees.
#define ISA_NAME "scalar"
#define VECTOR_FLOATS 4
#define ISA_TABLE monet_kernels_scalar
#include "../kernels.inc"
