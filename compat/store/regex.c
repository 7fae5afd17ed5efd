/* regex.c - see regex.h.
 *
 * The expression becomes a program of at most PROGRAM_MAX instructions, written while it is parsed:
 *
 *     set N         take one byte that is in set N
 *     split A B     go on at both
 *     jump A
 *     begin, end, word, no word    go on if the place in the text is such a one
 *     match
 *
 * A piece with a quantifier is parsed once and then written as often as it says, by copying its instructions (whose targets are
 * relative). Matching keeps the list of instructions it may be at, each at most once per place in the text. */
#include "compat/store/regex.h"

#include <ctype.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PROGRAM_MAX = 20000, SETS_MAX = 2000, REPEAT_MAX = 1000, DEPTH_MAX = 100 };

enum op { OP_SET, OP_SPLIT, OP_JUMP, OP_BEGIN, OP_END, OP_WORD, OP_NO_WORD, OP_MATCH };

struct instruction {
    enum op op;
    int a, b; /* set: its number; split and jump: targets, relative */
};

struct set {
    uint8_t bits[32];
};

struct regex {
    struct instruction *program;
    int length;
    struct set *sets;
    int set_count;
    int *now, *next, *stack; /* lists of places in the program */
    uint32_t *seen;          /* the step in which a place was put into a list */
    uint32_t step;
};

struct parser {
    struct regex *regex;
    const uint8_t *at, *end;
    const char *why;
    int depth;
};

/* ---- sets ---- */

static void set_add(struct set *set, int from, int to)
{
    for (int c = from; c <= to; c++)
        set->bits[c >> 3] |= (uint8_t)(1 << (c & 7));
}

static bool set_has(const struct set *set, uint8_t c)
{
    return set->bits[c >> 3] >> (c & 7) & 1;
}

static void set_invert(struct set *set)
{
    for (int i = 0; i < 32; i++)
        set->bits[i] = (uint8_t)~set->bits[i];
}

static bool is_word(uint8_t c)
{
    return c == '_' || (c < 128 && isalnum(c));
}

/* \d \w \s and their opposites. */
static bool set_add_class(struct set *set, uint8_t letter)
{
    struct set more = {{0}};

    switch (tolower(letter)) {
    case 'd': set_add(&more, '0', '9'); break;
    case 's':
        set_add(&more, '\t', '\r');
        set_add(&more, ' ', ' ');
        break;
    case 'w':
        set_add(&more, '0', '9');
        set_add(&more, 'A', 'Z');
        set_add(&more, 'a', 'z');
        set_add(&more, '_', '_');
        break;
    default: return false;
    }
    if (isupper(letter))
        set_invert(&more);
    for (int i = 0; i < 32; i++)
        set->bits[i] |= more.bits[i];
    return true;
}

static bool set_add_named(struct set *set, const uint8_t *name, size_t len)
{
    static const struct {
        const char *name;
        int (*is)(int c);
    } classes[] = {{"alnum", isalnum}, {"alpha", isalpha}, {"blank", isblank}, {"cntrl", iscntrl}, {"digit", isdigit},
        {"graph", isgraph}, {"lower", islower}, {"print", isprint}, {"punct", ispunct}, {"space", isspace},
        {"upper", isupper}, {"xdigit", isxdigit}};

    for (size_t i = 0; i < sizeof(classes) / sizeof(*classes); i++) {
        if (strlen(classes[i].name) != len || memcmp(classes[i].name, name, len) != 0)
            continue;
        for (int c = 0; c < 128; c++)
            if (classes[i].is(c))
                set_add(set, c, c);
        return true;
    }
    return false;
}

/* ---- writing the program ---- */

static bool fail(struct parser *p, const char *why)
{
    if (!p->why)
        p->why = why;
    return false;
}

static bool emit(struct parser *p, enum op op, int a, int b)
{
    struct regex *regex = p->regex;

    if (regex->length == PROGRAM_MAX)
        return fail(p, "it is too long");
    regex->program[regex->length++] = (struct instruction){op, a, b};
    return true;
}

static bool emit_set(struct parser *p, const struct set *set)
{
    struct regex *regex = p->regex;

    if (regex->set_count == SETS_MAX)
        return fail(p, "it is too long");
    regex->sets[regex->set_count] = *set;
    return emit(p, OP_SET, regex->set_count++, 0);
}

