#ifndef EMULATED_KERNELS_H
#define EMULATED_KERNELS_H
#include "monet_kernels.h"

/// A table of kernels with registers of sixteen floats, emulated.
const monet_kernels *_Nonnull emulated_kernels(void);
#endif
