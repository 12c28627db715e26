"""The rows of the matrix of architectures: a tiny model each, and the models it stands for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """An architecture.

    Attributes:
        stands_for: the models that people know.
        pieces: what it has beyond rotary embeddings, RMS norms, gated layers and grouped heads.
        cached: does generation keep keys and values? Else it reads the whole text at every token.
        writes: does it generate at all?
    """

    stands_for: str
    pieces: str = ""
    cached: bool = True
    writes: bool = True

    @property
    def generation(self) -> str:
        """How texts are generated, in words."""
        if not self.writes:
            return "none: an encoder"
        return "one token's work per token" if self.cached else "the whole text again per token"


ROWS: dict[str, Row] = {
    "qwen3": Row("Qwen3", "norms of queries and keys"),
    "qwen2": Row("Qwen2, Qwen2.5", "biases"),
    "llama": Row("Llama 1 and 2, Vicuna, SmolLM, SmolLM2, TinyLlama"),
    "llama3": Row("Llama 3, 3.1, 3.2, 3.3", "rope scaling llama3"),
    "llama-tied": Row("the same with a tied head", "tied head"),
    "llama-bias": Row("the same with biases", "biases"),
    "llama-narrow": Row("heads of 8 numbers", cached=False),
    "llama-odd": Row("heads of 20 numbers", cached=False),
    "gemma": Row("Gemma", "gains 1 + w"),
    "gemma2": Row("Gemma 2", "soft caps, sliding windows"),
    "gemma3_text": Row("Gemma 3", "norms of queries and keys, sliding windows, two rotary tables"),
    "gemma4_text": Row("Gemma 4", "inputs by layer, two head sizes", cached=False),
    "phi": Row("Phi-1, 1.5, 2", "heads turned in part, parallel layers"),
    "phi3": Row("Phi-3, Phi-4", "fused projections"),
    "phi4-mini": Row("Phi-4-mini, Phi-3.5-mini", "heads turned in part, longrope, tied head"),
    "mistral": Row("Mistral", "sliding window"),
    "ministral": Row("Ministral", "sliding windows in some layers"),
    "ministral3": Row("Ministral 3", "yarn, queries scaled by position", cached=False),
    "smollm3": Row("SmolLM3", "layers without positions"),
    "granite": Row("Granite 3", "multipliers"),
    "olmo2": Row("OLMo 2", "norms after layers, norms of queries and keys"),
    "olmo3": Row("OLMo 3", "the same, sliding windows"),
    "cohere": Row("Command R", "parallel layers, turned in pairs", cached=False),
    "starcoder2": Row("StarCoder2", "layer norms, sliding window"),
    "opt": Row("OPT", "learned positions"),
    "opt-projected": Row("OPT-350M", "projected embeddings, norms after layers"),
    "gpt2": Row("GPT-2", "learned positions, (in, out) matrices"),
    "bloom": Row("BLOOM", "attention of its own, positions as biases", cached=False),
    "gpt_neox": Row("GPT-NeoX, Pythia", "heads turned in part, parallel layers", cached=False),
    "roberta": Row("RoBERTa", writes=False),
    "bert": Row("BERT", writes=False),
    "xlm-roberta": Row("XLM-RoBERTa", writes=False),
    "distilbert": Row("DistilBERT", writes=False),
    "electra": Row("ELECTRA", "narrow embeddings", writes=False),
    "modernbert": Row("ModernBERT", "windows in both directions", writes=False),
    "roberta-classes": Row(
        "RoBERTa with a classification head", "classification head", writes=False
    ),
    "bert-classes": Row(
        "BERT with a classification head", "pooler, classification head", writes=False
    ),
    "modernbert-classes": Row(
        "ModernBERT with a classification head", "classification head", writes=False
    ),
    "deberta-v2": Row(
        "DeBERTa v2 and v3 with a classification head",
        "positions relative to content; queries and keys are not tuned",
        writes=False,
    ),
    "mixtral": Row("Mixtral", "experts"),
    "qwen3_moe": Row("Qwen3 MoE", "experts, norms of queries and keys"),
    "gpt_oss": Row("gpt-oss", "experts with biases, attention sinks, sliding windows"),
    "granitemoehybrid": Row("Granite 4", "state space (mamba2)", cached=False),
    "qwen3_5_text": Row("Qwen3.5", "gated delta rule, gated attention", cached=False),
    "qwen3_next": Row("Qwen3-Next", "the same, experts", cached=False),
    "lfm2": Row("LFM2", "short convolutions", cached=False),
}


def table() -> list[str]:
    """The rows as docs/models.md has them."""
    lines = [
        "| row of the test | models | beside attention, norms and gated layers | generation |",
        "|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        lines.append(f"| `{name}` | {row.stands_for} | {row.pieces} | {row.generation} |")
    return lines
