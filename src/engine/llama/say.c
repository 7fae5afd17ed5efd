/* say.c - log lines of the plug-in and of the library: to the host, one line each.
 *
 * The library talks a lot while it loads, so its info is our debug, its errors are our warnings, and the last one is kept as
 * the reason that an open or an import gives. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/llama/llama_engine.h"

static const struct mc_engine_host *host; /* set once by the plug-in's entry */

void say_to(const struct mc_engine_host *given)
{
    host = given;
}

/* The library's last error line, for "its last words are in err". */
static pthread_mutex_t last_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_error[SAY_LINE_MAX]; /* guarded by last_lock */

void say(int level, const char *format, ...)
{
    char line[SAY_LINE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    host->log(level, line);
}

/* Decodes that were told to abort and have not returned: what the library says about it is no error. */
static int aborting; /* atomic, relaxed: a line too many or too few in the log */

/* Continued lines (progress dots) are dropped. */
void say_library(enum ggml_log_level level, const char *text, void *arg)
{
    char line[SAY_LINE_MAX];
    size_t length = strcspn(text, "\n");

    (void)arg;
    if (level == GGML_LOG_LEVEL_CONT || length == 0)
        return;
    snprintf(line, sizeof line, "llama.cpp: %.*s", (int)(length < 480 ? length : 480), text);
    if (level == GGML_LOG_LEVEL_ERROR && __atomic_load_n(&aborting, __ATOMIC_RELAXED))
        level = GGML_LOG_LEVEL_DEBUG;
    if (level == GGML_LOG_LEVEL_ERROR) {
        pthread_mutex_lock(&last_lock);
        memcpy(last_error, line, sizeof line);
        pthread_mutex_unlock(&last_lock);
    }
    host->log(level == GGML_LOG_LEVEL_ERROR ? SAY_WARN : SAY_DEBUG, line);
}

void say_last_error(char *line, size_t size)
{
    pthread_mutex_lock(&last_lock);
    snprintf(line, size, "%s", last_error[0] ? last_error : "llama.cpp gave no reason");
    last_error[0] = 0;
    pthread_mutex_unlock(&last_lock);
}

void say_aborting(bool begins)
{
    __atomic_add_fetch(&aborting, begins ? 1 : -1, __ATOMIC_RELAXED);
}
