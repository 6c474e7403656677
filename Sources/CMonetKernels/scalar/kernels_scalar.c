// Portable build of the kernels: whatever the platform guarantees, nothing more.
#define ISA_NAME "scalar"
#define VECTOR_FLOATS 4
#define ISA_TABLE monet_kernels_scalar
#include "../kernels.inc"
