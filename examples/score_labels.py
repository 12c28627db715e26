"""Score label words with a bundle, without tuning: the forward pass on its own.

    pip install 'edgezo[cpu,export]'
    python examples/score_labels.py

Prints the scores of two words behind each of three sentences, and the word that fits better:

    terrible    14.32   13.80  two hours i will not get back

Takes a second, after one export of the default model. An argument names another bundle.
"""

import sys

from edgezo import default_bundle
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine, SharedParams

sentences = ["a warm , funny film", "two hours i will not get back", "an instant classic"]
words = [" terrible", " great"]

print(f"Which word fits, of{' and'.join(words)}? Takes a second.")
bundle = Bundle.open(sys.argv[1] if sys.argv[1:] else default_bundle())
tokenizer = TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)
reader = RowReader(tokenizer, "{text} It was", tuple(words), max_seq=64)
examples = reader.take([{"text": text} for text in sentences], with_class=False)

batch = make_batch(examples, range(len(sentences)))
scores = Engine(bundle).score(batch, SharedParams(bundle.trainables()))[0]  # (B, C) float32
for sentence, row in zip(sentences, scores, strict=True):
    verdict = words[int(row.argmax())].strip()
    print(f"{verdict:9} {row[0]:7.2f} {row[1]:7.2f}  {sentence}")
