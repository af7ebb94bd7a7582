"""The round of the model that FLARE has saved, as a new job would load it: ``-m bench.peers.nvflare_app.kept FILE``."""

import sys

from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_opt.pt import PTFileModelPersistor

if __name__ == "__main__":
    saved = PTFileModelPersistor(source_ckpt_file_full_name=sys.argv[1]).load_model(FLContext())
    print(saved[ModelLearnableKey.META]["current_round"] + 1)  # FLARE counts from 0
