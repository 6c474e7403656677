// Open MPI, loaded when it is first asked for: programs that use one process run without it.
//
// Only what passes bytes between processes is here. Calls are not synchronized: the caller makes one at a time.
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *monet_mpi_request;

// Loads the library; 0, or −1 with a message that says what was tried.
int monet_mpi_load(char *message, size_t capacity);

// Joins the job that this process was started in and gives its place; 0, or MPI's error.
int monet_mpi_init(int *rank, int *size);

// How many of the job's processes share this one's memory; all of them call this. 0, or MPI's error.
int monet_mpi_neighbours(int *count);

// The library's name and version.
void monet_mpi_version(char *text, size_t capacity);

// Begins to send or to receive `count` bytes, which stay valid until the request is done; 0, or MPI's error.
int monet_mpi_send(const void *bytes, int count, int to, int tag, monet_mpi_request *request);
int monet_mpi_receive(void *bytes, int count, int from, int tag, monet_mpi_request *request);

// Whether a request is done, which then is empty; 0, or MPI's error.
int monet_mpi_test(monet_mpi_request *request, int *done);

// Leaves the job, after all of its processes have called this.
int monet_mpi_finalize(void);

// Ends all processes of the job.
void monet_mpi_abort(int code);

#ifdef __cplusplus
}
#endif
