"""A random BERT of two layers as a sentence-transformers model, built here in seconds: 200 KB, no download.

It reads letters without their accents and without regard to case, so texts that differ by these alone have one vector:
something that a search by words, to which they are different, cannot find.
"""

from pathlib import Path

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'-_/"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_bert(folder: Path, dimensions: int = 48, seed: int = 5) -> Path:
    """Write model, tokenizer and mean pooling into `folder` and return it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    plain = folder / "plain"
    plain.mkdir(parents=True)
    vocabulary = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (plain / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(str(plain / "vocab.txt"), do_lower_case=True, model_max_length=128).save_pretrained(plain)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=dimensions,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * dimensions,
        max_position_embeddings=128,
        initializer_range=0.5,  # so that texts are apart
    )
    BertModel(config).save_pretrained(plain)
    words = Transformer(str(plain), max_seq_length=128)
    SentenceTransformer(modules=[words, Pooling(dimensions)], device="cpu").save(str(folder / "model"))
    return folder / "model"
