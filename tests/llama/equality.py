#!/usr/bin/env python3
"""equality.py - with real weights, prefill here and decode there with reuse gives the text of the engine alone.

Greedy, one thread count for all. One stream at a time every text is *equal*: 20 prompts cold and from the cache, prefixes that end
one token before, at and behind a block. Where batches differ by nature (a second turn, eight at once, after a death) texts may part
only where the engine alone had both tokens less than GAP of logit apart. Last, the comparison itself is tested: a byte flipped in
the Store is a miss `corrupt` and changes no text; a bit flipped behind the checksums does change texts.

    equality.py MOONCAKE HELPER --plugin FILE [--model FILE] [--threads N] [CHECK...]

Exit 77: plug-in or weights are not there; the last line says which.
"""
import argparse
import concurrent.futures
import glob
import itertools
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from service import Service, read_line  # noqa: E402

GAP = 0.15
BLOCK = 64
TOKENS = 16
START_S = 120  # a busy machine takes its time to load weights

SHORT = [
    "What is the capital of France?", "Name three colours.", "Why is the sky blue?", "Write one sentence about the sea.",
    "What is 12 times 12?", "Explain what a cache is.", "List two uses of a hash function.", "What does a compiler do?",
    "Tell me a short story about a cat.", "How do plants grow?",
    "中国的首都是哪里？", "请写一句关于月亮的话。", "什么是人工智能？", "请列出三种水果。", "为什么天空是蓝色的？", "请用中文介绍一下长城。",
]
ENGLISH = [
    "The cache keeps the keys and values of every token that a worker has computed.",
    "A second request with the same beginning loads them instead of computing them again.",
    "Blocks of sixty-four tokens are named by the hash of everything that stands before them.",
    "When a node is full, the blocks that nobody has asked for are the first to go.",
    "The river runs past the old mill, and the miller counts the boats in the evening.",
    "Nobody in the village could remember who had built the bridge or why it was so narrow.",
    "In spring the water rises, and the children measure it with a painted stick.",
]
CHINESE = [
    "缓存保存着每个词元的键和值。", "第二个请求可以直接读取，不必重新计算。", "河水流过古老的磨坊，傍晚时磨坊主数着船只。",
    "村里没有人记得是谁建了这座桥。", "春天水位上涨，孩子们用彩色的木棍测量。", "当节点已满时，最久没有人使用的块最先被移除。",
]


def passage(sentences, count, seed):
    """Text that is always the same and does not repeat with a short period."""
    out, state = [], seed
    for number in range(count):
        state = (state * 1103515245 + 12345) % (1 << 31)
        out.append(f"{number + seed}. {sentences[state // 65536 % len(sentences)]}")
    return " ".join(out)


def user(text):
    return [{"role": "user", "content": text}]


LONG = [
    user(passage(ENGLISH, 60, 1) + "\n\nWhat is this text about?"), user(passage(ENGLISH, 62, 100) + "\n\nWho counts the boats?"),
    user(passage(CHINESE, 50, 200) + "\n\n请用一句话总结。"), user(passage(CHINESE, 48, 300) + "\n\n谁在数船？"),
]


class Alone:
    """The engine alone in a process of its own; asks are answered in turn, beside whatever else goes on."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.queue = concurrent.futures.ThreadPoolExecutor(1)

    def ask(self, **request):
        return self.queue.submit(self.ask_now, {"max_tokens": TOKENS, "near": GAP, **request})

    def ask_now(self, request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or b'{"error": "it ended"}')
        assert "error" not in answer, answer
        return Answer(answer["prompt"], answer["steps"])

    def close(self):
        self.queue.shutdown(cancel_futures=True)
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Answer:
    """What the engine alone said: token by token, and which others it might nearly have said."""

    def __init__(self, prompt, steps):
        self.prompt, self.steps = prompt, steps
        self.pieces = [bytes.fromhex(step["piece"]) for step in steps]
        self.tokens = [step["token"] for step in steps if not step["end"]]
        # As the API does it: what cannot be UTF-8 any more is U+FFFD.
        self.text = b"".join(self.pieces).decode("utf-8", "replace")

    def parts_at(self, text):
        """None: equal. Else (number of the first token that differs, whether it was nearly a tie)."""
        if text == self.text:
            return None
        got = text.encode()
        ends = list(itertools.accumulate(len(piece) for piece in self.pieces))
        whole = b"".join(self.pieces)
        same = next((i for i, (a, b) in enumerate(zip(got, whole)) if a != b), min(len(got), len(whole)))
        at = next((i for i, end in enumerate(ends) if end > same), len(ends) - 1)
        rest = got[ends[at] - len(self.pieces[at]):]
        near = [bytes.fromhex(piece) for piece in self.steps[at]["near"]]
        # An empty piece is an end token: then the text ends there.
        return at, any(rest.startswith(piece) if piece else not rest for piece in near)


def must_equal(text, alone, what):
    assert text == alone.text, f"{what}: {text!r}\nthe engine alone: {alone.text!r}"


def must_be_close(text, alone, what):
    """Returns whether it was equal."""
    parted = alone.parts_at(text)
    assert not parted or parted[1], (f"{what}: parts at token {parted[0]}, where no such token was within {GAP}: {text!r}\n"
                                     f"the engine alone: {alone.text!r}")
    return not parted


def ask(service, path, **body):
    """(text, what the service says of itself)"""
    status, answer = service.post(path, {"model": service.model(), "max_tokens": TOKENS, "temperature": 0, **body}, timeout=300)
    assert status == 200, answer
    choice = answer["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"], answer["mooncake"]


def chat(service, messages, **more):
    return ask(service, "/v1/chat/completions", messages=messages, **more)


def complete(service, tokens, **more):
    return ask(service, "/v1/completions", prompt=tokens, **more)


def flip_stored_bytes(pid):
    """One byte of the payload of each block in a node's memory: whose segments are memfds. Returns how many."""
    flipped = 0
    with open(f"/proc/{pid}/maps", encoding="ascii") as file:
        ranges = [[int(part, 16) for part in line.split()[0].split("-")] for line in file if "/memfd:" in line and " rw-s " in line]
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for start, end in ranges:
            memory.seek(start)
            segment = read_whole(memory, end - start)
            at = segment.find(b"MCO1")
            while at >= 0:
                header, length = int.from_bytes(segment[at + 8:at + 12], "little"), int.from_bytes(segment[at + 32:at + 40], "little")
                if at % 64 == 0 and 0 < header < 1 << 20 and at + header + length <= len(segment):
                    middle = at + header + length // 2
                    memory.seek(start + middle)
                    memory.write(bytes([segment[middle] ^ 1]))
                    flipped += 1
                at = segment.find(b"MCO1", at + 4)
    return flipped


