"""The sections of the page: one module a part, from small frames to pieces."""
