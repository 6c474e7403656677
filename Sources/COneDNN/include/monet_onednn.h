// Dense matrix products through oneDNN 2.x or 3.x, whose C APIs differ. Row-major. Every function
// runs on the calling thread alone: the callers split the work themselves.
#ifndef MONET_ONEDNN_H
#define MONET_ONEDNN_H

#include <stdbool.h>
#include <stdint.h>

/// Keeps oneDNN's own runtime from starting threads when called from this thread.
void monet_onednn_use_calling_thread(void);

/// C[m,n] = (accumulate ? C : 0) + op(A)[m,k] * op(B)[k,n], float32. Returns 0 or oneDNN's status.
int monet_onednn_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                       int64_t lda, const float *b, int64_t ldb, bool accumulate, float *c, int64_t ldc);

/// The same through oneDNN's matmul primitive; A and B are bfloat16 if `bf16`, else float32.
/// Primitives are kept per thread, keyed by shape. Returns 0 or oneDNN's status.
int monet_onednn_matmul(bool bf16, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                        const void *a, int64_t lda, const void *b, int64_t ldb, bool accumulate, float *c,
                        int64_t ldc);

/// Whether this processor multiplies bfloat16 matrices natively and oneDNN makes use of it.
bool monet_onednn_has_native_bf16(void);

#endif
