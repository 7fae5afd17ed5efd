/* errtext.h - one sentence of explanation into a caller's optional buffer. Inside src/kvcache and src/engine only. */
#ifndef KVCACHE_ERRTEXT_H
#define KVCACHE_ERRTEXT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* Format into err (may be NULL), cut to fit, always terminated. */
static inline void errtext(char *err, size_t err_size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static inline void errtext(char *err, size_t err_size, const char *format, ...)
{
    va_list args;

    if (!err || err_size == 0)
        return;
    va_start(args, format);
    vsnprintf(err, err_size, format, args);
    va_end(args);
}

#endif
