#include "CMPI.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

// The declarations of Open MPI 4 and 5, which share the library's version 40. Handles are addresses of its own
// objects. Its header is not needed, and a machine without the library builds the package as well.
typedef void *handle;

enum { THREAD_SERIALIZED = 2, TYPE_SHARED = 0, VERSION_CAPACITY = 8192 };

static struct {
    int (*initialized)(int *);
    int (*init)(int *, char ***, int, int *);
    int (*rank)(handle, int *);
    int (*size)(handle, int *);
    int (*version)(char *, int *);
    int (*on_error)(handle, handle);
    int (*send)(const void *, int, handle, int, int, handle, handle *);
    int (*receive)(void *, int, handle, int, int, handle, handle *);
    int (*test)(handle *, int *, void *);
    int (*split_type)(handle, int, int, handle, handle *);
    int (*free)(handle *);
    int (*finalize)(void);
    int (*abort)(handle, int);
    handle world, byte, errors_return, no_info;
} mpi;

static const char *const NAMES[] = {
#ifdef __APPLE__
    "libmpi.40.dylib", "/opt/homebrew/lib/libmpi.40.dylib", "/usr/local/lib/libmpi.40.dylib",
#else
    "libmpi.so.40",
#endif
};

static void *library;

int monet_mpi_load(char *message, size_t capacity) {
    if (library) return 0;
    void *opened = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && !opened; i++) {
        // Global: Open MPI's own plug-ins look its symbols up.
        opened = dlopen(NAMES[i], RTLD_NOW | RTLD_GLOBAL);
    }
    if (!opened) {
        const char *reason = dlerror();
        snprintf(message, capacity, "%s", reason ? reason : NAMES[0]);
        return -1;
    }
    struct {
        const char *name;
        void **place;
    } symbols[] = {
        {"MPI_Initialized", (void **)&mpi.initialized},
        {"MPI_Init_thread", (void **)&mpi.init},
        {"MPI_Comm_rank", (void **)&mpi.rank},
        {"MPI_Comm_size", (void **)&mpi.size},
        {"MPI_Get_library_version", (void **)&mpi.version},
        {"MPI_Comm_set_errhandler", (void **)&mpi.on_error},
        {"MPI_Isend", (void **)&mpi.send},
        {"MPI_Irecv", (void **)&mpi.receive},
        {"MPI_Test", (void **)&mpi.test},
        {"MPI_Comm_split_type", (void **)&mpi.split_type},
        {"MPI_Comm_free", (void **)&mpi.free},
        {"MPI_Finalize", (void **)&mpi.finalize},
        {"MPI_Abort", (void **)&mpi.abort},
        {"ompi_mpi_comm_world", &mpi.world},
        {"ompi_mpi_byte", &mpi.byte},
        {"ompi_mpi_errors_return", &mpi.errors_return},
        {"ompi_mpi_info_null", &mpi.no_info},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        *symbols[i].place = dlsym(opened, symbols[i].name);
        if (!*symbols[i].place) {
            snprintf(message, capacity, "the library has no %s, so it is not Open MPI 4 or 5", symbols[i].name);
            dlclose(opened);
            return -1;
        }
    }
    library = opened;
    return 0;
}

int monet_mpi_init(int *rank, int *size) {
    int done = 0, level = 0, status = mpi.initialized(&done);
    if (!status && !done) status = mpi.init(NULL, NULL, THREAD_SERIALIZED, &level);
    if (!status && !done && level < THREAD_SERIALIZED) status = -1;
    if (!status) status = mpi.on_error(mpi.world, mpi.errors_return);
    if (!status) status = mpi.rank(mpi.world, rank);
    if (!status) status = mpi.size(mpi.world, size);
    return status;
}

int monet_mpi_neighbours(int *count) {
    handle neighbours = NULL;
    int status = mpi.split_type(mpi.world, TYPE_SHARED, 0, mpi.no_info, &neighbours);
    if (status) return status;
    status = mpi.size(neighbours, count);
    int freed = mpi.free(&neighbours);
    return status ? status : freed;
}

void monet_mpi_version(char *text, size_t capacity) {
    // MPI names no limit of its own for this text but a constant of its header, which is 256 in Open MPI.
    char own[VERSION_CAPACITY] = "";
    int length = 0;
    mpi.version(own, &length);
    snprintf(text, capacity, "%s", own);
}

int monet_mpi_send(const void *bytes, int count, int to, int tag, monet_mpi_request *request) {
    return mpi.send(bytes, count, mpi.byte, to, tag, mpi.world, request);
}

int monet_mpi_receive(void *bytes, int count, int from, int tag, monet_mpi_request *request) {
    return mpi.receive(bytes, count, mpi.byte, from, tag, mpi.world, request);
}

int monet_mpi_test(monet_mpi_request *request, int *done) {
    // A null status: MPI_STATUS_IGNORE.
    return mpi.test(request, done, NULL);
}

int monet_mpi_finalize(void) { return mpi.finalize(); }

void monet_mpi_abort(int code) { mpi.abort(mpi.world, code); }
