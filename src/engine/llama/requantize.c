/* requantize.c - rewrite a GGUF model as Q8_0, once: `requantize IN OUT`.
 *
 * Prefill of Q8_0 is 2.2 times as fast as of the Q4_1 file the package holds (README.md). tools/fetch-engine builds and
 * runs this; it is no part of the service. */
#include <stdint.h>
#include <stdio.h>

#include <llama.h>

#include "engine/llama/backends.h"

static void on_log(enum ggml_log_level level, const char *text, void *arg)
{
    (void)arg;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: requantize IN.gguf OUT.gguf\n");
        return 2;
    }
    llama_log_set(on_log, NULL);
    ggml_log_set(on_log, NULL);
    llama_load_backends();
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = LLAMA_FTYPE_MOSTLY_Q8_0;
    params.allow_requantize = true;
    uint32_t rc = llama_model_quantize(argv[1], argv[2], &params);
    if (rc != 0)
        fprintf(stderr, "requantize: llama.cpp failed with %u\n", rc);
    return rc != 0;
}
