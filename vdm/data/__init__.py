"""Where clips come from: the embedded world, folders of video, caches of both, and batches."""