static bool emit_byte(struct parser *p, uint8_t c)
{
    struct set set = {{0}};

    set_add(&set, c, c);
    return emit_set(p, &set);
}

/* Make room for one instruction at `at`: what comes behind moves by one, and its relative targets with it. */
static bool insert(struct parser *p, int at, enum op op, int a, int b)
{
    struct regex *regex = p->regex;

    if (!emit(p, op, a, b))
        return false;
    memmove(&regex->program[at + 1], &regex->program[at], (size_t)(regex->length - 1 - at) * sizeof(*regex->program));
    regex->program[at] = (struct instruction){op, a, b};
    return true;
}

static bool copy(struct parser *p, const struct instruction *piece, int len)
{
    for (int i = 0; i < len; i++)
        if (!emit(p, piece[i].op, piece[i].a, piece[i].b))
            return false;
    return true;
}

/* The piece from `start` on, `min` to `max` times (max -1: any number). */
static bool repeat(struct parser *p, int start, int min, int max)
{
    struct regex *regex = p->regex;
    int len = regex->length - start;
    struct instruction *piece = malloc((size_t)(len + 1) * sizeof(*piece));
    bool ok = piece || fail(p, "no memory");

    if (ok)
        memcpy(piece, &regex->program[start], (size_t)len * sizeof(*piece));
    regex->length = start;
    for (int i = 0; ok && i < min; i++)
        ok = copy(p, piece, len);
    if (ok && max < 0) /* split past the loop | piece | jump back */
        ok = emit(p, OP_SPLIT, 1, len + 2) && copy(p, piece, len) && emit(p, OP_JUMP, -(len + 1), 0);
    for (int i = min; ok && i < max;
         i++) /* each optional one leads past itself into the next, which may be passed too */
        ok = emit(p, OP_SPLIT, 1, len + 1) && copy(p, piece, len);
    free(piece);
    return ok;
}

/* ---- parsing ---- */

static bool alternatives(struct parser *p);

static bool looking_at(const struct parser *p, const char *text)
{
    size_t len = strlen(text);

    return (size_t)(p->end - p->at) >= len && memcmp(p->at, text, len) == 0;
}

static bool hex(struct parser *p, int digits, int *value)
{
    *value = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        if (p->at == p->end || !isxdigit(*p->at))
            return fail(p, "hexadecimal digits are missing");
        *value = *value * 16 + (isdigit(*p->at) ? *p->at - '0' : tolower(*p->at) - 'a' + 10);
    }
    return *value <= 255 || fail(p, "a character above 00FF");
}

/* Behind the backslash: one byte. Classes were looked at before. */
static bool escaped_byte(struct parser *p, int *c)
{
    static const char letters[] = "tnvfr0", bytes[] = "\t\n\v\f\r\0";
    const char *letter;

    if (p->at == p->end)
        return fail(p, "a backslash at the end");
    *c = *p->at++;
    letter = *c ? strchr(letters, *c) : NULL;
    if (letter && *letter)
        *c = (uint8_t)bytes[letter - letters];
    else if (*c == 'x')
        return hex(p, 2, c);
    else if (*c == 'u')
        return hex(p, 4, c);
    else if (*c == 'c' && p->at < p->end && isalpha(*p->at))
        *c = *p->at++ & 31;
    else if (isdigit(*c))
        return fail(p, "back references cannot be matched in linear time");
    else if (isalpha(*c))
        return fail(p, "no such escape");
    return true;
}

/* One end of a range in []; *whole: it was a class, and is in the set already. */
static bool set_item(struct parser *p, struct set *set, int *c, bool *whole)
{
    *whole = false;
    if (looking_at(p, "[:")) {
        const uint8_t *name = p->at + 2, *close = name;

        while (close < p->end && *close != ':')
            close++;
        if (close == p->end || close + 1 == p->end || close[1] != ']' ||
            !set_add_named(set, name, (size_t)(close - name)))
            return fail(p, "no such named class");
        p->at = close + 2;
        *whole = true;
        return true;
    }
    *c = *p->at++;
    if (*c != '\\')
        return true;
    if (p->at < p->end && set_add_class(set, *p->at)) {
        p->at++;
        *whole = true;
        return true;
    }
    if (p->at < p->end && *p->at == 'b') {
        p->at++;
        *c = '\b';
        return true;
    }
    return escaped_byte(p, c);
}

