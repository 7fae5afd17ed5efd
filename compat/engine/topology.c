/* topology.c - which memory is near which network device, in the form of the existing Mooncake. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "compat/engine/ce.h"

#define NODES "/sys/devices/system/node"

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The numbers of this machine's memory nodes, sorted; one, numbered 0, where the kernel does not say. */
static int memory_nodes(int *nodes, int max)
{
    DIR *dir = opendir(NODES);
    int count = 0;

    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL && count < max;) {
        char *end;
        long number;

        if (strncmp(entry->d_name, "node", 4) != 0)
            continue;
        number = strtol(entry->d_name + 4, &end, 10);
        if (end != entry->d_name + 4 && *end == 0 && number >= 0 && number < 65536)
            nodes[count++] = (int)number;
    }
    if (dir)
        closedir(dir);
    if (count == 0)
        nodes[count++] = 0;
    qsort(nodes, (size_t)count, sizeof(nodes[0]), by_number);
    return count;
}

char *ce_topology(void)
{
    int nodes[256], count = memory_nodes(nodes, 256);
    struct buf text;
    size_t len;

    buf_init(&text, 1 << 16);
    buf_append_char(&text, '{');
    for (int i = 0; i < count; i++)
        buf_printf(&text, "%s\"cpu:%d\": [[], []]", i ? ", " : "", nodes[i]);
    buf_append_char(&text, '}');
    return buf_steal(&text, &len);
}
