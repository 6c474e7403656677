// Transposes matrices, for weights that are stored in another order than they are read. Square tiles are transposed
// in registers by exchanging halves: in three rounds for eight values per register, in two for four.
#include <string.h>

#include "include/monet_kernels.h"

// Rows per block: with values of two bytes, a whole cache line of every output line.
#define BLOCK_ROWS 32

typedef uint16_t eight_words __attribute__((vector_size(16)));
typedef uint32_t four_words __attribute__((vector_size(16)));

#define LOWER_8(A, B) __builtin_shufflevector(A, B, 0, 8, 1, 9, 2, 10, 3, 11)
#define UPPER_8(A, B) __builtin_shufflevector(A, B, 4, 12, 5, 13, 6, 14, 7, 15)
#define LOWER_4(A, B) __builtin_shufflevector(A, B, 0, 4, 1, 5)
#define UPPER_4(A, B) __builtin_shufflevector(A, B, 2, 6, 3, 7)

// Transposes a square of SIDE registers. A round interleaves each register with the one half a square further on.
#define SQUARE(NAME, VALUE, VECTOR, SIDE, ROUNDS, LOWER, UPPER)                                               \
    static inline void NAME(VALUE *const *lines, size_t first, const VALUE *x, size_t x_stride) {             \
        VECTOR now[SIDE], next[SIDE];                                                                         \
        _Pragma("clang loop unroll(full)") for (int r = 0; r < SIDE; r++)                                     \
            memcpy(&now[r], x + (size_t)r * x_stride, sizeof now[r]);                                         \
        _Pragma("clang loop unroll(full)") for (int round = 0; round < ROUNDS; round++) {                     \
            _Pragma("clang loop unroll(full)") for (int r = 0; r < SIDE / 2; r++) {                           \
                next[2 * r] = LOWER(now[r], now[r + SIDE / 2]);                                               \
                next[2 * r + 1] = UPPER(now[r], now[r + SIDE / 2]);                                           \
            }                                                                                                 \
            _Pragma("clang loop unroll(full)") for (int r = 0; r < SIDE; r++) now[r] = next[r];               \
        }                                                                                                     \
        _Pragma("clang loop unroll(full)") for (int c = 0; c < SIDE; c++)                                     \
            memcpy(lines[c] + first, &now[c], sizeof now[c]);                                                 \
    }
SQUARE(square_16, uint16_t, eight_words, 8, 3, LOWER_8, UPPER_8)
SQUARE(square_32, uint32_t, four_words, 4, 2, LOWER_4, UPPER_4)

#define COLUMNS(NAME, VALUE, SIDE, SQUARE_OF)                                                                 \
    void NAME(VALUE *const *lines, const VALUE *x, size_t x_stride, size_t rows, size_t columns) {            \
        for (size_t block = 0; block < rows; block += BLOCK_ROWS) {                                           \
            size_t end = rows - block < BLOCK_ROWS ? rows : block + BLOCK_ROWS, c = 0;                        \
            for (; c + SIDE <= columns; c += SIDE) {                                                          \
                size_t r = block;                                                                             \
                for (; r + SIDE <= end; r += SIDE) SQUARE_OF(lines + c, r, x + r * x_stride + c, x_stride);   \
                for (; r < end; r++)                                                                          \
                    for (size_t l = c; l < c + SIDE; l++) lines[l][r] = x[r * x_stride + l];                  \
            }                                                                                                 \
            for (; c < columns; c++)                                                                          \
                for (size_t r = block; r < end; r++) lines[c][r] = x[r * x_stride + c];                       \
        }                                                                                                     \
    }
COLUMNS(monet_columns_16, uint16_t, 8, square_16)
COLUMNS(monet_columns_32, uint32_t, 4, square_32)
