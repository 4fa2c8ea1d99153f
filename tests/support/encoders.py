"""A sentence encoder so small that a test makes it: random weights and a few words."""

import pytest
import torch

_SAYING = "what is my balance money bank pay bill weather rain sun today tomorrow play song music the"
WORDS = tuple(_SAYING.split())


def tiny_encoder(folder, *, seed=0, words=WORDS):
    """The folder of a one-layer encoder with 16 features; skips where the extra is missing."""
    pytest.importorskip("sentence_transformers", reason="pip install 'neural-slots[text]'")
    from sentence_transformers import SentenceTransformer

    try:
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError:  # sentence-transformers 3 and 4
        from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    bare = folder / "bare"
    bare.mkdir(parents=True)
    (bare / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=5 + len(words), max_position_embeddings=64, **sizes)).save_pretrained(bare)
    BertTokenizer(str(bare / "vocab.txt")).save_pretrained(bare)
    body = Transformer(str(bare), max_seq_length=32)
    model = SentenceTransformer(modules=[body, Pooling(16, pooling_mode="mean")], device="cpu")
    model.save(str(folder / "encoder"))
    return folder / "encoder"
