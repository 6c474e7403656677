// SentencePiece behind a C interface. Strings are bytes with a length: a NUL is data.
#ifndef MONET_SENTENCEPIECE_H
#define MONET_SENTENCEPIECE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct monet_sp_processor monet_sp_processor;

/// Frees what any function here returned through `error`, `out` or as bytes.
void monet_sp_free(void *pointer);

/// Parses a serialized model; NULL and a message in `error` if it is none.
monet_sp_processor *monet_sp_load(const char *bytes, size_t count, char **error);
void monet_sp_destroy(monet_sp_processor *processor);

int32_t monet_sp_vocabulary_size(const monet_sp_processor *processor);
int32_t monet_sp_unknown_id(const monet_sp_processor *processor);
int32_t monet_sp_begin_id(const monet_sp_processor *processor);
int32_t monet_sp_end_id(const monet_sp_processor *processor);
int32_t monet_sp_pad_id(const monet_sp_processor *processor);

/// Kind of a piece: 0 normal, 1 unknown, 2 control, 3 byte, 4 unused.
int32_t monet_sp_piece_kind(const monet_sp_processor *processor, int32_t id);
/// The piece's bytes, valid as long as the processor; `count` receives their number.
const char *monet_sp_piece(const monet_sp_processor *processor, int32_t id, size_t *count);
int32_t monet_sp_id_of_piece(const monet_sp_processor *processor, const char *piece, size_t count);

/// Encodes UTF-8 text; returns the number of ids, or -1 with a message in `error`.
int64_t monet_sp_encode(const monet_sp_processor *processor, const char *text, size_t count, int32_t **out,
                        char **error);
/// Decodes ids; returns the number of bytes, or -1 with a message in `error`.
int64_t monet_sp_decode(const monet_sp_processor *processor, const int32_t *ids, size_t count, char **out,
                        char **error);

/// Trains a model with SentencePiece's own `key=value` options over `sentence_count` sentences;
/// returns the serialized model's size, or -1 with a message in `error`.
int64_t monet_sp_train(const char *const *options, size_t option_count, const char *const *sentences,
                       const size_t *counts, size_t sentence_count, char **out, char **error);

#ifdef __cplusplus
}
#endif
#endif
