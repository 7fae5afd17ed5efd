/* vocab.c - see vocab.h. The search table is open addressing over token texts, tried from the longest down. */
#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "base/hash.h"
#include "engine/synthetic/vocab.h"
#include "engine/synthetic/words.h"

enum {
    ENGLISH = sizeof english_words / sizeof english_words[0],
    CHINESE = sizeof chinese_words / sizeof chinese_words[0],
    TOKENS = VOCAB_WORDS + ENGLISH + CHINESE,
    TEXT_MAX = 13, /* " " and a word of 12 letters; "<|im_start|>" is 12 */
    TABLE = 2048,  /* a power of two, at least 4 x the texts of more than a byte */
};

struct text {
    char bytes[TEXT_MAX + 1];
    uint8_t length;
};

/* Written once by build(), constant afterwards. */
static struct text texts[TOKENS];
static uint16_t table[TABLE]; /* token, 0 = empty (token 0 is a byte and never in the table) */
static pthread_once_t built = PTHREAD_ONCE_INIT;

static uint32_t slot_of(const char *text, size_t length)
{
    uint64_t h = length;

    for (size_t i = 0; i < length; i++)
        h = hash_mix(h * 31 + (unsigned char)text[i]);
    return (uint32_t)(h & (TABLE - 1));
}

static void add(uint32_t token, const char *text)
{
    size_t length = strlen(text);
    uint32_t slot = slot_of(text, length);

    assert(length <= TEXT_MAX);
    memcpy(texts[token].bytes, text, length);
    texts[token].length = (uint8_t)length;
    while (table[slot])
        slot = (slot + 1) & (TABLE - 1);
    table[slot] = (uint16_t)token;
}

static void build(void)
{
    char word[TEXT_MAX + 1] = " ";

    for (uint32_t byte = 0; byte < 256; byte++) {
        texts[byte].bytes[0] = (char)byte;
        texts[byte].length = 1;
    }
    add(VOCAB_BOS, "<|bos|>");
    add(VOCAB_EOS, "<|eos|>");
    add(VOCAB_IM_START, "<|im_start|>");
    add(VOCAB_IM_END, "<|im_end|>");
    add(VOCAB_STOP_EN, ".");
    add(VOCAB_STOP_ZH, "。");
    for (uint32_t i = 0; i < ENGLISH; i++) {
        strcpy(word + 1, english_words[i]);
        add(VOCAB_WORDS + i, word);
    }
    for (uint32_t i = 0; i < CHINESE; i++)
        add(VOCAB_WORDS + ENGLISH + i, chinese_words[i]);
}

void vocab_open(void)
{
    pthread_once(&built, build);
}

uint32_t vocab_size(void)
{
    return TOKENS;
}

uint32_t vocab_english(uint32_t *count)
{
    *count = ENGLISH;
    return VOCAB_WORDS;
}

uint32_t vocab_chinese(uint32_t *count)
{
    *count = CHINESE;
    return VOCAB_WORDS + ENGLISH;
}

const char *vocab_text(uint32_t token, size_t *length)
{
    assert(token < TOKENS);
    *length = texts[token].length;
    return texts[token].bytes;
}

bool vocab_is_control(uint32_t token)
{
    return token >= VOCAB_BOS && token <= VOCAB_IM_END;
}

/* The token whose text is exactly this, 0 for none. */
static uint32_t find(const char *text, size_t length)
{
    for (uint32_t slot = slot_of(text, length); table[slot]; slot = (slot + 1) & (TABLE - 1)) {
        const struct text *candidate = &texts[table[slot]];

        if (candidate->length == length && memcmp(candidate->bytes, text, length) == 0)
            return table[slot];
    }
    return 0;
}

uint32_t vocab_match(const char *text, size_t length, bool special, size_t *matched)
{
    unsigned char first = (unsigned char)text[0];

    /* only these begin a text of more than one byte, or are a word of one */
    if (first == ' ' || first == '.' || first == '<' || first >= 0xe2) {
        for (size_t n = length < TEXT_MAX ? length : TEXT_MAX; n >= 1; n--) {
            uint32_t token = find(text, n);

            if (token && (special || !vocab_is_control(token))) {
                *matched = n;
                return token;
            }
        }
    }
    *matched = 1;
    return first;
}
