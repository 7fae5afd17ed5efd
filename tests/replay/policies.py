"""policies - the eviction policies once more, written for being read, as an oracle. Each has used(prompt) and `there`."""
from collections import OrderedDict


class Lru:
    """Least recently used leaf; a block that others hang on goes after them."""

    def __init__(self, cap, _):
        self.cap, self.time, self.there, self.parent, self.children = cap, 0, {}, {}, {}

    def used(self, prompt):
        begin, parent = self.time, None
        for block in prompt:
            self.time += 1
            if block not in self.there:
                if len(self.there) == self.cap:
                    # Among leaves the order is that of their last use; what got its last child evicted since is older than all.
                    leaves = [b for b in self.there if not self.children[b]]
                    victim = min(leaves, key=self.there.get)
                    if self.there[victim] > begin:
                        return
                    self.drop(victim)
                self.parent[block], self.children[block] = parent, set()
                if parent is not None:
                    self.children[parent].add(block)
            self.there[block] = self.time
            parent = block

    def drop(self, block):
        del self.there[block]
        if self.parent[block] is not None and self.parent[block] in self.children:
            self.children[self.parent[block]].discard(block)
        del self.children[block]


class S3Fifo:
    def __init__(self, cap, _):
        self.cap, self.small_max = cap, max(1, cap // 10)
        self.small, self.main, self.ghosts = OrderedDict(), OrderedDict(), OrderedDict()

    @property
    def there(self):
        return self.small.keys() | self.main.keys()

    def used(self, prompt):
        for block in reversed(prompt):
            for queue in (self.small, self.main):
                if block in queue:
                    queue[block] = min(3, queue[block] + 1)
                    break
            else:
                if len(self.small) + len(self.main) == self.cap:
                    self.evict()
                if block in self.ghosts:
                    del self.ghosts[block]
                    self.main[block] = 0
                else:
                    self.small[block] = 0

    def evict(self):
        if len(self.small) >= self.small_max or not self.main:
            while self.small:
                block, count = self.small.popitem(last=False)
                if count == 0:
                    self.ghosts[block] = 0
                    while len(self.ghosts) > self.cap * 9 // 10:
                        self.ghosts.popitem(last=False)
                    return
                self.main[block] = 0
                if len(self.main) > self.cap - self.small_max:
                    break
        while True:
            block, count = self.main.popitem(last=False)
            if count == 0:
                return
            self.main[block] = count - 1


class Arc:
    def __init__(self, cap, _):
        self.cap, self.target = cap, 0
        self.t1, self.t2, self.b1, self.b2 = OrderedDict(), OrderedDict(), OrderedDict(), OrderedDict()

    @property
    def there(self):
        return self.t1.keys() | self.t2.keys()

    def used(self, prompt):
        for block in reversed(prompt):
            self.use(block)

    def use(self, block):
        t1, t2, b1, b2 = self.t1, self.t2, self.b1, self.b2
        if block in t1 or block in t2:
            (t1 if block in t1 else t2).pop(block)
        elif block in b1:
            self.target = min(self.cap, self.target + max(len(b2) // len(b1), 1))
            self.replace(False)
            del b1[block]
        elif block in b2:
            self.target = max(0, self.target - max(len(b1) // len(b2), 1))
            self.replace(True)
            del b2[block]
        else:
            if len(t1) + len(b1) >= self.cap:
                if len(t1) < self.cap:
                    b1.popitem(last=False)
                    self.replace(False)
                else:
                    t1.popitem(last=False)
            else:
                if len(t1) + len(t2) + len(b1) + len(b2) >= 2 * self.cap:
                    b2.popitem(last=False)
                self.replace(False)
            t1[block] = 0
            return
        t2[block] = 0

    def replace(self, from_b2):
        if len(self.t1) + len(self.t2) < self.cap:
            return
        first = self.t1 and (len(self.t1) > self.target or (from_b2 and len(self.t1) == self.target))
        source, ghosts = (self.t1, self.b1) if first or not self.t2 else (self.t2, self.b2)
        ghosts[source.popitem(last=False)[0]] = 0


class Opt:
    """Belady, the naive way: for each victim the rest of the trace is looked through."""

    def __init__(self, cap, prompts):
        self.cap, self.at, self.depth, self.there = cap, 0, {}, set()
        self.row = [block for prompt in prompts for block in prompt]

    def used(self, prompt):
        for depth, block in enumerate(prompt):
            self.depth[block] = depth
            if block not in self.there:
                if len(self.there) == self.cap:
                    victim = max(self.there, key=self.again)
                    if self.again(victim) <= self.again(block):
                        self.at += len(prompt) - depth
                        return
                    self.there.remove(victim)
                self.there.add(block)
            self.at += 1

    def again(self, block):
        try:
            return self.row.index(block, self.at + 1)
        except ValueError:
            return 10**9 + self.depth[block]


POLICIES = {"lru": Lru, "s3fifo": S3Fifo, "arc": Arc, "opt": Opt}


def hits(name, cap, requests):
    prompts = [request["hash_ids"] for request in requests]
    policy, count = POLICIES[name](cap, prompts), 0
    for prompt in prompts:
        there = policy.there
        for block in prompt:
            if block not in there:
                break
            count += 1
        policy.used(prompt)
    return count
