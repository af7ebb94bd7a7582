"""A thousand agents against one coordinator: real requests, signatures and masks, and no training."""
