/* http_route.c - which handler serves a path. Segments are compared before they are decoded, so that an encoded slash (%2F) in a
 * parameter does not open a new segment. Pure, but for the memory of decoded parameters. */
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/http_impl.h"

void http_params_free(struct http_req *req)
{
    for (size_t i = 0; i < req->param_count; i++)
        free(req->params[i].value);
    req->param_count = 0;
}

static bool param_add(struct http_req *req, const char *name, size_t name_len, const char *raw, size_t raw_len)
{
    char *copy, *value;
    size_t len;

    if (req->param_count == HTTP_PARAMS_MAX)
        return false;
    copy = strndup(raw, raw_len);
    value = copy ? evhttp_uridecode(copy, 0, &len) : NULL;
    free(copy);
    if (!value)
        return false;
    if (strlen(value) != len) { /* an encoded NUL */
        free(value);
        return false;
    }
    req->params[req->param_count++] = (struct http_param){name, name_len, value};
    return true;
}

/* {name} takes one segment that is not empty, a last {name...} takes the rest of the path. */
static bool match(const char *pattern, const char *path, struct http_req *req)
{
    while (*pattern && *path) {
        const char *close;
        size_t len;

        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        close = strchr(pattern, '}');
        if (!close)
            return false;
        len = strcspn(path, "/");
        if (close - pattern > 4 && memcmp(close - 3, "...", 3) == 0)
            return param_add(req, pattern + 1, (size_t)(close - pattern) - 4, path, strlen(path));
        if (len == 0 || !param_add(req, pattern + 1, (size_t)(close - pattern) - 1, path, len))
            return false;
        path += len;
        pattern = close + 1;
    }
    return !*pattern && !*path;
}

bool http_method_serves(const char *route, const char *method)
{
    return strcmp(route, method) == 0 || (strcmp(route, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

const struct http_route *http_route_find(const struct http_server *server, const char *method, const char *path,
    struct http_req *req, char *allow, size_t allow_size)
{
    size_t used = 0;

    allow[0] = 0;
    for (size_t i = 0; i < server->opts.route_count; i++) {
        const struct http_route *route = &server->opts.routes[i];
        int n;

        http_params_free(req);
        if (!match(route->pattern, path, req))
            continue;
        if (http_method_serves(route->method, method))
            return route;
        n = snprintf(allow + used, allow_size - used, "%s%s", used ? ", " : "", route->method);
        used += n > 0 && (size_t)n < allow_size - used ? (size_t)n : 0;
    }
    http_params_free(req);
    return NULL;
}

const struct http_file *http_file_find(const struct http_server *server, const char *path)
{
    for (size_t i = 0; i < server->opts.file_count; i++)
        if (strcmp(server->opts.files[i].path, path) == 0)
            return &server->opts.files[i];
    return NULL;
}
