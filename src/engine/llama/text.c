/* text.c - text to tokens and back, and the chat template: calls on the model's vocabulary, which never changes.
 * Threads: any. */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "engine/llama/llama_engine.h"

enum mc_status text_tokenize(const struct mc_engine *engine, const char *text, size_t length, uint32_t flags,
    uint32_t *tokens, size_t tokens_max, size_t *count)
{
    const struct llama_engine *llama = llama_of(engine);
    llama_token bos = llama_vocab_bos(llama->vocab);
    size_t lead = flags & MC_TOKENIZE_BOS && llama_vocab_get_add_bos(llama->vocab) && bos != LLAMA_TOKEN_NULL;
    size_t room = tokens_max > lead ? tokens_max - lead : 0;
    int32_t n;

    static_assert(sizeof(llama_token) == sizeof(uint32_t), "token ids are handed through");
    /* BOS is put in front by us: the library's add_special might append an end token as well */
    n = llama_tokenize(llama->vocab, text, (int32_t)length, (llama_token *)tokens + lead,
        (int32_t)(room < INT32_MAX ? room : INT32_MAX), false, flags & MC_TOKENIZE_SPECIAL);
    if (n == INT32_MIN)
        return MC_EINVAL;
    if (n < 0) {
        *count = (size_t)-n + lead;
        return MC_ETOOBIG;
    }
    if (lead > tokens_max) { /* n is 0: there was room for nothing */
        *count = (size_t)n + lead;
        return MC_ETOOBIG;
    }
    if (lead && n > 0 && tokens[lead] == (uint32_t)bos) {
        memmove(tokens, tokens + lead, (size_t)n * sizeof *tokens); /* the text (a chat template) has it already */
        lead = 0;
    } else if (lead) {
        tokens[0] = (uint32_t)bos;
    }
    *count = (size_t)n + lead;
    return MC_OK;
}

enum mc_status text_piece(
    const struct mc_engine *engine, uint32_t token, bool special, char *dst, size_t size, size_t *length)
{
    int32_t n = llama_token_to_piece(
        llama_of(engine)->vocab, (llama_token)token, dst, (int32_t)(size < INT32_MAX ? size : INT32_MAX), 0, special);

    if (n < 0)
        return MC_ETOOBIG;
    *length = (size_t)n;
    return MC_OK;
}

bool text_is_end(const struct mc_engine *engine, uint32_t token)
{
    return llama_vocab_is_eog(llama_of(engine)->vocab, (llama_token)token);
}

enum mc_status text_chat(const struct mc_engine *engine, const struct mc_chat_message *messages, size_t message_count,
    bool open_answer, char *dst, size_t size, size_t *length)
{
    const struct llama_engine *llama = llama_of(engine);
    struct llama_chat_message *list;
    int32_t n;

    if (!llama->chat_template)
        return MC_ENOSUP; /* and never NULL to the library, which would take ChatML */
    list = calloc(message_count, sizeof *list);
    if (!list)
        return MC_ENOMEM;
    for (size_t i = 0; i < message_count; i++)
        list[i] = (struct llama_chat_message){.role = messages[i].role, .content = messages[i].content};
    n = llama_chat_apply_template(
        llama->chat_template, list, message_count, open_answer, dst, (int32_t)(size < INT32_MAX ? size : INT32_MAX));
    free(list);
    if (n < 0)
        return MC_ESYS;
    *length = (size_t)n;
    return (size_t)n <= size ? MC_OK : MC_ETOOBIG;
}
