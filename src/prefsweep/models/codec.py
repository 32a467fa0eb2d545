"""Between a policy's tokens and the texts that scorers read: decoding, and where a completion has ended.

A completion ends with EOS, or where its text comes to hold one of the dataset's stop strings, such as the next
speaker's name: a base model that never learned EOS would go on with the other side of the dialogue. The tokens that
complete a stop string are sampled and count; its text is not part of the completion's.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from prefsweep.config.schema import DatasetConfig
from prefsweep.data.tokens import token_ids
from prefsweep.data.truncation import Ids

TAIL = (
    32  # tokens in which a stop string is looked for; it may begin in earlier ones only if they are shorter than a byte
)


def stop_strings(config: Any, dataset: DatasetConfig) -> list[str]:
    """Return those of a stage that generates, by default its dataset's."""
    return dataset.stop if config.stop is None else list(config.stop)


class TextCodec:
    """A tokenizer with the stop strings of the completions that it is to decode."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()):
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = tokenizer.pad_token_id

    @cached_property
    def last_tokens(self) -> frozenset[int]:
        """The tokens that can complete a stop string: those that contain the last character of one."""
        last = {string[-1] for string in self.stop}
        texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return frozenset(token for token, text in enumerate(texts) if not last.isdisjoint(text))

    def has_ended(self, completion: Ids) -> bool:
        """Whether the last token of a completion ends it."""
        return completion[-1] == self.eos or self.at_stop(completion)

    def at_stop(self, completion: Ids) -> bool:
        """Whether a completion has come to hold a stop string."""
        if not self.stop or completion[-1] not in self.last_tokens:
            return False
        tail = self.tokenizer.decode(completion[-TAIL:], skip_special_tokens=True)
        return any(string in tail for string in self.stop)

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments of `decoding.sample` that depend on the tokenizer and the stop strings."""
        return {"eos": self.eos, "pad": self.pad, "at_stop": self.at_stop if self.stop else None}

    def prompts(self, rows: Sequence[Ids]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return texts

    def completions(self, prompts: Sequence[Ids], rows: Sequence[Ids]) -> list[str]:
        """Return the texts that continue their prompts, each up to the first stop string.

        Where a tokenizer drops the space with which a text begins, a completion is decoded after its prompt.
        """
        if self.keeps_first_space:
            texts = self.prompts(rows)
        else:
            heads = self.prompts(prompts)
            both = self.prompts([prompt + row for prompt, row in zip(prompts, rows, strict=True)])
            texts = [text[len(head) :] for text, head in zip(both, heads, strict=True)]
        return [self.before_stop(text) for text in texts]

    def before_stop(self, text: str) -> str:
        return text[: min((index for string in self.stop if (index := text.find(string)) >= 0), default=len(text))]

    @cached_property
    def keeps_first_space(self) -> bool:
        whole, first = token_ids(["a b", "a"], self.tokenizer, special=False)
        return self.prompts([whole[len(first) :]]) == [" b"]
