// The contract of the SIMD kernels: pure loops over pointers, one table of functions per
// instruction set. Row-major everywhere; `n` counts elements. Pointers may be unaligned and must
// not overlap unless a comment allows it.
#ifndef MONET_KERNELS_H
#define MONET_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma clang assume_nonnull begin

/// The non-zero routing probabilities of one token, one list per head.
/// `index` and `value` are [heads][capacity]; `count` is [heads].
typedef struct monet_selection {
    const int32_t *count;
    const int32_t *index;
    const float *value;
    size_t capacity;
} monet_selection;

/// The selected experts of one head of one token: rows of compact tensors, experts, probabilities.
typedef struct monet_entries {
    const int32_t *entry;
    const int32_t *expert;
    const float *value;
    size_t count;
} monet_entries;

typedef struct monet_adamw {
    float learning_rate;
    float beta1;
    float beta2;
    float epsilon;
    float weight_decay;
    /// 1 - beta^step for both moments.
    float correction1;
    float correction2;
    /// Factor applied to the gradient first (clipping).
    float gradient_scale;
} monet_adamw;

/// How a row of weights is stored. INT8: a float32 scale, then one signed byte per column. INT4: two
/// float32 units, a byte of scale and a signed byte of minimum for every group of 32 columns, then
/// 64 bytes for every 128 columns, to which rows are padded; int4.inc describes the order of the nibbles.
enum monet_row_format { MONET_F32, MONET_BF16, MONET_F16, MONET_INT8, MONET_INT4, MONET_ROW_FORMATS };

/// Products with rows of weights in one format. `w_stride` is in bytes.
typedef struct monet_row_kernels {
    /// The size in bytes of a row of n activations in the format that `dot` reads, and the conversion to it from
    /// float32; both are NULL where `dot` reads float32.
    size_t (*_Nullable activation_bytes)(size_t n);
    void (*_Nullable prepare)(void *out, const float *x, size_t n);
    /// y[r * y_stride + u] = sum over c < n of x[r, c] * w[u, c], where row r of the activations lies at
    /// x + rows[r] * x_stride bytes; rows may be NULL for 0..<count. `next`, if not NULL, points to the rows of weights
    /// that will be read after these; they are only prefetched.
    void (*_Nonnull dot)(float *y, size_t y_stride, const void *x, size_t x_stride, const int32_t *_Nullable rows,
                         size_t count, const void *w, size_t w_stride, size_t units, size_t n,
                         const void *_Nullable next);
    /// out[rows[r] * out_stride + c] += sum over u of coefficients[r * coefficient_stride + u] * w[u, c] for c in
    /// first..<first + n of rows of `columns`; first is a multiple of 64, rows may be NULL for 0..<count; `next` as
    /// for `dot`.
    void (*_Nonnull accumulate)(float *out, size_t out_stride, const int32_t *_Nullable rows, size_t count,
                                const float *coefficients, size_t coefficient_stride, const void *w, size_t w_stride,
                                size_t units, size_t first, size_t n, size_t columns, const void *_Nullable next);
    /// out[c] = w[first + c] for c < n, of a row of `columns`.
    void (*_Nonnull widen)(float *out, const void *w, size_t first, size_t n, size_t columns);
} monet_row_kernels;

