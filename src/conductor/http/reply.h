/* reply.h - what an answer looks like to an OpenAI client: chunks of a stream, or one body.
 *
 * The last chunk before [DONE], or the body, carries our object `mooncake`: route, workers, reused tokens, timing.
 * Status of a write as http_stream_write() says; MC_ECLOSED: the request may be gone.
 * Threads: the loop's only. */
#ifndef CONDUCTOR_HTTP_REPLY_H
#define CONDUCTOR_HTTP_REPLY_H

#include "conductor/request.h"

/* Head of a stream, and for a chat the chunk that names the role. Sets request->streaming. */
enum mc_status reply_stream_begin(struct request *request);

/* Chunks with the text that may be sent now, unless request->holding; what is not sent waits in request->pending. */
enum mc_status reply_text(struct request *request);

/* Finish reason, usage, [DONE]; the text has been sent. on_leave must have been taken off: the client may leave in the middle. */
void reply_stream_finish(struct request *request);

/* The same for an error in a stream that has begun. */
void reply_stream_error(struct request *request, const char *type, const char *code, const char *text);

/* The whole answer as one JSON body. */
void reply_body(struct request *request);

#endif
