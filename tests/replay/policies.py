"""policies - the eviction policies once more, written for being read, as an oracle. Each has used(prompt) and `there`."""
import math
from collections import OrderedDict


class Lru:
    """Least recently used leaf; a block that others hang on goes after them."""

    def __init__(self, cap, _):
        self.cap, self.time, self.there, self.parent, self.children = cap, 0, {}, {}, {}

    def used(self, prompt):
        begin, parent, self.gone = self.time, None, []
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
        self.gone.append(block)
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
        self.gone = []
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
                    self.gone.append(block)
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
                self.gone.append(block)
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
        self.gone = []
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
                    self.gone.append(t1.popitem(last=False)[0])
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
        block = source.popitem(last=False)[0]
        self.gone.append(block)
        ghosts[block] = 0


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
    """A life table for each class of blocks, by uses of a block and of what it hangs on; the tail (a leaf) of least density goes."""
    AGES = 48

    def __init__(self, cap, _):
        self.cap, self.clock, self.learned, self.gone = cap, 0, 0, []
        self.there, self.ghosts = {}, OrderedDict()  # id -> {used, uses, cls, parent, children}; id -> (used, cls)
        self.queues = [OrderedDict() for _ in range(16)]  # oldest first
        self.edge = [1, 2**0.5]
        for age in range(2, self.AGES + 1):
            self.edge.append(2 * self.edge[age - 2])
        self.hits, self.ends = ([[0.0] * self.AGES for _ in range(16)] for _ in range(2))
        self.density = [[1 / self.edge[age] for age in range(self.AGES)] for _ in range(16)]

    def bucket(self, age):
        power = (age + 1).bit_length() - 1
        return min(self.AGES - 1, 2 * power + (age + 1 >= 1.4142135623730951 * 2**power))

    def learn(self):
        every = max(2000, self.cap // 2)
        if self.clock - self.learned < min(every, max(128, self.learned)):
            return
        self.learned = self.clock
        ends = [list(row) for row in self.ends]
        weight = [0.5 * math.pow(0.9, self.edge[age] / every) for age in range(self.AGES)]
        for b in list(self.there.values()) + [{"used": used, "cls": cls} for used, cls in self.ghosts.values()]:
            age = self.bucket(self.clock - b["used"])
            ends[b["cls"]][age] += weight[age]
        total = [[sum_of(table, age) for age in range(self.AGES)] for table in (self.hits, ends)]
        prior = self.table(total[0], total[1], None)
        for cls in range(16):
            hit = self.table(self.hits[cls], ends[cls], prior)
            self.density[cls] = [self.best(hit, age) for age in range(self.AGES)]
            self.hits[cls] = [x * 0.9 for x in self.hits[cls]]
            self.ends[cls] = [x * 0.9 for x in self.ends[cls]]

    def table(self, hits_of, ends_of, prior):
        out, longer = [0.0] * self.AGES, 0.0
        for age in range(self.AGES - 1, -1, -1):
            lives = longer + hits_of[age] + ends_of[age] / 2
            if prior:
                out[age] = (hits_of[age] + prior[age]) / (lives + 1.0)
            else:
                out[age] = hits_of[age] / lives if lives > 0 else 0.0
            longer += hits_of[age] + ends_of[age]
        return out

    def best(self, hit, age):
        left, got, time, best = 1.0, 0.0, 0.0, 0.0
        while age < self.AGES and left > 1e-3:
            got += left * hit[age]
            time += left * (1 - hit[age] / 2) * (self.edge[age + 1] - self.edge[age])
            left *= 1 - hit[age]
            best = max(best, got / time)
            age += 1
        return best

    def used(self, prompt):
        parent, self.gone = None, []
        for depth, block in enumerate(prompt):
            if block in self.there:
                self.clock += 1
                self.learn()
                b = self.there[block]
                self.hits[b["cls"]][self.bucket(self.clock - b["used"])] += 1
                self.queues[b["cls"]].pop(block, None)
                b["used"], b["uses"] = self.clock, min(3, b["uses"] + 1)
            else:
                if len(self.there) == self.cap and not self.evict(self.clock + 1 - depth):
                    return
                self.clock += 1
                self.learn()
                uses = 0
                if block in self.ghosts:
                    used, cls = self.ghosts.pop(block)
                    self.hits[cls][self.bucket(self.clock - used)] += 1
                    uses = min(3, cls // 4 + 1)
                b = self.there[block] = {"used": self.clock, "uses": uses, "parent": parent, "children": 0}
                if parent is not None:
                    self.there[parent]["children"] += 1
            up = b["parent"]
            b["cls"] = b["uses"] * 4 + (self.there[up]["uses"] if up is not None else 0)
            self.queues[b["cls"]][block] = True
            parent = block

    def evict(self, begin):
        best = None
        for cls, queue in enumerate(self.queues):
            while queue and self.there[next(iter(queue))]["children"]:
                queue.popitem(last=False)
            if not queue:
                continue
            block = next(iter(queue))
            if self.there[block]["used"] >= begin:
                continue
            density = self.density[cls][self.bucket(self.clock - self.there[block]["used"])]
            if best is None or density < best[0]:
                best = density, block
        if best is None:
            return False
        block = best[1]
        b = self.there.pop(block)
        self.gone.append(block)
        del self.queues[b["cls"]][block]
        self.ghosts[block] = b["used"], b["cls"]
        if len(self.ghosts) > 4 * self.cap:
            _, (used, cls) = self.ghosts.popitem(last=False)
            self.ends[cls][self.bucket(self.clock - used)] += 1
        if b["parent"] is not None:
            up = self.there[b["parent"]]
            up["children"] -= 1
            if up["children"] == 0 and b["parent"] not in self.queues[up["cls"]]:
                self.queues[up["cls"]][b["parent"]] = True
                self.queues[up["cls"]].move_to_end(b["parent"], last=False)
        return True


def sum_of(table, age):
    """In the order of the classes, so that floating point agrees."""
    total = 0.0
    for row in table:
        total += row[age]
    return total


class Mooncake:
    """The shadows of four experts vote for what they hold: out goes the leaf of least votes, by sets of experts."""

    def __init__(self, cap, prompts):
        self.cap = cap
        self.shadows = [expert(cap, prompts) for expert in (Density, Lru, S3Fifo, Arc)]
        self.hits, self.spread, self.votes = [0.0] * 4, [0.0] * 4, [0.0] * 16
        self.held = [{}] * 4  # what each shadow holds
        self.there = {}  # id -> {parent, children, child, held, set, parked}; `set` is the queue, `held` but for those that sank
        self.queues = [OrderedDict() for _ in range(16)]  # oldest first

    def move(self, block, to):
        b = self.there[block]
        if not b["parked"]:
            del self.queues[b["set"]][block]
            self.queues[to][block] = True
        b["set"] = to

    def note_held(self, x, block):
        b = self.there.get(block)
        if b and (block in self.held[x]) != bool(b["held"] >> x & 1):
            b["held"] ^= 1 << x
            self.move(block, b["held"])

    def vote(self, hits_now, uses):
        window = 64.0 * self.cap + 4000.0
        fade = 1 - uses / window if uses < window else 0.0
        self.hits = [hits * fade + now for hits, now in zip(self.hits, hits_now)]
        best = self.hits.index(max(self.hits))
        votes = []
        for x in range(4):
            less = hits_now[best] - hits_now[x]
            self.spread[x] = self.spread[x] * fade + less * less
            votes.append(math.exp((self.hits[x] - self.hits[best]) / (math.sqrt(self.spread[x]) + 1)))
        for which in range(16):
            self.votes[which] = 0.0
            for x in range(4):
                self.votes[which] += votes[x] if which >> x & 1 else 0.0

    def used(self, prompt):
        hits_now = []
        for x, shadow in enumerate(self.shadows):
            hits_now.append(prefix(self.held[x], prompt))
            shadow.used(prompt)
            self.held[x] = shadow.there
            for block in shadow.gone + prompt:
                self.note_held(x, block)
        self.vote(hits_now, len(prompt))
        parent, touched = None, set()
        for block in prompt:
            if block in self.there:
                b = self.there[block]
                self.queues[b["set"]].pop(block, None)
                b["set"], b["parked"] = b["held"], False
            else:
                if len(self.there) == self.cap and not self.evict(touched):
                    return
                held = sum(1 << x for x in range(4) if block in self.held[x])
                b = self.there[block] = {"parent": parent, "children": 0, "child": None, "held": held, "set": held, "parked": False}
                if parent is not None:
                    self.there[parent]["children"] += 1
            self.queues[b["set"]][block] = True
            if b["parent"] is not None and self.child(b["parent"]) is None:
                self.there[b["parent"]]["child"] = block
            touched.add(block)
            parent = block

    def child(self, block):
        child = self.there[block]["child"]
        return child if child in self.there and self.there[child]["parent"] == block else None

    def sink_child(self, block, to):
        while (child := self.child(block)) is not None and self.votes[self.there[child]["set"]] > self.votes[to]:
            self.move(child, to)
            if not self.there[child]["parked"]:
                return
            block = child

    def oldest_leaf(self, which):
        queue = self.queues[which]
        while queue and self.there[next(iter(queue))]["children"]:
            block = queue.popitem(last=False)[0]
            self.there[block]["parked"] = True
            self.sink_child(block, which)
        return next(iter(queue), None)

    def evict(self, touched):
        victim, least = None, 0.0
        for which in range(16):
            if victim is not None and self.votes[which] >= least:
                continue
            block = self.oldest_leaf(which)
            if block is not None:
                victim, least = block, self.votes[which]
        if victim in touched:
            return False
        del self.queues[self.there[victim]["set"]][victim]
        up = self.there.pop(victim)["parent"]
        if up is not None:
            b = self.there[up]
            b["children"] -= 1
            if b["children"] == 0 and b["parked"]:
                b["parked"] = False
                self.queues[b["set"]][up] = True
                self.queues[b["set"]].move_to_end(up, last=False)
        return True


POLICIES = {"lru": Lru, "mooncake": Mooncake, "density": Density, "s3fifo": S3Fifo, "arc": Arc, "opt": Opt}


def prefix(there, prompt):
    """Blocks found, from the first on."""
    count = 0
    while count < len(prompt) and prompt[count] in there:
        count += 1
    return count


def hits(name, cap, requests):
    prompts = [request["hash_ids"] for request in requests]
    policy, count = POLICIES[name](cap, prompts), 0
    for prompt in prompts:
        count += prefix(policy.there, prompt)
        policy.used(prompt)
    return count
