/* http_once.h - one HTTP request and its answer, for calls that may wait. Over libevent's client, on an event base of the call's own.
 *
 * Threads: any. */
#ifndef COMPAT_ENGINE_HTTP_ONCE_H
#define COMPAT_ENGINE_HTTP_ONCE_H

#include "base/buf.h"
#include "net/addr.h"

enum http_once_method { HTTP_ONCE_GET, HTTP_ONCE_PUT, HTTP_ONCE_POST, HTTP_ONCE_DELETE };

#define HTTP_ONCE_ANSWER_MAX 65536

/* Ask `at` (numeric; `host` is what is sent as Host) for `target`, path and query, with a JSON body or NULL. MC_OK: *code is the
 * answer's, `answer` (initialised by the caller) has its body. MC_EPEERDOWN no answer within 5 s, MC_ENOMEM. */
enum mc_status http_once(const struct addr *at, const char *host, enum http_once_method method, const char *target,
    const char *body, int *code, struct buf *answer);

#endif
