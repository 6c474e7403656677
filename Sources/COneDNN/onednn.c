#include "include/monet_onednn.h"

#if defined(__linux__)

#define _GNU_SOURCE
#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#ifndef RTLD_DEFAULT
#define RTLD_DEFAULT ((void *)0)
#endif

void monet_onednn_use_calling_thread(void) {
    // Looked up at run time: oneDNN builds on another runtime have no OpenMP to configure.
    static _Thread_local bool done;
    if (done) return;
    done = true;
    void (*set_threads)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (set_threads != NULL) set_threads(1);
}

// For long inner dimensions, oneDNN's generated code points the stack pointer into a buffer on the heap
// (uxlfoundation/oneDNN issue 4845, reported for 3.11.1 and fixed since). A signal handler that ran meanwhile
// would overwrite whatever lies below that buffer, so signals are blocked until the product is done. Signals for
// faults of the thread itself are not: if they were, a fault would end the process without calling its handler.
static sigset_t hold_signals(void) {
    sigset_t held, previous;
    sigfillset(&held);
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&held, faults[i]);
    pthread_sigmask(SIG_BLOCK, &held, &previous);
    return previous;
}

static void release_signals(sigset_t previous) { pthread_sigmask(SIG_SETMASK, &previous, NULL); }

int monet_onednn_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                       int64_t lda, const float *b, int64_t ldb, bool accumulate, float *c, int64_t ldc) {
    monet_onednn_use_calling_thread();
    sigset_t previous = hold_signals();
    dnnl_status_t status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a, lda, b,
                                      ldb, accumulate ? 1.0f : 0.0f, c, ldc);
    release_signals(previous);
    return (int)status;
}

typedef struct {
    bool bf16, transpose_a, transpose_b, accumulate;
    int64_t m, n, k, lda, ldb, ldc;
} shape_key;

typedef struct {
    shape_key key;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c;
} cached_matmul;

enum { CACHE_SIZE = 64 };
static _Thread_local cached_matmul cache[CACHE_SIZE];
static _Thread_local dnnl_engine_t engine;
static _Thread_local dnnl_stream_t stream;

static void release(cached_matmul *entry) {
    if (entry->primitive == NULL) return;
    dnnl_primitive_destroy(entry->primitive);
    dnnl_memory_destroy(entry->a);
    dnnl_memory_destroy(entry->b);
    dnnl_memory_destroy(entry->c);
    memset(entry, 0, sizeof *entry);
}

#define CHECK(CALL)                              \
    do {                                         \
        status = (CALL);                         \
        if (status != dnnl_success) goto finish; \
    } while (0)