def read_whole(file, size):
    parts = []
    while size:
        part = file.read(min(size, 1 << 24))
        assert part, "a mapping ended early"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Checks:
    """Each check gets the same service; what it found is a line."""

    def __init__(self, service, alone):
        self.service, self.alone = service, alone

    def check_prompts(self):
        """20 prompts, cold and again."""
        prompts = [user(text) for text in SHORT] + LONG
        answers = [self.alone.ask(messages=messages) for messages in prompts]
        reused, long = 0, 0
        for messages, answer in zip(prompts, answers):
            for time_ in ("cold", "again"):
                text, ours = chat(self.service, messages)
                must_equal(text, answer.result(), f"{messages[0]['content'][-40:]!r} {time_}")
                assert ours["prompt_tokens"] == len(answer.result().prompt), ours
            reused += ours["reused_tokens"]
            long += ours["prompt_tokens"] > 1000
            assert ours["reused_tokens"] == (ours["prompt_tokens"] - 1) // BLOCK * BLOCK, ours
        assert len(prompts) == 20 and long >= 4, (len(prompts), long)
        return f"{len(prompts)} prompts equal, cold and again, {reused} tokens reused"

    def check_boundaries(self):
        """Prompts of one token less, as many and one more than a whole number of blocks; and with another end behind those."""
        tail = self.alone.ask(messages=user("And now?"), max_tokens=1).result().prompt
        asks = []
        for messages, blocks in ((LONG[0], (3, 17)), (LONG[2], (3,))):
            prompt = self.alone.ask(messages=messages, max_tokens=1).result().prompt
            # the prefixes are there, whatever checks ran before
            complete(self.service, prompt, max_tokens=1)
            asks += [(prompt[:count * BLOCK + more], end) for count in blocks for more in (-1, 0, 1) for end in ([], tail)]
        answers = [self.alone.ask(tokens=shared + end) for shared, end in asks]
        for (shared, end), answer in zip(asks, answers):
            text, ours = complete(self.service, shared + end)
            must_equal(text, answer.result(), f"{len(shared)} shared tokens and {len(end)} others")
            whole = (len(shared) - (0 if end else 1)) // BLOCK * BLOCK
            assert ours["reused_tokens"] == whole, (len(shared), len(end), ours)
        return f"{len(asks)} prefixes equal, at -1, 0 and +1 of a block's end"

    def check_turns(self):
        """Three turns; the engine alone keeps its KV between them, the service finds it in the Store."""
        ends = [self.alone.ask(messages=user(text), max_tokens=1).result().prompt for text in ("Why?", "Say it in one sentence.")]
        tokens = self.alone.ask(messages=user("Explain what a hash table is, and why it is fast."), max_tokens=1).result().prompt
        equal, reused = 0, []
        for turn, end in enumerate([*ends, []]):
            answer = self.alone.ask(tokens=tokens, max_tokens=72, keep=turn < 2).result()
            text, ours = complete(self.service, tokens, max_tokens=72)
            equal += must_be_close(text, answer, f"turn {turn + 1}")
            reused.append(ours["reused_tokens"])
            tokens = tokens + answer.tokens + end
        assert reused[-1] >= BLOCK, reused
        return f"{equal} of 3 turns equal, {reused} tokens reused"

    def check_eight_at_once(self):
        texts = SHORT[:4] + SHORT[10:14]
        answers = [self.alone.ask(messages=user(text), max_tokens=32) for text in texts]
        for answer in answers:
            answer.result()
        streams = [self.service.stream(text, 32, timeout=300) for text in texts]
        equal = sum(must_be_close(stream.text(300), answer.result(), text) for stream, answer, text in zip(streams, answers, texts))
        return f"{equal} of 8 streams equal, the others part at a near tie"

    def check_flipped_in_store(self):
        """A stored byte that changed is a miss, never part of an answer."""
        messages = user("A stored byte flips. " + passage(ENGLISH, 12, 400))
        answer = self.alone.ask(messages=messages)
        must_equal(chat(self.service, messages)[0], answer.result(), "before the flip")
        flipped = flip_stored_bytes(self.service.pids()["node"])
        assert flipped >= 3, flipped
        text, ours = chat(self.service, messages)
        must_equal(text, answer.result(), "after the flip")
        assert ours["miss"] == "corrupt" and ours["reused_tokens"] == 0, ours
        return f"{flipped} blocks damaged, a miss `corrupt`, text equal"

    def check_killed_worker(self):
        """kill -9 of the decode worker in the middle of a stream."""
        text = "Write a long story about a river and the sea."
        answer = self.alone.ask(messages=user(text), max_tokens=96)
        answer.result()
        stream = self.service.stream(text, 96, timeout=300)
        stream.wait_pieces(8, 120)
        self.service.kill("decode-1")
        equal = must_be_close(stream.text(300), answer.result(), "after a death")
        assert stream.ours["moves"] >= 1, stream.ours
        return f"{'equal' if equal else 'parts at a near tie'}, after {stream.ours['moves']} move"


