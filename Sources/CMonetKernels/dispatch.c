// Chooses a table of kernels at run time, and makes the system queries that Swift cannot.
#if defined(__linux__)
#define _GNU_SOURCE
#include <sched.h>
#endif
#include <string.h>

#include "include/monet_kernels.h"

extern const monet_kernels monet_kernels_scalar;
#if defined(__x86_64__)
extern const monet_kernels monet_kernels_avx2;
extern const monet_kernels monet_kernels_avx512;
extern const monet_kernels monet_kernels_avx512vnni;
extern const monet_kernels monet_kernels_avx512bf16;

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)
extern const monet_kernels monet_kernels_neon;
#endif

const monet_kernels *monet_kernels_named(const char *name) {
    if (strcmp(name, "scalar") == 0) return &monet_kernels_scalar;
#if defined(__x86_64__)
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &monet_kernels_avx2;
    if (strcmp(name, "avx512") == 0 && has_avx512()) return &monet_kernels_avx512;
    if (strcmp(name, "avx512vnni") == 0 && has_avx512() && __builtin_cpu_supports("avx512vnni"))
        return &monet_kernels_avx512vnni;
    if (strcmp(name, "avx512bf16") == 0 && has_avx512() && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512bf16"))
        return &monet_kernels_avx512bf16;
#elif defined(__aarch64__)
    if (strcmp(name, "neon") == 0) return &monet_kernels_neon;
#endif
    return NULL;
}

const monet_kernels *monet_kernels_best(void) {
    static const char *const preference[] = {"avx512bf16", "avx512vnni", "avx512", "avx2", "neon", "scalar"};
    for (size_t i = 0; i < sizeof preference / sizeof *preference; i++) {
        const monet_kernels *table = monet_kernels_named(preference[i]);
        if (table != NULL) return table;
    }
    return &monet_kernels_scalar;
}

int monet_bfloat16_outruns_float32(void) {
#if defined(__x86_64__)
    return !__builtin_cpu_is("intel");
#else
    return 1;
#endif
}

size_t monet_bytes_ahead(void) {
#if defined(__x86_64__)
    return __builtin_cpu_is("intel") ? 4096 : 0;
#else
    return 0;
#endif
}

static _Thread_local int inside_pool;

int monet_inside_pool(void) { return inside_pool; }
void monet_set_inside_pool(int inside) { inside_pool = inside; }

int monet_affinity_count(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return 0;
}
