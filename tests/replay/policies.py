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


class Density:
    """Ours: classes by uses of a block and of what it hangs on; the tail (a leaf) of least learned hits per time to come goes."""
    AGES = 48

    def __init__(self, cap, _):
        self.cap, self.time, self.learn_at = cap, 0, 0
        self.there, self.ghosts = {}, OrderedDict()  # id -> {used, uses, cls, parent, children}; id -> (used, uses, cls)
        self.queues = [OrderedDict() for _ in range(16)]  # oldest first
        self.edge = [1, 2**0.5]
        for age in range(2, self.AGES + 1):
            self.edge.append(2 * self.edge[age - 2])
        self.hits, self.ends = ([[0.0] * self.AGES for _ in range(16)] for _ in range(2))
        self.density = [[1 / self.edge[age] for age in range(self.AGES)] for _ in range(16)]

    def bucket(self, age):
        power = (age + 1).bit_length() - 1
        return min(self.AGES - 1, 2 * power + ((age + 1) ** 2 >= 2 ** (2 * power + 1)))

    def learn(self, now):
        every = max(2000, self.cap // 2)
        self.learn_at = self.learn_at or now + every
        if now < self.learn_at:
            return
        self.learn_at = now + every
        for hits_of, ends_of, density in zip(self.hits, self.ends, self.density):
            hits = events = waited = 0.0
            for age in range(self.AGES - 1, -1, -1):
                width, here = self.edge[age + 1] - self.edge[age], hits_of[age] + ends_of[age]
                waited += events * width + here * width / 2
                hits += hits_of[age]
                events += here
                if events > 0:
                    density[age] = (hits + 0.01) / (waited + 0.01 * self.cap)
                else:
                    density[age] = density[age + 1] if age + 1 < self.AGES else 0
                hits_of[age] *= 0.9
                ends_of[age] *= 0.9

    def used(self, prompt):
        begin, parent = self.time, None
        self.time += len(prompt)
        for depth, block in enumerate(prompt):
            now = begin + depth
            if block in self.there:
                self.learn(now)
                b = self.there[block]
                self.hits[b["cls"]][self.bucket(now - b["used"])] += 1
                self.queues[b["cls"]].pop(block, None)
                b["used"], b["uses"] = now, min(3, b["uses"] + 1)
            else:
                if len(self.there) == self.cap and not self.evict(begin, now):
                    return
                self.learn(now)
                uses = 0
                if block in self.ghosts:
                    used, uses, cls = self.ghosts.pop(block)
                    self.hits[cls][self.bucket(now - used)] += 1
                    uses = min(3, uses + 1)
                b = self.there[block] = {"used": now, "uses": uses, "parent": parent, "children": 0}
                if parent is not None:
                    self.there[parent]["children"] += 1
            up = b["parent"]
            b["cls"] = b["uses"] * 4 + (self.there[up]["uses"] if up is not None else 0)
            self.queues[b["cls"]][block] = True
            parent = block

    def evict(self, begin, now):
        best = None
        for cls, queue in enumerate(self.queues):
            while queue and self.there[next(iter(queue))]["children"]:
                queue.popitem(last=False)
            if not queue:
                continue
            block = next(iter(queue))
            if self.there[block]["used"] >= begin:
                continue
            density = self.density[cls][self.bucket(now - self.there[block]["used"])]
            if best is None or density < best[0]:
                best = density, block
        if best is None:
            return False
        block = best[1]
        b = self.there.pop(block)
        del self.queues[b["cls"]][block]
        self.ghosts[block] = b["used"], b["uses"], b["cls"]
        if len(self.ghosts) > 4 * self.cap:
            _, (used, _, cls) = self.ghosts.popitem(last=False)
            self.ends[cls][self.bucket(now - used)] += 1
        if b["parent"] is not None:
            up = self.there[b["parent"]]
            up["children"] -= 1
            if up["children"] == 0 and b["parent"] not in self.queues[up["cls"]]:
                self.queues[up["cls"]][b["parent"]] = True
                self.queues[up["cls"]].move_to_end(b["parent"], last=False)
        return True


POLICIES = {"lru": Lru, "mooncake": Density, "s3fifo": S3Fifo, "arc": Arc, "opt": Opt}


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