/* Behind the opening bracket. */
static bool bracket(struct parser *p)
{
    struct set set = {{0}};
    bool invert = looking_at(p, "^"), whole;

    p->at += invert;
    while (p->at < p->end && *p->at != ']') {
        int from, to;

        if (!set_item(p, &set, &from, &whole))
            return false;
        if (whole)
            continue;
        to = from;
        if (p->end - p->at >= 2 && p->at[0] == '-' && p->at[1] != ']') {
            p->at++;
            if (!set_item(p, &set, &to, &whole))
                return false;
            if (whole || to < from)
                return fail(p, "a range that is none");
        }
        set_add(&set, from, to);
    }
    if (p->at == p->end)
        return fail(p, "] is missing");
    p->at++;
    if (invert)
        set_invert(&set);
    return emit_set(p, &set);
}

static bool group(struct parser *p)
{
    if (looking_at(p, "?:"))
        p->at += 2;
    else if (looking_at(p, "?"))
        return fail(p, "look-ahead cannot be matched in linear time");
    if (++p->depth > DEPTH_MAX)
        return fail(p, "too many groups in each other");
    if (!alternatives(p))
        return false;
    p->depth--;
    if (!looking_at(p, ")"))
        return fail(p, ") is missing");
    p->at++;
    return true;
}

static bool escape(struct parser *p)
{
    struct set set = {{0}};
    int c;

    if (p->at < p->end && (*p->at == 'b' || *p->at == 'B'))
        return emit(p, *p->at++ == 'b' ? OP_WORD : OP_NO_WORD, 0, 0);
    if (p->at < p->end && set_add_class(&set, *p->at)) {
        p->at++;
        return emit_set(p, &set);
    }
    return escaped_byte(p, &c) && emit_byte(p, (uint8_t)c);
}

static bool atom(struct parser *p)
{
    struct set any = {{0}};
    uint8_t c = *p->at++;

    switch (c) {
    case '(': return group(p);
    case '[': return bracket(p);
    case '\\': return escape(p);
    case '^': return emit(p, OP_BEGIN, 0, 0);
    case '$': return emit(p, OP_END, 0, 0);
    case '.':
        set_add(&any, '\n', '\n');
        set_add(&any, '\r', '\r');
        set_invert(&any);
        return emit_set(p, &any);
    case '*':
    case '+':
    case '?':
    case '{': return fail(p, "a quantifier with nothing before it");
    default: return emit_byte(p, c);
    }
}

static bool number(struct parser *p, int *value)
{
    if (p->at == p->end || !isdigit(*p->at))
        return false;
    for (*value = 0; p->at < p->end && isdigit(*p->at); p->at++)
        *value = *value <= REPEAT_MAX ? *value * 10 + *p->at - '0' : *value;
    return *value <= REPEAT_MAX || fail(p, "repeated more than 1000 times");
}

static bool quantifier(struct parser *p, int start)
{
    int min = 0, max = -1;

    if (p->at == p->end || !strchr("*+?{", *p->at) || !*p->at)
        return true;
    switch (*p->at++) {
    case '+': min = 1; break;
    case '?': max = 1; break;
    case '{':
        if (!number(p, &min))
            return fail(p, "{ without a number");
        max = min;
        if (looking_at(p, ",")) {
            p->at++;
            max = -1;
            if (!looking_at(p, "}") && !number(p, &max))
                return fail(p, "{ that is not closed");
        }
        if (!looking_at(p, "}") || (max >= 0 && max < min))
            return fail(p, "{ that is not closed, or its numbers in the wrong order");
        p->at++;
        break;
    default: break;
    }
    if (looking_at(p, "?")) /* lazy: which match is found first does not matter here */
        p->at++;
    return repeat(p, start, min, max);
}

static bool sequence(struct parser *p)
{
    while (p->at < p->end && *p->at != '|' && *p->at != ')') {
        int start = p->regex->length;

        if (!atom(p) || !quantifier(p, start))
            return false;
    }
    return true;
}

/* split | first | jump past | second ...: nested to the right. */
static bool alternatives(struct parser *p)
{
    int start = p->regex->length;

    if (!sequence(p))
        return false;
    while (looking_at(p, "|")) {
        int first = p->regex->length - start, second;

        p->at++;
        if (!insert(p, start, OP_SPLIT, 1, first + 2) || !emit(p, OP_JUMP, 0, 0))
            return false;
        second = p->regex->length;
        if (!sequence(p))
            return false;
        p->regex->program[second - 1].a = p->regex->length - second + 1;
    }
    return true;
}

