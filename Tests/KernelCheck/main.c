// Compares an instruction set's kernels with the portable ones on random input, for `Scripts/check-neon` and
// `Scripts/check-avx512`, which run this under emulation. The portable kernels are tested against formulas in
// double precision by the Swift tests on every machine.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../Sources/CMonetKernels/include/monet_kernels.h"

static uint64_t state = 42;
static float uniform(void) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (float)((int64_t)(state >> 33) - (1 << 30)) * 0x1p-30f;
}

static int failures, checks;
static void compare(const char *what, size_t n, const float *x, const float *y, size_t count, double bound) {
    double difference = 0, scale = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        scale += (double)y[i] * y[i];
    }
    checks++;
    if (!(sqrt(difference) <= bound * sqrt(scale) + 1e-30)) {
        failures++;
        printf("%s, n %zu: %g apart\n", what, n, sqrt(difference / scale));
    }
}

// Dot products and sums by columns of one format of weights.
static void check_rows(const monet_row_kernels *a, const monet_row_kernels *b, const char *what, size_t n,
                       const float *x, const int32_t *rows, const unsigned char *bytes, size_t stride) {
    static unsigned char ours[12 * 4 * 700], theirs[12 * 4 * 700];
    static float u[12 * 700], v[12 * 700];
    const void *left = x, *right = x;
    size_t row_bytes = 4 * n;
    if (a->prepare != NULL) {
        row_bytes = (a->activation_bytes(n) + 63) / 64 * 64;
        for (size_t r = 0; r < 12; r++) a->prepare(ours + r * row_bytes, x + r * n, n);
        for (size_t r = 0; r < 12; r++) b->prepare(theirs + r * row_bytes, x + r * n, n);
        left = ours, right = theirs;
    }
    for (size_t count = 1; count <= 12; count++) {
        // What is read next is only asked for: any address will do.
        const void *next = count % 3 == 0 ? NULL : count % 3 == 1 ? bytes : (const void *)(uintptr_t)4096;
        a->dot(u, 9, left, row_bytes, rows, count, bytes, stride, 9, n, next);
        b->dot(v, 9, right, row_bytes, rows, count, bytes, stride, 9, n, next);
        compare(what, n, u, v, 9 * count, 2e-5);
        memset(u, 0, sizeof u), memset(v, 0, sizeof v);
        a->accumulate(u, n, rows, count, x, 9, bytes, stride, 9, 0, n, n, next);
        b->accumulate(v, n, rows, count, x, 9, bytes, stride, 9, 0, n, n, next);
        compare("accumulate", n, u, v, 12 * n, 2e-5);
    }
    a->widen(u, bytes, 0, n, n);
    b->widen(v, bytes, 0, n, n);
    compare("widen", n, u, v, n, 1e-6);
}

// Sums by columns of pairs of bfloat16 values, an even and an odd number of rows of weights.
static void check_pairs(const monet_kernels *a, const monet_kernels *b, size_t n, const float *x, const float *w,
                        const int32_t *rows) {
    static uint16_t coefficients[12 * 8], lines[8 * 700], pairs[2][4 * 2 * 700];
    static float u[12 * 700], v[12 * 700];
    float *results[2] = {u, v};
    const monet_kernels *tables[2] = {a, b};
    b->f32_to_bf16(coefficients, w, 96);
    b->f32_to_bf16(lines, x, 8 * n);
    for (size_t units = 7; units <= 8; units++)
        for (size_t count = 1; count <= 12; count++) {
            for (int t = 0; t < 2; t++) {
                for (size_t p = 0; p < 4; p++)
                    tables[t]->interleave(pairs[t] + p * 2 * n, lines + 2 * p * n,
                                          2 * p + 1 < units ? lines + (2 * p + 1) * n : NULL, n);
                memset(results[t], 0, sizeof u);
                tables[t]->scatter_add_pairs(results[t], n, rows, count, coefficients, 8, pairs[t], 2 * n, 4, n);
            }
            compare("scatter_add_pairs", n, u, v, 12 * n, 2e-5);
        }
}

// The name of the instruction set is the argument.
// Columns as lines, values that differ at every place.
#define CHECK_COLUMNS(BITS)                                                                              \
    static void check_columns_##BITS(size_t rows, size_t columns) {                                      \
        static uint##BITS##_t x[701 * 701], y[701 * 701], *lines[701];                                   \
        for (size_t i = 0; i < rows * columns; i++) x[i] = (uint##BITS##_t)(i * 2654435761u >> 7);       \
        for (size_t c = 0; c < columns; c++) lines[c] = y + c * rows;                                    \
        monet_columns_##BITS(lines, x, columns, rows, columns);                                          \
        checks++;                                                                                        \
        for (size_t r = 0; r < rows; r++)                                                                \
            for (size_t c = 0; c < columns; c++)                                                         \
                if (y[c * rows + r] != x[r * columns + c]) {                                             \
                    printf("columns of %d bits, %zu x %zu: wrong at %zu, %zu\n", BITS, rows, columns, r, c); \
                    failures++;                                                                          \
                    return;                                                                              \
                }                                                                                        \
    }
CHECK_COLUMNS(16)
CHECK_COLUMNS(32)