typedef struct monet_kernels {
    const char *_Nonnull name;

    // Conversions. To bfloat16 and float16: round to nearest even, NaN stays NaN.
    void (*_Nonnull bf16_to_f32)(float *out, const uint16_t *x, size_t n);
    void (*_Nonnull f16_to_f32)(float *out, const uint16_t *x, size_t n);
    void (*_Nonnull f32_to_bf16)(uint16_t *out, const float *x, size_t n);
    void (*_Nonnull f32_to_f16)(uint16_t *out, const float *x, size_t n);
    /// out = x rounded to bfloat16 and widened again; out may equal x.
    void (*_Nonnull round_to_bf16)(float *out, const float *x, size_t n);

    // Vectors.
    float (*_Nonnull dot)(const float *x, const float *y, size_t n);
    double (*_Nonnull sum)(const float *x, size_t n);
    double (*_Nonnull sum_of_squares)(const float *x, size_t n);
    /// Sum of (x - center)^2.
    double (*_Nonnull centered_squares)(const float *x, float center, size_t n);
    /// y += a * x
    void (*_Nonnull axpy)(float *y, float a, const float *x, size_t n);
    /// out = x + y; out may equal x or y.
    void (*_Nonnull add)(float *out, const float *x, const float *y, size_t n);
    /// out = a * x; out may equal x.
    void (*_Nonnull scale)(float *out, float a, const float *x, size_t n);

    /// y = weight * x / sqrt(mean(x^2) + epsilon); returns the reciprocal root.
    float (*_Nonnull rms_norm)(float *y, const float *x, const float *weight, float epsilon, size_t n);
    /// dx += gradient through one row; dweight += its share. `scale` is what rms_norm returned.
    void (*_Nonnull rms_norm_gradient)(float *dx, float *dweight, const float *dy, const float *x, const float *weight,
                              float scale, size_t n);

    /// x = max(0, x + bias)^2 in place; bias may be NULL.
    void (*_Nonnull squared_relu)(float *x, const float *_Nullable bias, size_t n);
    /// d = d * 2 * sqrt(activation) in place, the derivative of squared ReLU.
    void (*_Nonnull squared_relu_gradient)(float *d, const float *activation, size_t n);
    /// out = silu(gate) * up
    void (*_Nonnull gated_silu)(float *out, const float *gate, const float *up, size_t n);
    /// dgate and dup from dout.
    void (*_Nonnull gated_silu_gradient)(float *dgate, float *dup, const float *dout, const float *gate, const float *up,
                                size_t n);

    /// x = exp(x * scale - max) / sum in place; returns log(sum(exp(x * scale))).
    float (*_Nonnull softmax)(float *x, float scale, size_t n);
    /// One block of an online softmax: raises *largest to the block's largest x * scale, x = exp(x * scale -
    /// *largest) in place; returns the sum.
    float (*_Nonnull softmax_block)(float *x, float scale, size_t n, float *largest);
    /// x = exp(x * scale - log_sum_exp) in place.
    void (*_Nonnull exp_shifted)(float *x, float scale, float log_sum_exp, size_t n);
    /// d = p * (d - delta) * scale in place, the gradient of a softmax row.
    void (*_Nonnull softmax_gradient)(float *d, const float *p, float delta, float scale, size_t n);

    /// One router row: softmax over the logits whose normalized value reaches
    /// min(threshold, largest normalized value); exact zeros elsewhere.
    void (*_Nonnull route)(float *probabilities, const float *logits, float mean, float inverse_deviation, float threshold,
                  size_t experts);

    /// Rotates one head in the half-split layout: sign +1 forward, -1 backward. In place.
    void (*_Nonnull rotate)(float *x, const float *cosine, const float *sine, float sign, size_t half);

    /// destination[j] += sum_h to[h,j] * (sum_i from[h,i] * source[i]) over rows of `width`
    /// (equation 12 and its vertical counterparts). `scratch` holds `width` floats.
    void (*_Nonnull mix)(float *destination, const float *source, monet_selection from, monet_selection to, size_t heads,
                size_t width, float *scratch);
    /// out[i] = weight[i] * x[i] over rows of `width`.
    void (*_Nonnull scale_rows)(float *out, const float *x, const float *weight, size_t rows, size_t width);

    // One expert's `units` hidden units and the tokens that select it, whose rows are gathered.
    /// y[r, u] = sum over c of x[rows[r], c] * w[u, c].
    void (*_Nonnull gathered_dot)(float *y, size_t y_stride, const float *x, size_t x_stride, const int32_t *rows,
                         size_t count, const float *w, size_t w_stride, size_t units, size_t n);
    /// out[rows[r], c] += sum over u of coefficients[r, u] * w[u, c]; no row may occur twice.
    void (*_Nonnull scatter_add)(float *out, size_t out_stride, const int32_t *rows, size_t count,
                        const float *coefficients, size_t coefficient_stride, const float *w, size_t w_stride,
                        size_t units, size_t n);
    /// g[u, c] += sum over r of coefficients[r, u] * x[rows[r], c].
    void (*_Nonnull gathered_outer)(float *g, size_t g_stride, const float *coefficients, size_t coefficient_stride,
                           size_t units, const float *x, size_t x_stride, const int32_t *rows, size_t count, size_t n);
    /// One head of mix over compact rows: destination[to] += q * (sum of p * source[from]).
    void (*_Nonnull mix_entries)(float *destination, size_t destination_stride, const float *source, size_t source_stride,
                        monet_entries from, monet_entries to, size_t width, float *scratch);
    /// Gradient of mix_entries; dfrom and dto are the head's [experts]. `scratch` holds 2 * width floats.
    void (*_Nonnull mix_entries_gradient)(float *dsource, float *dfrom, float *dto, const float *ddestination,
                                 size_t destination_stride, const float *source, size_t source_stride,
                                 monet_entries from, monet_entries to, size_t width, float *scratch);

    /// mix_entries and its gradient where pair (f, t) has strength strengths[f * from_step + t * to_step].
    void (*_Nonnull mix_pairs)(float *destination, size_t destination_stride, const float *source, size_t source_stride,
                      monet_entries from, monet_entries to, const float *strengths, size_t from_step, size_t to_step,
                      size_t width);
    void (*_Nonnull mix_pairs_gradient)(float *dsource, float *dfrom, float *dto, const float *ddestination,
                               size_t destination_stride, const float *source, size_t source_stride, monet_entries from,
                               monet_entries to, const float *strengths, size_t from_step, size_t to_step,
                               size_t width);

    /// One AdamW update of n parameters with decoupled decay.
    void (*_Nonnull adamw)(float *parameter, float *moment1, float *moment2, const float *gradient, const monet_adamw *s,
                  size_t n);

    // Products of bfloat16 values with gathered rows; see bfloat16.inc.
    /// Whether they are faster than float32 products.
    int bfloat16_pays;
    /// rows[MONET_BF16] for activations rounded to bfloat16, of any number of rows.
    monet_row_kernels rounded_bf16;
    /// out[2 c] = even[c], out[2 c + 1] = odd[c], or zero where odd is NULL.
    void (*_Nonnull interleave)(uint16_t *out, const uint16_t *even, const uint16_t *_Nullable odd, size_t n);
    /// out[rows[r], c] += sum over p < pairs, h < 2 of coefficients[r, 2 p + h] * w[p, 2 c + h]; no row may occur
    /// twice. Strides count values.
    void (*_Nonnull scatter_add_pairs)(float *out, size_t out_stride, const int32_t *rows, size_t count,
                              const uint16_t *coefficients, size_t coefficient_stride, const uint16_t *w,
                              size_t w_stride, size_t pairs, size_t n);

    // Dense products on integers; integers.inc describes how operands are quantized and packed.
    /// Whether they are faster than float32 products.
    int integers_pay;
    /// Elements of a block, lines of a panel of the left and of the right operand.
    size_t integer_block, integer_rows, integer_columns;
    /// Quantizes and packs `lines` lines of n elements; one of the strides is 1. Whole panels and blocks are
    /// written, integers and scales separately.
    void (*_Nonnull pack_left)(int16_t *out, float *scales, const float *x, size_t line_stride, size_t element_stride,
                      size_t lines, size_t n);
    void (*_Nonnull pack_right)(int16_t *out, float *scales, const float *x, size_t line_stride, size_t element_stride,
                       size_t lines, size_t n);
    /// c[rows, columns] (+)= the product of panels of the left operand, which have `a_blocks` blocks each, and one
    /// panel of the right operand, over `blocks` blocks.
    void (*_Nonnull integer_product)(float *c, size_t c_stride, size_t rows, size_t columns, const int16_t *a,
                            const float *a_scales, size_t a_blocks, const int16_t *b, const float *b_scales,
                            size_t blocks, int accumulate);

    /// rows[MONET_INT8] computed on integers; faster for three or more rows of activations.
    monet_row_kernels int8_on_integers;
    /// rows[MONET_BF16] for activations with separated even and odd columns.
    monet_row_kernels even_odd_bf16;
    /// By enum monet_row_format.
    monet_row_kernels rows[MONET_ROW_FORMATS];
} monet_kernels;

