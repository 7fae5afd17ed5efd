/* parse.h - the body of an OpenAI request as a struct. Pure: bytes in, struct or an error that names the field out.
 *
 * Every parameter is one of: read; known but not supported, accepted at the values that change nothing; unknown, refused.
 * So nothing a client asks for is silently left undone.
 * Threads: any. */
#ifndef CONDUCTOR_HTTP_PARSE_H
#define CONDUCTOR_HTTP_PARSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "mooncake/sampling.h"
#include "mooncake/status.h"
#include "worker/proto.h"

enum api_kind { API_CHAT, API_COMPLETION };

/* Texts are lent by `body`, until api_request_fini(). */
struct api_request {
    enum api_kind kind;
    const char *model;
    struct wmsg_chat *messages; /* API_CHAT */
    uint32_t message_count;
    const char *text; /* API_COMPLETION: the prompt, or NULL and */
    uint32_t *tokens; /* its tokens */
    uint32_t token_count;
    uint32_t max_tokens; /* 0: not given */
    bool stream, include_usage;
    bool cache_off;  /* from a header: compute without reading the cache */
    bool ignore_end; /* extension ignore_eos */
    bool has_seed;
    struct mc_sampling sampling; /* bias points below */
    struct mc_logit_bias bias[MC_LOGIT_BIAS_MAX];
    const char *stops[MC_STOP_STRINGS_MAX];
    uint32_t stop_count;
    const char *salt; /* extension cache_salt; "" if none */
    json_t *body;     /* owns the texts */
    json_t *made;     /* owns those that were put together from parts */
};

struct api_error {
    char param[64]; /* the field; "" when it is the body as a whole */
    char message[256];
};

/* MC_OK: end it with api_request_fini(). MC_EINVAL with *error filled, MC_ENOMEM: nothing to end. */
enum mc_status api_request_parse(
    enum api_kind kind, struct slice body, struct api_request *out, struct api_error *error);
void api_request_fini(struct api_request *request);

#endif
