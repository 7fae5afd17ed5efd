/* requantize.c - rewrite a GGUF model as Q8_0, once: `requantize IN OUT`.
 *
 * Prefill of Q8_0 is 2.2 times as fast as of the Q4_1 file the package holds (llama-engine.md). tools/fetch-engine builds and
 * runs this; it is no part of the service. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <llama.h>

static void on_log(enum ggml_log_level level, const char *text, void *arg)
{
    (void)arg;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

int main(int argc, char **argv)
{
    char folder[4096];
    Dl_info info;

    if (argc != 3) {
        fprintf(stderr, "usage: requantize IN.gguf OUT.gguf\n");
        return 2;
    }
    llama_log_set(on_log, NULL);
    ggml_log_set(on_log, NULL);
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
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = LLAMA_FTYPE_MOSTLY_Q8_0;
    params.allow_requantize = true;
    uint32_t rc = llama_model_quantize(argv[1], argv[2], &params);
    if (rc != 0)
        fprintf(stderr, "requantize: llama.cpp failed with %u\n", rc);
    return rc != 0;
}
