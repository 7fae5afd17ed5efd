/* vocab.h - the synthetic engine's vocabulary: every byte, a few control tokens, some hundred words in two languages.
 *
 *   0..255   one byte each          VOCAB_BOS .. VOCAB_IM_END  control tokens
 *   VOCAB_STOP_EN ".", VOCAB_STOP_ZH "。"                      sentence ends
 *   english words, each with the space before it               chinese words of two characters
 *
 * Tokenising takes the longest match, so any bytes round-trip, and text made of whole words comes back as the same tokens:
 * a second turn of a chat hits the blocks of the first.
 * Threads: constant after the first vocab_open(); any. */
#ifndef SYNTHETIC_VOCAB_H
#define SYNTHETIC_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vocab_token {
    VOCAB_BOS = 256,
    VOCAB_EOS,
    VOCAB_IM_START,
    VOCAB_IM_END,
    VOCAB_STOP_EN,
    VOCAB_STOP_ZH,
    VOCAB_WORDS, /* first word */
};

/* Build the search table. Once per process; safe to call from several threads. */
void vocab_open(void);

uint32_t vocab_size(void);
uint32_t vocab_english(uint32_t *count); /* first token and number of the english words */
uint32_t vocab_chinese(uint32_t *count);

/* Text of a token, lent for ever; control tokens have their name ("<|im_start|>"). */
const char *vocab_text(uint32_t token, size_t *length);
bool vocab_is_control(uint32_t token);

/* Longest token that text begins with; `special`: control tokens count too. length >= 1. */
uint32_t vocab_match(const char *text, size_t length, bool special, size_t *matched);

#endif
