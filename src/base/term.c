/* term.c - see term.h. */
#include "base/term.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool term_colour(int fd)
{
    const char *off = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(fd) && !(off && *off) && term && strcmp(term, "dumb") != 0;
}

int term_width(int fd)
{
    struct winsize size;

    return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}
