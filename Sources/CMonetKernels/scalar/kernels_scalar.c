// Portable build of the kernels: whatever the platform guarantees, nothing more.
#define ISA_NAME "scalar"
#define ISA_TABLE monet_kernels_scalar
#include "../kernels.inc"
