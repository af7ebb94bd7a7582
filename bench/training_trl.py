"""trl's SFTTrainer, kept alive and timed: for a Python that has trl, peft and torch, and not FedCoLLM.

It is what its defaults make it, but for what both sides must have in common; what is measured is from its first step to
the end of its last.
"""

import argparse
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.flops import operations_of
from bench.other_side import answer_questions

IGNORED = -100


class Watch(TrainerCallback):  # type: ignore[misc]
    """Seconds, and a processor's, from the first step to the end of the last."""

    seconds = cpu_seconds = 0.0

    def on_step_begin(self, _: Any, state: Any, __: Any, **___: Any) -> None:  # noqa: ANN401 - transformers' own
        """Start with the first."""
        if state.global_step == 0:
            self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - transformers' own
        """Stop with each: the last one counts."""
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = time.process_time() - self._cpu_started


class Trl:
    """The model with LoRA, which begins each training as the folder has it."""

    def __init__(self, model: str, adapter: str, device: str) -> None:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
        self._adapter = Path(adapter)
        self._model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._cpu = device == "cpu"

    def train(
        self,
        texts: list[tuple[list[int], int]],
        sampling: str,
        batch_size: int,
        learning_rate: float,
        into: str | None,
        *,
        count: bool,
    ) -> dict[str, object]:
        """Train one epoch; return seconds and the loss of each step, if the adapter is wanted ``into`` a folder.

        Or ``count`` the operations, which takes longer, and return these alone.
        """
        set_peft_model_state_dict(self._model, load_file(self._adapter / "adapter_model.safetensors"))
        rows = [
            {"input_ids": ids, "labels": [IGNORED] * start + ids[start:], "length": len(ids)} for ids, start in texts
        ]
        watch = Watch()
        with tempfile.TemporaryDirectory() as folder:
            settings = SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                num_train_epochs=1,
                learning_rate=learning_rate,
                lr_scheduler_type="constant",
                adam_beta1=0.9,
                adam_beta2=0.95,
                weight_decay=0.0,
                max_grad_norm=1.0,
                bf16=False,
                gradient_checkpointing=False,
                train_sampling_strategy=sampling,
                logging_steps=1 if into else 10,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=self._cpu,
            )
            trainer = SFTTrainer(
                model=self._model,
                args=settings,
                train_dataset=Dataset.from_list(rows),
                processing_class=self._tokenizer,
                callbacks=[watch],
            )
            if count:
                return {"operations": operations_of(trainer.train)}
            trainer.train()
        if into:
            self._model.save_pretrained(into)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {"seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds, "losses": losses}


def main() -> None:
    """Load the model, and then answer."""
    parser = argparse.ArgumentParser()
    for name in ("model", "adapter", "device"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # what libraries print is no answer
        torch.set_num_threads(options.threads)
        trl = Trl(options.model, options.adapter, options.device)
        answer_questions(sys.stdin, answers, trl.train)


if __name__ == "__main__":
    main()
