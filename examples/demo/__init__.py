"""The demo: two tiny pretrained models, a reading task, and the launcher."""
