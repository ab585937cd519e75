"""Local composers with tiny models made from configs: they see, sample, and are seeded."""

import json

import pytest
import torch

from freestyle.transport.local_models import CaptionerComposer, LocalComposer

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "<unk>",
    "a",
    "cat",
    "dog",
    "hat",
    "with",
    "red",
    "blue",
]
TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }} {% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} "
    "{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(WORDS)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    made.chat_template = TEMPLATE
    return made


def text_config():
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


@pytest.fixture(scope="module")
def multimodal(tmp_path_factory):
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("llava")
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(),
        image_token_index=3,
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square),
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("chat")
    torch.manual_seed(1)
    LlamaForCausalLM(text_config()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "hat", "red", "blue"]
    tiny = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        **tiny,
        "vocab_size": len(words),
        "encoder_hidden_size": 16,
        "bos_token_id": 2,
        "pad_token_id": 0,
        "sep_token_id": 3,
        "eos_token_id": 3,
    }
    torch.manual_seed(2)
    vision = {**tiny, "image_size": 32, "patch_size": 16}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    model.save_pretrained(folder)
    BlipProcessor(
        BlipImageProcessor(size={"height": 32, "width": 32}),
        BertTokenizer(vocab={word: i for i, word in enumerate(words)}),
    ).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_multimodal_model_writes_captions_and_keeps_them(multimodal, asked, tmp_path):
    composer = LocalComposer(str(multimodal), count=3, cache=tmp_path / "cache")
    found = composer.compose(asked)
    assert set(found) == {"q0", "q1", "q2"}
    for query in asked:
        own = found[query.id]
        assert 1 <= len(own.captions) <= 3 and own.modification == query.text
        assert all(set(caption.split()) <= set(WORDS) for caption in own.captions)
    assert len({own.captions for own in found.values()}) > 1
    kept = list((tmp_path / "cache").glob("*.json"))
    assert len(kept) == 3 and "captions" in json.loads(kept[0].read_text())
    again = LocalComposer(str(multimodal), count=3, cache=tmp_path / "other").compose(asked[::-1])
    assert again == found  # seeded by query, not by order


@pytest.mark.slow
def test_what_is_in_the_cache_needs_no_model(multimodal, asked, tmp_path):
    LocalComposer(str(multimodal), count=2, cache=tmp_path / "cache").compose(asked)
    composer = LocalComposer(str(multimodal), count=2, cache=tmp_path / "cache")
    composer.compose(asked)
    assert composer._loaded is None


@pytest.mark.slow
def test_captioner_and_chat_model(captioner, chat, asked, tmp_path):
    composer = CaptionerComposer(str(chat), str(captioner), count=2, cache=tmp_path / "cache")
    found = composer.compose(asked[:2])
    assert found["q0"].captions and len(found["q0"].reference) == 1
    assert found["q0"].modification == "with a hat"


def test_models_that_cannot_be_loaded(asked, tmp_path, refusal):
    nowhere = str(tmp_path / "nowhere")
    for composer in (
        LocalComposer(nowhere, cache=tmp_path / "c"),
        CaptionerComposer(nowhere, nowhere, cache=tmp_path / "c"),
    ):
        assert "cannot load" in refusal(composer.compose, asked)
    assert "dtype" in refusal(LocalComposer, "m", dtype="int8")
