/* api.c - HTTP for the tools. See api.h. */
#include "cli/api.h"

#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define BODY_MAX  ((size_t)64 << 20)
#define EVENT_MAX ((size_t)1 << 20)

/* ---- server-sent events ---- */

void sse_init(struct sse *sse)
{
    memset(sse, 0, sizeof(*sse));
    buf_init(&sse->line, EVENT_MAX);
    buf_init(&sse->data, EVENT_MAX);
}

void sse_fini(struct sse *sse)
{
    buf_fini(&sse->line);
    buf_fini(&sse->data);
}

/* A whole line: an empty one ends the event, "data:" adds to it, everything else (comments, event names) is skipped. */
static void sse_line(struct sse *sse, api_event_fn *event, void *arg)
{
    const char *text = buf_cstr(&sse->line);
    size_t len = sse->line.len;

    if (len && text[len - 1] == '\r')
        len--;
    if (len == 0 && sse->data.len > 0) {
        sse->ended = !event(arg, buf_cstr(&sse->data), sse->data.len);
        buf_reset(&sse->data);
    } else if (len >= 5 && memcmp(text, "data:", 5) == 0) {
        size_t skip = len > 5 && text[5] == ' ' ? 6 : 5;
        if (sse->data.len > 0)
            buf_append_char(&sse->data, '\n');
        buf_append(&sse->data, text + skip, len - skip);
    }
    buf_reset(&sse->line);
}

bool sse_feed(struct sse *sse, const char *bytes, size_t len, api_event_fn *event, void *arg)
{
    while (len > 0 && !sse->ended) {
        const char *end = memchr(bytes, '\n', len);
        size_t part = end ? (size_t)(end - bytes) : len;
        buf_append(&sse->line, bytes, part);
        if (end)
            sse_line(sse, event, arg);
        part += end != NULL;
        bytes += part;
        len -= part;
        if (buf_status(&sse->line) != MC_OK || buf_status(&sse->data) != MC_OK)
            sse->ended = true;
    }
    return !sse->ended;
}

/* ---- one call ---- */

struct transfer {
    const struct api_call *call;
    struct api_reply *reply;
    CURL *curl;
    struct sse sse;
    bool left; /* the event callback had enough: no error */
};

static size_t on_body(char *bytes, size_t one, size_t len, void *arg)
{
    struct transfer *transfer = arg;
    long status = 0;

    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    if (!transfer->call->event || status != 200) {
        buf_append(&transfer->reply->body, bytes, one * len);
        return buf_status(&transfer->reply->body) == MC_OK ? one * len : 0;
    }
    if (sse_feed(&transfer->sse, bytes, one * len, transfer->call->event, transfer->call->arg))
        return one * len;
    transfer->left = true;
    return 0; /* libcurl ends the transfer */
}

/* Value of header `name` in `line`, cut to `size`. */
static void take_header(const char *line, size_t len, const char *name, char *out, size_t size)
{
    size_t name_len = strlen(name);

    if (len <= name_len || strncasecmp(line, name, name_len) != 0)
        return;
    line += name_len;
    len -= name_len;
    while (len && (*line == ' ' || *line == '\t')) {
        line++;
        len--;
    }
    while (len && (line[len - 1] == '\r' || line[len - 1] == '\n'))
        len--;
    snprintf(out, size, "%.*s", (int)len, line);
}

static size_t on_header(char *bytes, size_t one, size_t len, void *arg)
{
    struct api_reply *reply = ((struct transfer *)arg)->reply;

    take_header(bytes, one * len, "x-request-id:", reply->request_id, sizeof(reply->request_id));
    take_header(bytes, one * len, "date:", reply->date, sizeof(reply->date));
    return one * len;
}

/* {"error": {"message": "..."}} -> its message; else the status. */
static void explain_status(struct api_reply *reply)
{
    json_t *root = json_loadb(buf_cstr(&reply->body), reply->body.len, 0, NULL);
    const char *message = json_string_value(json_object_get(json_object_get(root, "error"), "message"));

    snprintf(
        reply->error, sizeof(reply->error), "HTTP %ld%s%s", reply->status, message ? ": " : "", message ? message : "");
    json_decref(root);
}

static void init_once(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static struct curl_slist *make_headers(const struct api_call *call)
{
    struct curl_slist *list = call->body ? curl_slist_append(NULL, "Content-Type: application/json") : NULL;

    for (const char *const *header = call->headers; header && *header; header++) {
        struct curl_slist *more = curl_slist_append(list, *header);
        list = more ? more : list;
    }
    return list;
}

void api_call(const struct api_call *call, struct api_reply *reply)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct transfer transfer = {.call = call, .reply = reply};
    uint32_t timeout_ms = call->timeout_ms ? call->timeout_ms : 5000;
    char where[1024], why[CURL_ERROR_SIZE] = "";

    memset(reply, 0, sizeof(*reply));
    buf_init(&reply->body, BODY_MAX);
    pthread_once(&once, init_once);
    transfer.curl = curl_easy_init();
    if (!transfer.curl) {
        snprintf(reply->error, sizeof(reply->error), "out of memory");
        return;
    }
    CURL *curl = transfer.curl;
    struct curl_slist *headers = make_headers(call);
    sse_init(&transfer.sse);
    snprintf(where, sizeof(where), "%s%s", call->url, call->path);
    curl_easy_setopt(curl, CURLOPT_URL, where);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "127.0.0.1,localhost,::1");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(timeout_ms < 5000 ? timeout_ms : 5000));
    if (call->event) {
        /* A long answer may take minutes; silence may not. */
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)((timeout_ms + 999) / 1000));
    } else {
        curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    }
    if (call->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call->body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)strlen(call->body));
    }

    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply->status);
    if (code != CURLE_OK && !transfer.left) {
        /* Broken off in the middle is no answer, whatever the status line promised. */
        reply->status = 0;
        snprintf(reply->error, sizeof(reply->error), "%s: %s", call->url, *why ? why : curl_easy_strerror(code));
    } else if (reply->status != 200) {
        explain_status(reply);
    }
    sse_fini(&transfer.sse);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
}

void api_reply_fini(struct api_reply *reply)
{
    buf_fini(&reply->body);
}
