/* messages.c - names of message types. */
#include "net/messages.h"

const char *message_name(uint16_t type)
{
    switch (type) {
#define X(name, number, text)                                                                                          \
    case number: return text;
        MESSAGES_ALL(X)
#undef X
    default: return "unknown";
    }
}
