"""openai_test - the official Python client of OpenAI against a whole cluster: streaming and not, errors as its exceptions, and a client that
leaves in the middle.

    openai_test.py PATH_TO_MOONCAKE VENV_DIR      installs the client into VENV_DIR when it is not there yet
"""
import os
import subprocess
import sys
import venv

SKIP = 77  # meson's word for "skipped"


def client_in(folder):
    """Run again under a Python that has the client."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", "import openai"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        done = subprocess.run([python, "-m", "pip", "install", "-q", "openai"], check=False)
        if done.returncode != 0:
            print("openai client: SKIPPED, pip cannot install openai")
            sys.exit(SKIP)
    os.execv(python, [python, __file__, *sys.argv[1:], "--in-venv"])


if sys.argv[-1] != "--in-venv":
    client_in(sys.argv[2])

import unittest  # noqa: E402

import openai  # noqa: E402

from cluster import Cluster, in_some_attempt, wait_for  # noqa: E402

BINARY = sys.argv[1]
ASK = {"model": "synthetic", "messages": [{"role": "user", "content": "Tell me about the cache. " * 30}], "temperature": 0,
       "max_completion_tokens": 40, "extra_body": {"ignore_eos": True}}


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(BINARY, "--memory", "64M", "--synthetic-decode", "5", "--synthetic-prefill", "1500")
        cls.client = openai.OpenAI(base_url=cls.cluster.url + "/v1", api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["synthetic"])
        self.assertEqual(self.client.models.retrieve("synthetic").id, "synthetic")

    def streamed(self):
        """(text, finish reason, usage)"""
        text, usage, finish = "", None, None
        for chunk in self.client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        return text, finish, usage

    def test_stream_equals_body(self):
        whole = self.client.chat.completions.create(**ASK)
        self.assertEqual(whole.usage.completion_tokens, 40)
        self.assertEqual(whole.choices[0].finish_reason, "length")

        def again(_):
            text, finish, usage = self.streamed()
            self.assertEqual(text, whole.choices[0].message.content)
            self.assertEqual(finish, "length")
            self.assertEqual(usage.completion_tokens, 40)
            return usage.prompt_tokens_details.cached_tokens > 0, usage

        in_some_attempt(again, "the first request left the prompt in the cache")

    def test_completions(self):
        reply = self.client.completions.create(model="synthetic", prompt="Once", max_tokens=5, temperature=0)
        self.assertEqual(reply.object, "text_completion")
        self.assertLessEqual(reply.usage.completion_tokens, 5)

    def test_stop(self):
        whole = self.client.chat.completions.create(**ASK).choices[0].message.content
        stop = whole[len(whole) // 2:][:3]
        reply = self.client.chat.completions.create(**ASK, stop=[stop])
        self.assertEqual(reply.choices[0].message.content, whole[:whole.index(stop)])
        self.assertEqual(reply.choices[0].finish_reason, "stop")

    def test_errors_are_its_exceptions(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(**{**ASK, "model": "gpt-4"})
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(**ASK, n=2)
        self.assertEqual(caught.exception.param, "n")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.completions.create(model="synthetic", prompt=[300] * 9000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        self.assertIn("9000", caught.exception.message)

    def test_leaving_in_the_middle(self):
        stream = self.client.chat.completions.create(**{**ASK, "max_completion_tokens": 5000}, stream=True)
        for _ in range(5):
            next(iter(stream))
        stream.close()  # of 25 s
        wait_for(lambda: not any(w["running"] for w in self.cluster.status()["workers"]), 15,
                         "the work of a client that left is cancelled")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
