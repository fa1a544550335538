"""Read folders of pictures with labels or depths, as their owner has them."""