ORDER = ["prompts", "boundaries", "turns", "eight_at_once", "flipped_in_store", "killed_worker"]


def flipped_behind_checksums(options, helper, alone):
    """The comparison finds what no checksum can: a worker that damages one bit of each prompt it imports."""
    prompts = [user(passage(ENGLISH, 8, 500 + seed)) for seed in range(3)]
    answers = [alone.ask(messages=messages) for messages in prompts]
    with start_service(options, "--decode-workers=0") as service:
        for messages, answer in zip(prompts, answers):
            must_equal(chat(service, messages)[0], answer.result(), "before the damage")
        damaged = subprocess.Popen([options.helper, "damaged", *helper, service.info["master"], service.info["workers"]],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=service.env)
        try:
            assert read_line(damaged.stdout, START_S) == b"ready\n", "the damaged worker did not start"
            differ = sum(chat(service, messages)[0] != answer.result().text for messages, answer in zip(prompts, answers))
            damaged.stdin.close()
            imported = int(read_line(damaged.stdout, 20) or b"0")
        finally:
            damaged.kill()
            damaged.wait()
    assert imported > 0, "no block went to the damaged worker: this shows nothing"
    assert differ > 0, f"a damaged bit among {imported} blocks changed no text: the comparison cannot fail"
    return f"{differ} of {len(prompts)} texts differ for one damaged bit, {imported} blocks imported"


def start_service(options, *more):
    return Service(options.mooncake, "--memory=512M", f"--threads={options.threads}", f"--engine-path={options.plugin}",
                   f"--model={options.model}", *more, engine="llama")


def run(name, check):
    start = time.monotonic()
    note = check()
    print(f"{name}: {note} ({time.monotonic() - start:.1f} s)", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="texts of the service and of llama.cpp alone")
    parser.add_argument("mooncake")
    parser.add_argument("helper")
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--model", default=os.environ.get("MOONCAKE_MODEL"), help="weights; default what tools/fetch-engine got")
    # One thread: the same answers whoever else is on the machine, in a time that does not depend on them.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(ORDER)}, damaged_import; default all")
    options = parser.parse_intermixed_args()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    options.model = options.model or next(iter(sorted(glob.glob(f"{cache}/mooncake/engine/*.gguf"))), None)
    options.checks = options.checks or [*ORDER, "damaged_import"]
    return options


def main():
    options = arguments()
    if not os.path.exists(options.plugin):
        print("engine-llama.so is not built: meson setup with -Dllama=DIR, which tools/fetch-engine makes")
        return 77
    if not options.model or not os.path.exists(options.model):
        print("no weights: tools/fetch-engine gets some")
        return 77
    helper = [options.plugin, options.model, str(options.threads)]
    alone = Alone([options.helper, "alone", *helper])
    try:
        with start_service(options) as service:
            checks = Checks(service, alone)
            for name in ORDER:
                if name in options.checks:
                    run(name, getattr(checks, f"check_{name}"))
        if "damaged_import" in options.checks:
            run("damaged_import", lambda: flipped_behind_checksums(options, helper, alone))
    finally:
        alone.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
