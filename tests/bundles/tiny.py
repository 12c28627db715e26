"""The tiny models and bundles that tests share, made by torch at the first request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bundles.cache import cached
from tests.bundles.traces import use_cached_traces

LORA = (3, 6.0)
"""Rank and alpha of the bundles of every family."""


def tiny_model(name: str) -> Path:
    """Folder of a model of `TINY`, as transformers saves it."""

    def make(folder: Path) -> None:
        from tests.export.tiny_models import TINY, save

        save(TINY[name].build(), folder)

    return cached(f"{name}/model", make)


def tiny_bundle(
    name: str,
    quant: str,
    lora: tuple[int, float] = LORA,
    targets: Sequence[str] | None = None,
) -> Path:
    """A bundle of that model.

    Args:
        name: in `TINY`.
        quant: its quantization.
        lora: rank and alpha.
        targets: layers with an adapter; None: those that `TINY` names.
    """
    rank, alpha = lora
    layers = "" if targets is None else f"-{'-'.join(targets)}"

    def make(folder: Path) -> None:
        from edgezo_export.export import ExportConfig, export_bundle
        from edgezo_export.schemes.lora import Lora
        from tests.export.tiny_models import TINY

        scheme = Lora(rank=rank, alpha=alpha, targets=tuple(targets or TINY[name].targets))
        use_cached_traces()
        export_bundle(str(tiny_model(name)), folder, ExportConfig(quant=quant, scheme=scheme))

    return cached(f"{name}/{quant}-r{rank}-a{alpha:g}{layers}", make)


def tuned_bundle(quant: str) -> Path:
    """The llama of the tests of the command line, with small adapters."""
    return tiny_bundle("llama", quant, (2, 4.0), ("q_proj", "v_proj"))


def speller_model() -> Path:
    """Folder of the model of `speller`, as transformers saves it."""

    def model(folder: Path) -> None:
        import torch
        import transformers

        from tests.runtime.tiny_tokenizer import byte_tokenizer

        core = byte_tokenizer().core
        config = transformers.LlamaConfig(
            vocab_size=core.get_vocab_size(),
            hidden_size=64,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
        )
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
        ).save_pretrained(folder)

    return cached("speller/model", model)


def speller(quant: str = "auto") -> Path:
    """A bundle of a llama of two blocks that spells."""

    def bundle(folder: Path) -> None:
        from edgezo_export.export import ExportConfig, export_bundle

        use_cached_traces()
        export_bundle(str(speller_model()), folder, ExportConfig(quant=quant))

    return cached(f"speller/{quant}", bundle)


SWITCH = 16
"""Tokens of the longest row with the first rotary frequencies of `two_sided_model`."""


def two_sided_model() -> Path:
    """A llama with other rotary frequencies for rows of more than `SWITCH` tokens."""

    def make(folder: Path) -> None:
        import transformers

        from tests.export.tiny_models import randomize, save

        config = transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=64,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "factor": 4.0,
                "short_factor": [1.0 + 0.1 * index for index in range(8)],
                "long_factor": [2.0 + 0.7 * index for index in range(8)],
                "original_max_position_embeddings": SWITCH,
            },
        )
        model = transformers.LlamaForCausalLM(config).eval()
        randomize(model)
        save(model, folder)

    return cached("two-sided/model", make)


def two_sided_bundle() -> Path:
    """Its bundle, fp32."""

    def make(folder: Path) -> None:
        from edgezo_export.export import ExportConfig, export_bundle

        export_bundle(str(two_sided_model()), folder, ExportConfig(quant="fp32"))

    return cached("two-sided/bundle", make)


def wide_bundle() -> Path:
    """A llama of four blocks with eight heads of 64 and adapters of 3 MB, int8."""

    def model(folder: Path) -> None:
        import transformers

        from tests.export.tiny_models import randomize, save

        config = transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=8,
            head_dim=64,
            max_position_embeddings=4096,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        wide = transformers.LlamaForCausalLM(config).eval()
        randomize(wide)
        save(wide, folder)

    def bundle(folder: Path) -> None:
        from edgezo_export.export import ExportConfig, export_bundle
        from edgezo_export.schemes.lora import Lora

        targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        scheme = Lora(rank=64, alpha=4.0, targets=targets)
        source = str(cached("wide/model", model))
        use_cached_traces()
        export_bundle(source, folder, ExportConfig(quant="int8", scheme=scheme))

    return cached("wide/bundle", bundle)
