// Compression in gzip's format, through zlib.
#ifndef MONET_GZIP_H
#define MONET_GZIP_H

#include <stddef.h>
#include <stdint.h>

/// The most bytes that `count` bytes become.
size_t monet_gzip_bound(size_t count);

/// Compresses bytes. Returns the size of the result, or 0 if `capacity` does not suffice or memory is short.
size_t monet_gzip(const uint8_t *source, size_t count, uint8_t *target, size_t capacity);

#endif
