/* loop_impl.h - inside src/net: helper threads that will post to the loop keep it alive. */
#ifndef NET_LOOP_IMPL_H
#define NET_LOOP_IMPL_H

struct loop;

/* Between the two, loop_destroy() waits. hold: loop's thread; unhold: any thread, as its last use of the loop. */
void loop_hold(struct loop *loop);
void loop_unhold(struct loop *loop);

#endif
