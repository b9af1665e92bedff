/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Usage: ring
 *
 * Hands 4 MiB from rank to rank, each of which adds its number, and has rank 0 tell how many there were, what came back,
 * and which MPI library that was.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT (1 << 20)

int main(int argc, char **argv)
{
    int rank, size, length, *data = calloc(COUNT, sizeof *data);
    char version[MPI_MAX_LIBRARY_VERSION_STRING], line[4096];
    FILE *maps;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (rank > 0)
        MPI_Recv(data, COUNT, MPI_INT, rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    data[COUNT - 1] += rank + 1;
    if (size > 1)
        MPI_Send(data, COUNT, MPI_INT, (rank + 1) % size, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        if (size > 1)
            MPI_Recv(data, COUNT, MPI_INT, size - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Get_library_version(version, &length);
        printf("ranks: %d, sum: %d, %s", size, data[COUNT - 1], version);
        maps = fopen("/proc/self/maps", "r");
        while (maps && fgets(line, sizeof line, maps))
            if (strstr(line, "libmpi") && strstr(line, "r-xp"))
                printf("loaded: %s", strchr(line, '/'));
    }
    MPI_Finalize();
    return 0;
}
