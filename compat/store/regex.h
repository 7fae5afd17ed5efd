/* regex.h - regular expressions whose matching is linear in the text, whatever the expression.
 *
 * Callers of remove_by_regex() hand in text from who knows where, and every key of the cluster is held against it; an engine
 * that backtracks (the C++ library's, glibc's with back references) can be made to run for years. This one simulates all
 * states at once (Thompson): time is length of text times length of program.
 *
 * ECMAScript, as the existing Mooncake takes it: . [] [^] \d \w \s \b ^ $ | () (?:) * + ? {m,n} and their lazy forms (of
 * which only whether they match matters here), \xHH, \uHHHH up to 00FF, [[:alpha:]] and the other named classes. What cannot
 * be had in linear time is refused by name: back references and look-ahead. Bytes, not characters: a dot takes one byte.
 *
 * Pure. Threads: a compiled expression may be used by one thread at a time. */
#ifndef COMPAT_STORE_REGEX_H
#define COMPAT_STORE_REGEX_H

#include <stdbool.h>
#include <stddef.h>

struct regex;

/* NULL: *why says what is wrong with it (static text). */
struct regex *regex_create(const char *pattern, size_t len, const char **why);
void regex_destroy(struct regex *regex); /* NULL is allowed */

/* Is it found somewhere in the text? */
bool regex_found(struct regex *regex, const char *text, size_t len);

#endif