/// The kernels of an instruction set ("scalar", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon"), or NULL
/// where this processor or this build does not have it.
const monet_kernels *_Nullable monet_kernels_named(const char *_Nonnull name);

/// The best table that this processor can run.
const monet_kernels *_Nonnull monet_kernels_best(void);

/// Whether products of bfloat16 values are faster than float32 where memory is not the limit, on processors
/// with an instruction for them. False on Intel processors, where measurements show that experts with many tokens
/// are slower with it.
int monet_bfloat16_outruns_float32(void);

/// How far ahead memory that is read sequentially should be prefetched, in bytes; 0 where the processor does better
/// by itself. Measured on server processors: with it, Intel's are nearly twice as fast, AMD's slower.
size_t monet_bytes_ahead(void);

/// Transposes a matrix of values of 2 or 4 bytes: lines[c][r] = x[r * x_stride + c].
void monet_columns_16(uint16_t *_Nonnull const *_Nonnull lines, const uint16_t *x, size_t x_stride, size_t rows,
                      size_t columns);
void monet_columns_32(uint32_t *_Nonnull const *_Nonnull lines, const uint32_t *x, size_t x_stride, size_t rows,
                      size_t columns);

/// Whether the calling thread is running a chunk of a worker pool's job, and how to set this.
int monet_inside_pool(void);
void monet_set_inside_pool(int inside);

/// Processors that the calling thread may run on, or 0 where the system does not say.
int monet_affinity_count(void);

/// Tells the processor that the caller is in a spin loop.
static inline void monet_spin_hint(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#pragma clang assume_nonnull end

#ifdef __cplusplus
}
#endif
#endif
