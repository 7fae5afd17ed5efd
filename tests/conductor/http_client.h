/* http_client.h - a blocking HTTP client for tests, over libcurl. */
#ifndef TESTS_CONDUCTOR_HTTP_CLIENT_H
#define TESTS_CONDUCTOR_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

struct http_answer {
    long code;     /* 0: no answer */
    char *headers; /* as they came, lower-case names where the server sends them so */
    char *body;
    size_t body_len;
    double seconds;
    bool cut; /* the connection ended before the answer did */
};

/* body NULL: GET. header may be NULL. leave_after: hang up after so many bytes of the body; 0: never. */
struct http_answer http_ask(
    const char *address, const char *path, const char *body, const char *header, size_t leave_after);
void http_answer_free(struct http_answer *answer);

#endif
