#include "monet_gzip.h"

#include <limits.h>
#include <zlib.h>

// What the header and the trailer of gzip's format take beyond zlib's.
enum { frame = 18 };

size_t monet_gzip_bound(size_t count) { return compressBound(count) + frame; }

size_t monet_gzip(const uint8_t *source, size_t count, uint8_t *target, size_t capacity) {
    z_stream stream = {0};
    const int window_with_gzip_header = 15 + 16;
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_with_gzip_header, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return 0;
    }
    // zlib counts in 32 bits: larger inputs and outputs go through it in parts.
    size_t read = 0, written = 0;
    int status = Z_OK;
    while (status == Z_OK) {
        size_t in = count - read < UINT_MAX ? count - read : UINT_MAX;
        size_t out = capacity - written < UINT_MAX ? capacity - written : UINT_MAX;
        stream.next_in = (Bytef *)(source + read);
        stream.avail_in = (uInt)in;
        stream.next_out = target + written;
        stream.avail_out = (uInt)out;
        status = deflate(&stream, read + in == count ? Z_FINISH : Z_NO_FLUSH);
        size_t used = in - stream.avail_in, made = out - stream.avail_out;
        read += used;
        written += made;
        if (status == Z_OK && used == 0 && made == 0) break;
    }
    deflateEnd(&stream);
    return status == Z_STREAM_END ? written : 0;
}

size_t monet_gunzip(const uint8_t *source, size_t count, uint8_t *target, size_t capacity) {
    // zlib counts in 32 bits; what is read this way comes in pages of less than 2 GiB.
    if (count > UINT_MAX || capacity > UINT_MAX) return SIZE_MAX;
    z_stream stream = {0};
    const int window_with_any_header = 15 + 32;
    if (inflateInit2(&stream, window_with_any_header) != Z_OK) return SIZE_MAX;
    stream.next_in = (Bytef *)source;
    stream.avail_in = (uInt)count;
    stream.next_out = target;
    stream.avail_out = (uInt)capacity;
    int status = inflate(&stream, Z_FINISH);
    // A gzip file may be several, one after another.
    while (status == Z_STREAM_END && stream.avail_in > 0) {
        status = inflateReset(&stream);
        if (status == Z_OK) status = inflate(&stream, Z_FINISH);
    }
    size_t written = capacity - stream.avail_out;
    inflateEnd(&stream);
    if (status == Z_STREAM_END) return written;
    return stream.avail_out == 0 ? MONET_GZIP_IS_LARGER : SIZE_MAX;
}
