/* api.h - the HTTP face of the Conductor: its routes. Handlers find the Conductor as http_user(). */
#ifndef CONDUCTOR_HTTP_API_H
#define CONDUCTOR_HTTP_API_H

#include "net/http.h"

extern const struct http_route api_routes[];
extern const size_t api_route_count;

/* The page, put into the binary at build time (web/embed.py). */
extern const struct http_file web_files[];
extern const size_t web_file_count;

#endif
