/* request_impl.h - shared by request.c (states, events) and place.c (scheduling). */
#ifndef CONDUCTOR_REQUEST_IMPL_H
#define CONDUCTOR_REQUEST_IMPL_H

#include "conductor/request.h"

/* The one function that moves between states. */
void request_move(struct request *request, enum request_state next);

#define REQUEST_SILENT_MS                                                                                              \
    5000 /* a run on a suspect worker that has no stand-in is given up after so long: it may come back */

/* Answer with an error: HTTP `code` when nothing was sent yet, else an error event in the stream. The request is gone. */
void request_fail(struct request *request, int code, const char *err_code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with Retry-After. */
void request_refuse(struct request *request, double retry_after_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* (Back) into the queue, and try at once. The request may be gone afterwards. */
void request_queue(struct request *request);

/* Ask a worker for the prompt's tokens, or another one than those asked before; nobody is left: 503. */
void request_tokenise(struct request *request);

extern const struct fleet_call_ops request_run_ops;

#endif
