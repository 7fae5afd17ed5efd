/* api.h - the tools' side of HTTP: one request, or a stream of server-sent events. Over libcurl.
 *
 *     struct api_reply reply;
 *     api_call(&(struct api_call){.url = url, .path = "/healthz", .timeout_ms = 5000}, &reply);
 *     if (reply.status == 200) ...
 *     api_reply_fini(&reply);
 *
 * Threads: any; each call blocks its own thread until answered, failed or timed out. */
#ifndef CLI_API_H
#define CLI_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* `data` of one event, NUL-terminated, lent for the call. False ends the stream. */
typedef bool api_event_fn(void *arg, const char *data, size_t len);

struct api_call {
    const char *url;            /* "http://127.0.0.1:7480" */
    const char *path;           /* "/v1/models" */
    const char *body;           /* JSON: POST; NULL: GET */
    const char *const *headers; /* "Name: value", ended by NULL; may be NULL */
    uint32_t timeout_ms;        /* without a byte coming; 0: 5000 */
    api_event_fn *event;        /* not NULL: a 200 answer is a stream of events */
    void *arg;
};

struct api_reply {
    long status; /* HTTP status; 0: nobody answered, `error` says why */
    struct buf body;
    char request_id[128]; /* x-request-id of the answer */
    char date[64];        /* date of the answer */
    char error[256]; /* one sentence for the user when status is not 200, from the error object where there is one */
};

void api_call(const struct api_call *call, struct api_reply *reply);
void api_reply_fini(struct api_reply *reply);

/* --- server-sent events, byte by byte; for api.c and its test --- */

struct sse {
    struct buf line, data;
    bool ended; /* the callback, or a limit, ended it */
};

/* Lines and events up to 1 MiB each. */
void sse_init(struct sse *sse);
void sse_fini(struct sse *sse);
/* Feed what arrived; calls `event` for each whole event. False: ended. */
bool sse_feed(struct sse *sse, const char *bytes, size_t len, api_event_fn *event, void *arg);

#endif