static dnnl_status_t create(cached_matmul *entry, const shape_key *s) {
    dnnl_data_type_t input = s->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t dims_a = {s->m, s->k}, dims_b = {s->k, s->n}, dims_c = {s->m, s->n};
    dnnl_dims_t strides_a = {s->transpose_a ? 1 : s->lda, s->transpose_a ? s->lda : 1};
    dnnl_dims_t strides_b = {s->transpose_b ? 1 : s->ldb, s->transpose_b ? s->ldb : 1};
    dnnl_dims_t strides_c = {s->ldc, 1};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_primitive_desc_t descriptor = NULL;
    dnnl_status_t status = dnnl_success;
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_t a = NULL, b = NULL, c = NULL;
    CHECK(dnnl_memory_desc_create_with_strides(&a, 2, dims_a, input, strides_a));
    CHECK(dnnl_memory_desc_create_with_strides(&b, 2, dims_b, input, strides_b));
    CHECK(dnnl_memory_desc_create_with_strides(&c, 2, dims_c, dnnl_f32, strides_c));
#else
    dnnl_memory_desc_t a, b, c;
    CHECK(dnnl_memory_desc_init_by_strides(&a, 2, dims_a, input, strides_a));
    CHECK(dnnl_memory_desc_init_by_strides(&b, 2, dims_b, input, strides_b));
    CHECK(dnnl_memory_desc_init_by_strides(&c, 2, dims_c, dnnl_f32, strides_c));
#endif
    CHECK(dnnl_primitive_attr_create(&attributes));
    if (s->accumulate) {
        CHECK(dnnl_post_ops_create(&post_ops));
#if DNNL_VERSION_MAJOR >= 3
        CHECK(dnnl_post_ops_append_sum(post_ops, 1.0f, 0, dnnl_data_type_undef));
#else
        CHECK(dnnl_post_ops_append_sum(post_ops, 1.0f));
#endif
        CHECK(dnnl_primitive_attr_set_post_ops(attributes, post_ops));
    }
#if DNNL_VERSION_MAJOR >= 3
    CHECK(dnnl_matmul_primitive_desc_create(&descriptor, engine, a, b, NULL, c, attributes));
    CHECK(dnnl_primitive_create(&entry->primitive, descriptor));
    CHECK(dnnl_memory_create(&entry->a, a, engine, DNNL_MEMORY_NONE));
    CHECK(dnnl_memory_create(&entry->b, b, engine, DNNL_MEMORY_NONE));
    CHECK(dnnl_memory_create(&entry->c, c, engine, DNNL_MEMORY_NONE));
#else
    dnnl_matmul_desc_t operation;
    CHECK(dnnl_matmul_desc_init(&operation, &a, &b, NULL, &c));
    CHECK(dnnl_primitive_desc_create(&descriptor, &operation, attributes, engine, NULL));
    CHECK(dnnl_primitive_create(&entry->primitive, descriptor));
    CHECK(dnnl_memory_create(&entry->a, &a, engine, DNNL_MEMORY_NONE));
    CHECK(dnnl_memory_create(&entry->b, &b, engine, DNNL_MEMORY_NONE));
    CHECK(dnnl_memory_create(&entry->c, &c, engine, DNNL_MEMORY_NONE));
#endif
    entry->key = *s;
finish:
    if (status != dnnl_success) {
        if (entry->primitive != NULL) dnnl_primitive_destroy(entry->primitive);
        if (entry->a != NULL) dnnl_memory_destroy(entry->a);
        if (entry->b != NULL) dnnl_memory_destroy(entry->b);
        memset(entry, 0, sizeof *entry);
    }
#if DNNL_VERSION_MAJOR >= 3
    if (a != NULL) dnnl_memory_desc_destroy(a);
    if (b != NULL) dnnl_memory_desc_destroy(b);
    if (c != NULL) dnnl_memory_desc_destroy(c);
#endif
    if (descriptor != NULL) dnnl_primitive_desc_destroy(descriptor);
    if (post_ops != NULL) dnnl_post_ops_destroy(post_ops);
    if (attributes != NULL) dnnl_primitive_attr_destroy(attributes);
    return status;
}

int monet_onednn_matmul(bool bf16, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                        const void *a, int64_t lda, const void *b, int64_t ldb, bool accumulate, float *c,
                        int64_t ldc) {
    monet_onednn_use_calling_thread();
    dnnl_status_t status = dnnl_success;
    if (engine == NULL) CHECK(dnnl_engine_create(&engine, dnnl_cpu, 0));
    if (stream == NULL) CHECK(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    shape_key key;
    memset(&key, 0, sizeof key);
    key.bf16 = bf16;
    key.transpose_a = transpose_a;
    key.transpose_b = transpose_b;
    key.accumulate = accumulate;
    key.m = m, key.n = n, key.k = k, key.lda = lda, key.ldb = ldb, key.ldc = ldc;
    uint64_t hash = 1469598103934665603ull;
    for (size_t i = 0; i < sizeof key; i++) hash = (hash ^ ((const unsigned char *)&key)[i]) * 1099511628211ull;
    cached_matmul *entry = &cache[hash % CACHE_SIZE];
    if (entry->primitive == NULL || memcmp(&entry->key, &key, sizeof key) != 0) {
        release(entry);
        CHECK(create(entry, &key));
    }
    CHECK(dnnl_memory_set_data_handle(entry->a, (void *)(uintptr_t)a));
    CHECK(dnnl_memory_set_data_handle(entry->b, (void *)(uintptr_t)b));
    CHECK(dnnl_memory_set_data_handle(entry->c, c));
    dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, entry->a}, {DNNL_ARG_WEIGHTS, entry->b}, {DNNL_ARG_DST, entry->c}};
    sigset_t previous = hold_signals();
    status = dnnl_primitive_execute(entry->primitive, stream, 3, arguments);
    dnnl_status_t waited = dnnl_stream_wait(stream);
    release_signals(previous);
    if (status == dnnl_success) status = waited;
finish:
    return (int)status;
}

bool monet_onednn_has_native_bf16(void) {
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx512bf16")) return false;
    uint16_t one[4] = {0x3f80, 0x3f80, 0x3f80, 0x3f80};
    float out[4] = {0};
    return monet_onednn_matmul(true, false, false, 2, 2, 2, one, 2, one, 2, false, out, 2) == 0 && out[0] == 2.0f;
#else
    return false;
#endif
}

#endif
