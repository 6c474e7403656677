// Compression and decompression in gzip's format, through zlib.
#ifndef MONET_GZIP_H
#define MONET_GZIP_H

#include <stddef.h>
#include <stdint.h>

/// The most bytes that `count` bytes become.
size_t monet_gzip_bound(size_t count);

/// Compresses bytes. Returns the size of the result, or 0 if `capacity` does not suffice or memory is short.
size_t monet_gzip(const uint8_t *source, size_t count, uint8_t *target, size_t capacity);

/// What monet_gunzip returns if `capacity` does not suffice.
#define MONET_GZIP_IS_LARGER (SIZE_MAX - 1)

/// Decompresses bytes in gzip's or zlib's format. Returns the size of the result, MONET_GZIP_IS_LARGER, or SIZE_MAX if
/// they are damaged, memory is short, or the sizes are not below 4 GiB.
size_t monet_gunzip(const uint8_t *source, size_t count, uint8_t *target, size_t capacity);

#endif
