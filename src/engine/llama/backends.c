/* backends.c - registers the library's plug-ins; used by the engine and by requantize. */
#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include <llama.h>

#include "engine/llama/backends.h"

void llama_load_backends(void)
{
    char folder[PATH_MAX];
    Dl_info info;

    if (dladdr((void *)(uintptr_t)llama_backend_init, &info) && info.dli_fname &&
        strlen(info.dli_fname) < sizeof folder) {
        strcpy(folder, info.dli_fname);
        char *slash = strrchr(folder, '/');
        if (slash) {
            *slash = 0;
            ggml_backend_load_all_from_path(folder);
        }
    }
    llama_backend_init();
}
