/* gguf.h - what gguf.c shares with gguf_model.c inside src/kvcache. */
#ifndef KVCACHE_GGUF_H
#define KVCACHE_GGUF_H

#include "mooncake/kvcache.h"

/* Is there a metadata key that contains `part`? */
bool gguf_any_key(const struct mc_gguf *gguf, const char *part);

#endif