int main(int arguments, char **argument) {
    const monet_kernels *a = arguments == 2 ? monet_kernels_named(argument[1]) : NULL;
    const monet_kernels *b = monet_kernels_named("scalar");
    if (a == NULL || b == NULL) return printf("no such kernels here\n"), 1;
    static float x[12 * 700], w[12 * 700], u[12 * 700], v[12 * 700];
    static unsigned char bytes[9 * 4 * 700];
    size_t widths[] = {1, 3, 4, 17, 64, 127, 128, 129, 300, 640};
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
        size_t n = widths[k];
        for (size_t i = 0; i < 12 * n; i++) x[i] = uniform();
        for (size_t i = 0; i < 12 * 700; i++) w[i] = uniform();
        int32_t rows[12] = {11, 0, 3, 7, 2, 9, 1, 8, 4, 10, 6, 5};
        for (int format = 0; format < MONET_ROW_FORMATS; format++) {
            size_t stride = (size_t[]){4 * n, 2 * n, 2 * n, 4 + (n + 3) / 4 * 4, 8 + (n + 127) / 128 * 72}[format];
            for (size_t i = 0; i < 9 * stride; i++) bytes[i] = (unsigned char)(127 * (1 + uniform()));
            for (size_t r = 0; r < 9; r++) {
                unsigned char *row = bytes + r * stride;
                if (format == MONET_F32) memcpy(row, w + r * n, 4 * n);
                if (format == MONET_BF16) b->f32_to_bf16((uint16_t *)row, w + r * n, n);
                if (format == MONET_F16) b->f32_to_f16((uint16_t *)row, w + r * n, n);
                float scales[2] = {0.01f, 0.02f};
                if (format >= MONET_INT8) memcpy(row, scales, format == MONET_INT4 ? 8 : 4);
            }
            check_rows(&a->rows[format], &b->rows[format], "dot", n, x, rows, bytes, stride);
            if (format == MONET_BF16)
                check_rows(&a->rounded_bf16, &b->rounded_bf16, "rounded dot", n, x, rows, bytes, stride);
            if (format == MONET_BF16)
                check_rows(&a->even_odd_bf16, &b->even_odd_bf16, "even and odd dot", n, x, rows, bytes, stride);
            if (format == MONET_INT8)
                check_rows(&a->int8_on_integers, &b->int8_on_integers, "int8 dot", n, x, rows, bytes, stride);
        }
        check_pairs(a, b, n, x, w, rows);
        check_columns_16(n, 19), check_columns_16(19, n), check_columns_32(n, 19), check_columns_32(19, n);
        // The left operand's lines in memory one after another, the right one's element by element.
        size_t blocks = (n + a->integer_block - 1) / a->integer_block;
        static int16_t packed[2][2][16 * 704];
        static float scales[2][2][16 * 11];
        const monet_kernels *tables[2] = {a, b};
        float *results[2] = {u, v};
        for (int t = 0; t < 2; t++) {
            tables[t]->pack_left(packed[t][0], scales[t][0], x, n, 1, 9, n);
            tables[t]->pack_right(packed[t][1], scales[t][1], w, 1, 9, 7, n);
            tables[t]->integer_product(results[t], 7, 9, 7, packed[t][0], scales[t][0], blocks, packed[t][1],
                                       scales[t][1], blocks, 0);
        }
        // What lies half-way between two integers may be rounded to either.
        compare("integer_product", n, u, v, 63, 2e-5);
        a->gathered_dot(u, 9, x, n, rows, 11, w, n, 9, n), b->gathered_dot(v, 9, x, n, rows, 11, w, n, 9, n);
        compare("gathered_dot", n, u, v, 99, 2e-5);
        memset(u, 0, sizeof u), memset(v, 0, sizeof v);
        a->scatter_add(u, n, rows, 11, x, 9, w, n, 9, n), b->scatter_add(v, n, rows, 11, x, 9, w, n, 9, n);
        compare("scatter_add", n, u, v, 12 * n, 2e-5);
        memset(u, 0, sizeof u), memset(v, 0, sizeof v);
        a->gathered_outer(u, n, w, 9, 7, x, n, rows, 9, n), b->gathered_outer(v, n, w, 9, 7, x, n, rows, 9, n);
        compare("gathered_outer", n, u, v, 7 * n, 2e-5);
        memcpy(u, x, 4 * n), memcpy(v, x, 4 * n);
        a->softmax(u, 3, n), b->softmax(v, 3, n);
        compare("softmax", n, u, v, n, 1e-5);
        a->route(u, x, 0.1f, 2, 0.7f, n), b->route(v, x, 0.1f, 2, 0.7f, n);
        compare("route", n, u, v, n, 1e-5);
        a->rms_norm(u, x, w, 1e-6f, n), b->rms_norm(v, x, w, 1e-6f, n);
        compare("rms_norm", n, u, v, n, 1e-5);
        a->gated_silu(u, x, w, n), b->gated_silu(v, x, w, n);
        compare("gated_silu", n, u, v, n, 1e-5);
    }
    printf("%s: %d checks, %d failures\n", a->name, checks, failures);
    return failures != 0;
}
