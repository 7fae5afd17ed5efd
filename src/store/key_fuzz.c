/* key_fuzz.c - any bytes as the text or the wire form of a key: what is accepted comes back the same. */
#include <stdlib.h>

#include "store/key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char name[MC_NAME_MAX], name_back[MC_NAME_MAX], text[KEY_TEXT_MAX];
    struct store_key key, back;
    const char *why;

    if (store_key_parse(slice_of(data, size), &key, name, &why) == MC_OK) {
        store_key_text(&key, text, sizeof(text));
        if (store_key_parse(slice_str(text), &back, name_back, &why) != MC_OK || !store_key_eq(&key, &back))
            abort();
    }
    struct cur cur = cur_of(data, size);
    store_key_get(&cur, &key, "key");
    if (cur_status(&cur) == MC_OK && key.kind == MC_KEY_NAMED && (key.name.len == 0 || key.name.len > MC_NAME_MAX))
        abort();
    return 0;
}