/* ---- life ---- */

static struct regex *regex_alloc(void)
{
    struct regex *regex = calloc(1, sizeof(*regex));

    if (!regex)
        return NULL;
    regex->program = malloc((PROGRAM_MAX + 1) * sizeof(*regex->program));
    regex->sets = malloc(SETS_MAX * sizeof(*regex->sets));
    if (!regex->program || !regex->sets) {
        regex_destroy(regex);
        return NULL;
    }
    return regex;
}

struct regex *regex_create(const char *pattern, size_t len, const char **why)
{
    struct regex *regex = regex_alloc();
    struct parser p = {.regex = regex, .at = (const uint8_t *)pattern, .end = (const uint8_t *)pattern + len};
    size_t n;

    *why = "no memory";
    if (!regex)
        return NULL;
    if (!alternatives(&p) || (p.at < p.end && !fail(&p, ") without ("))) {
        *why = p.why;
        regex_destroy(regex);
        return NULL;
    }
    regex->program[regex->length++] = (struct instruction){OP_MATCH, 0, 0};
    n = (size_t)regex->length;
    regex->now = malloc(n * sizeof(int));
    regex->next = malloc(n * sizeof(int));
    regex->stack = malloc((2 * n + 2) * sizeof(int));
    regex->seen = calloc(n, sizeof(*regex->seen));
    if (!regex->now || !regex->next || !regex->stack || !regex->seen) {
        regex_destroy(regex);
        return NULL;
    }
    return regex;
}

void regex_destroy(struct regex *regex)
{
    if (!regex)
        return;
    free(regex->program);
    free(regex->sets);
    free(regex->now);
    free(regex->next);
    free(regex->stack);
    free(regex->seen);
    free(regex);
}

/* ---- matching ---- */

struct place {
    const uint8_t *text;
    size_t at, len;
};

static bool holds(enum op op, const struct place *place)
{
    bool before = place->at > 0 && is_word(place->text[place->at - 1]);
    bool behind = place->at < place->len && is_word(place->text[place->at]);

    switch (op) {
    case OP_BEGIN: return place->at == 0;
    case OP_END: return place->at == place->len;
    case OP_WORD: return before != behind;
    default: return before == behind;
    }
}

/* Everything that can be reached from `start` without a byte goes into the list. True: that includes the end. */
static bool follow(struct regex *regex, int start, const struct place *place, int *list, int *count)
{
    int depth = 0;

    regex->stack[depth++] = start;
    while (depth > 0) {
        int pc = regex->stack[--depth];
        const struct instruction *i = &regex->program[pc];

        if (regex->seen[pc] == regex->step)
            continue;
        regex->seen[pc] = regex->step;
        switch (i->op) {
        case OP_SET: list[(*count)++] = pc; break;
        case OP_SPLIT:
            regex->stack[depth++] = pc + i->b;
            regex->stack[depth++] = pc + i->a;
            break;
        case OP_JUMP: regex->stack[depth++] = pc + i->a; break;
        case OP_MATCH: return true;
        default:
            if (holds(i->op, place))
                regex->stack[depth++] = pc + 1;
        }
    }
    return false;
}

static void next_step(struct regex *regex)
{
    if (++regex->step == 0) { /* gone round: what was seen so long ago must not look like now */
        memset(regex->seen, 0, (size_t)regex->length * sizeof(*regex->seen));
        regex->step = 1;
    }
}

bool regex_found(struct regex *regex, const char *text, size_t len)
{
    struct place place = {.text = (const uint8_t *)text, .len = len};
    int count = 0;

    next_step(regex);
    for (;; place.at++) {
        int next_count = 0, *swap;

        if (follow(regex, 0, &place, regex->now, &count)) /* it may begin at any place */
            return true;
        if (place.at == len)
            return false;
        next_step(regex);
        struct place behind = {place.text, place.at + 1, len};
        for (int i = 0; i < count; i++) {
            int pc = regex->now[i];

            if (set_has(&regex->sets[regex->program[pc].a], place.text[place.at]) &&
                follow(regex, pc + 1, &behind, regex->next, &next_count))
                return true;
        }
        swap = regex->now;
        regex->now = regex->next;
        regex->next = swap;
        count = next_count;
    }
}
