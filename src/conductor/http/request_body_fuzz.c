/* request_body_fuzz.c - any bytes as the body of a chat or a completion: a request whose texts may all be read, or an error with a
 * message. The first byte chooses the call. */
#include <stdlib.h>
#include <string.h>

#include "conductor/http/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads everything the struct points to, so that the sanitizers see what is not there. */
static size_t touch(const struct api_request *r)
{
    size_t sum = strlen(r->model) + strlen(r->salt) + (r->text ? strlen(r->text) : 0);

    for (uint32_t i = 0; i < r->message_count; i++)
        sum += strlen(r->messages[i].role) + strlen(r->messages[i].content);
    for (uint32_t i = 0; i < r->stop_count; i++)
        sum += strlen(r->stops[i]);
    for (uint32_t i = 0; i < r->token_count; i++)
        sum += r->tokens[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_request request;
    struct api_error error;

    if (size == 0)
        return 0;
    if (api_request_parse(data[0] & 1 ? API_CHAT : API_COMPLETION, slice_of(data + 1, size - 1), &request, &error) ==
        MC_OK) {
        if (touch(&request) == SIZE_MAX || mc_sampling_check(&request.sampling, UINT32_MAX))
            abort(); /* the parser let something through that the sampler refuses */
        api_request_fini(&request);
    } else if (!*error.message) {
        abort();
    }
    return 0;
}
