"""What a model says after a prompt: its most likely token, again and again."""

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase

from shared.errors import ContextTooShort, DataEmpty


def go_on(model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompt: str, *, max_new_tokens: int) -> str:
    """Return what follows on a prompt, without it, decoded greedily until the model ends it or the length is reached.

    The model is left in eval mode.

    Raises:
        DataEmpty: no token comes of the prompt.
        ContextTooShort: the model takes no text of this length.
    """
    token_ids: list[int] = tokenizer(prompt)["input_ids"]
    if not token_ids:
        raise DataEmpty("no token comes of this prompt: write one with a word in it")
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and len(token_ids) + max_new_tokens > longest:
        raise ContextTooShort(
            f"the prompt has {len(token_ids)} tokens and {max_new_tokens} may follow, and the model takes {longest}: "
            "shorten one of them"
        )
    prompt_BT = torch.tensor([token_ids], device=next(model.parameters()).device)
    end = tokenizer.eos_token_id
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    model.eval()
    with torch.no_grad():
        said_BT = model.generate(
            input_ids=prompt_BT, attention_mask=torch.ones_like(prompt_BT), generation_config=greedy, use_cache=True
        )
    return str(tokenizer.decode(said_BT[0, len(token_ids) :], skip_special_tokens=True))
