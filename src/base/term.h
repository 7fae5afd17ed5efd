/* term.h - what the terminal can do. Threads: any. */
#ifndef BASE_TERM_H
#define BASE_TERM_H

#include <stdbool.h>

/* A terminal that shows colours, and NO_COLOR is not set. */
bool term_colour(int fd);

/* Columns; 80 when it is no terminal or does not say. */
int term_width(int fd);

#endif
