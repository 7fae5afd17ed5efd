/* http_client.c - a blocking HTTP client for tests, over libcurl. */
#include "http_client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct sink {
    struct buf headers, body;
    size_t leave_after;
};

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    buf_append(&((struct sink *)arg)->headers, data, size * count);
    return size * count;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct sink *sink = arg;

    buf_append(&sink->body, data, size * count);
    return sink->leave_after && sink->body.len >= sink->leave_after ? 0 : size * count;
}

struct http_answer http_ask(
    const char *address, const char *path, const char *body, const char *header, size_t leave_after)
{
    struct sink sink = {.leave_after = leave_after};
    struct http_answer answer = {0};
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    CURL *curl = curl_easy_init();
    char url[512];
    CURLcode result;

    buf_init(&sink.headers, 1 << 20);
    buf_init(&sink.body, 64 << 20);
    buf_append(&sink.headers, "", 0);
    snprintf(url, sizeof url, "http://%s%s", address, path);
    if (header)
        headers = curl_slist_append(headers, header);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &sink);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &sink);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 30000L);
    result = curl_easy_perform(curl);
    answer.cut = result != CURLE_OK;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.code);
    curl_easy_getinfo(curl, CURLINFO_TOTAL_TIME, &answer.seconds);
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    answer.body_len = sink.body.len;
    answer.headers = strdup(buf_cstr(&sink.headers));
    answer.body = strdup(buf_cstr(&sink.body));
    buf_fini(&sink.headers);
    buf_fini(&sink.body);
    return answer;
}

void http_answer_free(struct http_answer *answer)
{
    free(answer->headers);
    free(answer->body);
}
